# SPDX-License-Identifier: Apache-2.0
"""Bringing a session to its end that failed or was cut off: undone, finished, or taken back with what was written kept.

A session is undone until it has decided to finish. A recovery whose every exchange is made counts as decided: its
application may have acknowledged something on the new volumes, and that must not be lost.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from slackwater.errors import FencedError, SlackwaterError
from slackwater.hosts.contract import Reconciled
from slackwater.journal.effects import Effect
from slackwater.journal.journal import Decision, EffectState, Entry, Journal, Mended, OpenSession
from slackwater.model.replica import BackupComponents, ReplicaKind
from slackwater.model.session import SessionKind
from slackwater.providers.contract import Exchange
from slackwater.recovery import takeback
from slackwater.recovery.order import Hands
from slackwater.recovery.steps import record_aside
from slackwater.system import hooks
from slackwater.system.companions import StopService
from slackwater.system.configuration import PutConfiguration, RemoveConfiguration

_START = ".start"
"""How the kinds of effects end that start an application."""
_NO_DOCUMENT = (
    "Its document cannot be found; perhaps a filesystem of it is not mounted. Where it is gone for good,"
    " `slackwater reconcile --forget` gives the session up."
)


class Mender:
    """Mends the sessions of a journal, in whatever process. Blocking; every method is idempotent."""

    def __init__(self, journal: Journal, hands: Hands, hung: Collection[str] = ()) -> None:
        """Know what is needed to mend.

        Args:
            journal: with the kinds of effects that are known here.
            hands: writers, providers and the clock.
            hung: sessions of ours of which a call has not come back, and may still make something.
        """
        self._journal, self._hands, self._hung = journal, hands, hung

    def undo(self, session: str) -> Reconciled:
        """Put back what a session of this process made, and settle it when nothing is left.

        A recovery that was told to stay is left as it is, once it has switched, and stays open.

        Raises:
            FencedError: another process has taken it over; nothing was undone.
            SlackwaterError: what becomes of it could not be decided; the next reconcile does.
        """
        self._journal.check(session, strictly=False)
        opened = next((each for each in self._journal.open_sessions() if each.id == session), None)
        if opened is None:  # undone and settled before
            return Reconciled(session, "", ())
        if opened.decision is Decision.STAY:
            return Reconciled(session, opened.kind, (), found=Decision.STAY)
        keep = _stands_on_itself(opened) and (takeback.ran(opened) or self._may_be_switched(session))
        decision = Decision.KEEP if keep else Decision.UNDO
        try:
            self._journal.decide(session, decision)
        except FencedError:
            raise
        except SlackwaterError:
            # With a full disk nothing can be decided any more; what has not decided is undone anyway, now and later.
            if opened.decision is not Decision.OPEN:
                raise
        return self._take_back(replace(opened, decision=decision))

    def go_back(self, session: str) -> bool:
        """Decide that a recovery that stays where it is, is taken back after all, by whoever mends it next.

        Returns: False where no such recovery stays, or where it has come to its end: what it set aside may be in the
            catalog by then, and is what the next recovery puts back.
        """
        stays = [each.id for each in self._journal.open_sessions() if each.decision is Decision.STAY]
        left = [each for each in self._journal.entries(session) if each.state is EffectState.INTENT]
        if session not in stays or not left:
            return False
        self._journal.take(session)
        self._journal.decide(session, Decision.KEEP)
        return True

    def mend(self, cut_off: OpenSession) -> Reconciled:
        """Mend one whose process is dead; it is ours from here on, also where somebody took the living for dead.

        What cannot even be looked at (a filesystem that is gone) keeps nobody else from being mended.
        """
        try:
            self._journal.take(cut_off.id)
            mended = self._put_right(cut_off)
        except Exception as e:  # noqa: BLE001  # a damaged record, or a plug-in's defect
            failed = Mended(cut_off.id, "look at what it had made", cut_off.decision, str(e), done=False)
            mended = Reconciled(cut_off.id, cut_off.kind, (failed,))
        return replace(mended, process=cut_off.process, found=cut_off.decision)

    def _put_right(self, cut_off: OpenSession) -> Reconciled:
        if cut_off.decision is Decision.UNREADABLE:
            raise SlackwaterError(
                f"What session {cut_off.id} had decided cannot be read in the journal.",
                hint=f"Put it right by hand, then: slackwater reconcile --forget {cut_off.id}",
            )
        if cut_off.decision is Decision.OPEN:
            switched = self._switched(cut_off.id)
            again = self._on_exchanges(cut_off.id) if switched else ()
            cut_off = self._decided(cut_off, Decision.FINISH if switched else Decision.UNDO, again)
        elif cut_off.decision is Decision.UNDO and _stands_on_itself(cut_off) and self._switched(cut_off.id):
            # Cut off before anything was switched back: whoever found the new volumes in place may have started it.
            cut_off = self._decided(cut_off, Decision.KEEP)
        if cut_off.decision in (Decision.FINISH, Decision.STAY):
            mended = self._journal.finish(cut_off.id)
            goes_back = _stands_on_itself(cut_off) and cut_off.decision is Decision.FINISH
            if not (goes_back and self._did_not_start(cut_off.id, mended)):
                return self._finished(cut_off, mended)
            # It may have been started before it was cut off, or by somebody else since, and have acknowledged.
            cut_off = self._decided(cut_off, Decision.KEEP)
        return self._take_back(cut_off)

    def _decided(self, session: OpenSession, decision: Decision, again: Collection[int] = ()) -> OpenSession:
        self._journal.decide(session.id, decision, again=again)
        return replace(session, decision=decision)

    def _finished(self, session: OpenSession, mended: Sequence[Mended]) -> Reconciled:
        finished = Reconciled(session.id, session.kind, tuple(mended), self._document(session.id))
        if finished.whole and finished.document is None and _stands_on_itself(session):
            unseen = Mended(session.id, "describe what it had before", Decision.FINISH, _NO_DOCUMENT, done=False)
            return replace(finished, mended=(*mended, unseen))
        if finished.whole:
            if finished.document is not None and finished.document.kind is ReplicaKind.UNDO:
                finished = replace(finished, document=record_aside(finished.document, self._hands, self._journal))
            # The application is back: a service that does not start is told, and holds nothing up.
            finished = replace(finished, mended=(*mended, *self._end_around(session.id)))
            self._journal.settle(session.id)
        return finished

    def _take_back(self, session: OpenSession) -> Reconciled:
        """Undo a session; where its application may have run on the clones, they are kept and described. Idempotent."""
        effects = self._journal.effects(session.id)
        spared = self._spared(session, effects) | self._not_ours_to_stop(session, effects)
        kept = takeback.clones(effects)
        _stop_again(effects)
        undone = self._journal.undo(session.id, strictly=_stands_on_itself(session), sparing=spared)
        undone, unstarted = _apart(undone, effects)
        if session.id in self._hung:
            undone.append(_still_hangs(session))
        document = None
        if session.decision is Decision.KEEP and not any(each.error for each in undone):
            try:
                document = self._keep(session.id, effects)
                undone += [Mended(session.id, each.describe(), Decision.KEEP, kind=each.kind) for _, each in kept]
            except SlackwaterError as e:
                undone.append(Mended(session.id, "keep what the application ran on", Decision.KEEP, str(e), done=False))
        back = Reconciled(session.id, session.kind, tuple(undone), document)
        if back.whole:
            # A service that does not start is told, with what to do, and holds nothing up: it may run all the same.
            self._journal.settle(session.id)
        return replace(back, mended=(*undone, *unstarted))

    def _keep(self, session: str, effects: Sequence[tuple[Entry, Effect]]) -> BackupComponents | None:
        """Seal the clones and describe them.

        Raises:
            SlackwaterError: what the recovery wrote beside them cannot be found; without it nobody would find them.
        """
        clones = takeback.clones(effects)
        if not clones:
            return None
        document = self._document(session)
        if document is None or len(clones) != len(document.copies):
            raise SlackwaterError(_NO_DOCUMENT)
        facts = [clone.keep() for _, clone in clones]
        document = takeback.describe(document, facts, self._hands.clock.now())
        for name in sorted({copy.provider for copy in document.copies}):
            self._hands.providers[name].write_document(document)
        return document

    def _spared(self, session: OpenSession, effects: Sequence[tuple[Entry, Effect]]) -> frozenset[int]:
        """What is not undone now, of what providers make: kept clones, and what a call that hangs may still make."""
        kinds = {each.kind for provider in self._hands.providers.values() for each in provider.effects}
        made = [entry.id for entry, effect in effects if effect.kind in kinds]
        if session.decision is Decision.KEEP:
            last = max((entry.id for entry, _ in takeback.clones(effects)), default=0)
            return frozenset(each for each in made if each <= last)
        return frozenset(made) if session.id in self._hung else frozenset()

    def _not_ours_to_stop(self, session: OpenSession, effects: Sequence[tuple[Entry, Effect]]) -> frozenset[int]:
        """The starts of a recovery of which no exchange is in place: whoever runs, does so on what it had before.

        Its start may have been undone without a record of that, or was never made, and others have started it.
        """
        if not _stands_on_itself(session) or self._may_be_switched(session.id, wholly=False):
            return frozenset()
        return frozenset(entry.id for entry, _ in effects if entry.kind.endswith(_START))

    def _end_around(self, session: str) -> list[Mended]:
        """Start the services, and run the second of a pair of hooks, of a session that died before it could."""
        story = []
        for entry, effect in reversed(self._journal.effects(session)):
            if not isinstance(effect, hooks.Pair | StopService) or entry.state is EffectState.UNDONE:
                continue
            error = ""
            try:
                self._journal.revert(session, effect)
            except FencedError:
                raise
            except SlackwaterError as e:
                error = f"{e.sentence} {e.hint}".strip()
            except Exception as e:  # noqa: BLE001  # a defect in one of them keeps no other from being started
                error = repr(e)
            if isinstance(effect, StopService):
                told = effect.describe_start() if effect.running else effect.describe()
                action = Decision.UNDO if error else Decision.FINISH  # one that fails is no half of a recovery
                story.append(Mended(session, told, action, error, not error, effect.kind))
        return story

    def _did_not_start(self, session: str, mended: Sequence[Mended]) -> bool:
        """Whether a recovery cannot be finished since its application, or its configuration, cannot be put in place."""
        if not any(each.error and not each.done for each in mended):
            return False
        pending = [entry.kind for entry in self._journal.entries(session) if entry.state is EffectState.INTENT]
        return bool(pending) and pending[0].endswith((_START, PutConfiguration.kind, RemoveConfiguration.kind))

    def _document(self, session: str) -> BackupComponents | None:
        """The document that lies beside a session's copies."""
        found = [each for provider in self._hands.providers.values() for each in provider.find()]
        return next((each.document for each in found if each.session == session), None)

    def _switched(self, session: str) -> bool:
        """Whether every exchange of a recovery has been made, although it was cut off before it could say so.

        The application may have been started on the new volumes since, by the init or by hand; what it has acknowledged
        there must not be lost, so such a recovery is finished and not undone.
        """
        exchanges = self._exchanges(session)
        return bool(exchanges) and all(each.exchanged() for _, each in exchanges)

    def _may_be_switched(self, session: str, *, wholly: bool = True) -> bool:
        """The same, or whether any exchange has been made; what cannot be looked at counts as made."""
        exchanges = self._exchanges(session)
        return bool(exchanges) and (all if wholly else any)(_is_made(each) for _, each in exchanges)

    def _on_exchanges(self, session: str) -> list[int]:
        """The effects of a recovery from its first exchange on, which are made again where it was cut off undecided.

        It may have been undoing them: with a full disk that is done without a decision, perhaps without a record, and a
        bar that had been lifted would lie over its volumes for ever.
        """
        first, _ = self._exchanges(session)[0]
        return [entry.id for entry in self._journal.entries(session) if entry.id >= first.id]

    def _exchanges(self, session: str) -> list[tuple[Entry, Exchange]]:
        return [(entry, each) for entry, each in self._journal.effects(session) if isinstance(each, Exchange)]


def _is_made(exchange: Exchange) -> bool:
    try:
        return exchange.exchanged()
    except Exception:  # noqa: BLE001  # also a plug-in's defect
        return True


def _apart(undone: Sequence[Mended], effects: Sequence[tuple[Entry, Effect]]) -> tuple[list[Mended], list[Mended]]:
    """What was undone, and apart from it the services that did not start again, each with the command to type."""
    services = {each.describe(): each for _, each in effects if isinstance(each, StopService)}
    back, unstarted = [], []
    for each in undone:
        service = services.get(each.effect) if each.kind == StopService.kind and not each.done else None
        if service is None:
            back.append(each)
        else:
            told = f"{each.error} Start it by hand: {' '.join(service.start)}"
            unstarted.append(replace(each, effect=service.describe_start(), error=told))
    return back, unstarted


def _stop_again(effects: Sequence[tuple[Entry, Effect]]) -> None:
    """Stop an application that its supervisor has started since, on volumes that are not back yet.

    Whom it cannot stop keeps the exchange from being undone, and is named there.
    """
    open_ones = [each for entry, each in effects if entry.state is not EffectState.UNDONE]
    with suppress(Exception):  # also a plug-in's defect: what is not stopped is named below
        if any(isinstance(each, Exchange) and each.exchanged() for each in open_ones):
            for entry, effect in effects:
                if entry.kind.endswith(_START) and entry.state is EffectState.UNDONE:
                    effect.undo()


def _still_hangs(session: OpenSession) -> Mended:
    return Mended(
        session.id, "remove what was made of the copies", Decision.UNDO, "a snapshot has not come back", done=False
    )


def _stands_on_itself(session: OpenSession) -> bool:
    """Whether the effects of a session stand on each other, so that an undo must not go on past a failure."""
    return session.kind == SessionKind.RECOVERY
