# SPDX-License-Identifier: Apache-2.0
"""The steps of a recovery as values: a preview prints them, a session makes them, the journal mends them.

Switch, do not copy: a writable clone of the replica, made beside while the application still runs, takes the place of
its volumes; what was there is set aside and becomes the undo replica. Begin with `recover`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from slackwater.errors import PartialError, SlackwaterError
from slackwater.journal.effects import Effect
from slackwater.journal.journal import Decision, Journal
from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.plan import Consistency, Hold, Window
from slackwater.model.replica import BackupComponents, ComponentRecord, ReplicaKind
from slackwater.model.session import Phase
from slackwater.model.storage import ShadowCopy, Volume
from slackwater.providers.contract import Provider
from slackwater.system.clock import Clock
from slackwater.system.crew import in_thread, wait_in_thread
from slackwater.system.story import Story
from slackwater.writers.contract import Writer


@dataclass(frozen=True, slots=True)
class Hands:
    """What a recovery is made with on a host."""

    writers: Mapping[str, Writer]
    providers: Mapping[str, Provider]
    clock: Clock


@dataclass(frozen=True, slots=True)
class RecoveryOrder:
    """Which replica takes the place of what."""

    source: BackupComponents
    now: tuple[Component, ...]
    """The components as they are now (as recorded, where they cannot be asked any more), in the document's order."""
    live: tuple[Volume, ...]
    """The volumes as they are now, in the order of the document's copies."""
    known: Mapping[ComponentRef, Sequence[Facts]]
    """What earlier recoveries returned, so that no timeline is used twice."""
    timeout_s: float = 3600.0
    """How long the application may take to recover."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A recovery, as effects in order."""

    clones: tuple[Effect, ...]
    stop: tuple[Effect, ...]
    exchange: tuple[Effect, ...]
    start: tuple[Effect, ...]
    settle: tuple[Effect, ...]
    seal: tuple[Effect, ...]
    aside: tuple[ShadowCopy, ...]

    def describe(self) -> tuple[str, ...]:
        """One plain line a step, as the preview shows them."""
        effects = (*self.clones, *self.stop, *self.exchange, *self.start, *self.settle, *self.seal)
        return tuple(effect.describe() for effect in effects)


@dataclass(frozen=True, slots=True)
class Recovered:
    """An application that is back, and what was set aside for it."""

    undo: BackupComponents
    """Without the facts of its copies, until they are sealed."""
    downtime_ms: float
    reached: Mapping[ComponentRef, Facts]


Learnt = Callable[[Mapping[ComponentRef, Facts]], None]
"""Told, before the switch, what later recoveries have to know."""


def plan_steps(order: RecoveryOrder, session: str, hands: Hands) -> Steps:
    """Turn a recovery order into steps. Reads only."""
    (provider,) = {volume.provider for volume in order.live}
    switch = hands.providers[provider].switch(order.source.copies, order.live, session)
    writers = [hands.writers[each.ref.writer] for each in order.now]
    pairs = list(zip(writers, order.now, strict=True))
    return Steps(
        clones=switch.clones,
        stop=tuple(writer.stop_effect(each) for writer, each in pairs),
        exchange=switch.exchange,
        start=tuple(writer.start_effect(each) for writer, each in reversed(pairs)),
        settle=tuple(writer.settle_effect(each) for writer, each in pairs) if _rolls(order) else (),
        seal=switch.seal,
        aside=switch.aside,
    )


def _rolls(order: RecoveryOrder) -> bool:
    """Whether the engine recovers onto a history of its own; what was set aside is put back as it was instead."""
    return order.source.kind is ReplicaKind.BACKUP


async def recover(
    order: RecoveryOrder, session: str, owner: str, hands: Hands, journal: Journal, story: Story, learnt: Learnt
) -> Recovered:
    """Put the application back on the replica, up to the proof that it is back; `complete` does the rest.

    When it raises, the caller undoes the session by its journal: the application is then where it was. When it has
    returned, nothing may be taken back any more: the application acknowledges.

    Raises:
        SlackwaterError: a step failed, or the application did not recover as it had to.
    """
    steps = plan_steps(order, session, hands)
    with story.phase(Phase.PREPARE):
        for effect in steps.clones:
            await in_thread(journal.run, session, effect)
        expected = await in_thread(_prepare, order, steps, session, owner, hands)
        learnt(expected)
    began_s = hands.clock.boot_s()
    with story.phase(Phase.STOP):
        for effect in steps.stop:
            await in_thread(journal.run, session, effect)
        await in_thread(_nobody_else, order, hands)
        stopped = hands.clock.now()
    # All further intents at once: from the decision on, a reconcile must know the whole way to the end.
    ahead = Ahead(journal, session, (*steps.exchange, *steps.start, *steps.settle, *steps.seal))
    with story.phase(Phase.SWITCH):
        await ahead.make(steps.exchange)
        journal.decide(session, Decision.FINISH)
    with story.phase(Phase.START):
        await ahead.make(steps.start)
        reached = {}
        for each in order.now:
            confirm = partial(hands.writers[each.ref.writer].confirm, timeout_s=order.timeout_s)
            reached[each.ref] = {**expected[each.ref], **await wait_in_thread(confirm, each, expected[each.ref])}
    downtime_ms = (hands.clock.boot_s() - began_s) * 1000
    return Recovered(undo_document(order, steps, session, owner, stopped), round(downtime_ms, 3), reached)


def complete(recovered: Recovered, hands: Hands, journal: Journal) -> BackupComponents:
    """Make what is left when the application is proven: settings removed, what was set aside sealed and described.

    The same as a reconcile does for a recovery that died after its switch; idempotent.

    Raises:
        PartialError: something of it could not be done; the application is in use, and nothing of it is taken back.
    """
    left = [each for each in journal.finish(recovered.undo.session) if each.error]
    if left:
        raise PartialError(
            f"The application is recovered, but not all is put in order: {left[0].effect}: {left[0].error}",
            data="What it had before is set aside, whole; it is not in the catalog yet.",
            hint="slackwater reconcile",
        )
    return record_aside(recovered.undo, hands, journal)


def _prepare(order: RecoveryOrder, steps: Steps, session: str, owner: str, hands: Hands) -> dict[ComponentRef, Facts]:
    """Make the clones' files ready, and put the undo replica's document beside them, before anything stops."""
    document = undo_document(order, steps, session, owner, hands.clock.now())
    for provider in _providers(document, hands):
        provider.write_document(document)
    if not _rolls(order):
        return {each.ref: {} for each in order.now}
    with ExitStack() as reached:
        trees = _trees(order, steps, hands, reached)
        expected: dict[ComponentRef, Facts] = {}
        for record, each in zip(order.source.components, order.now, strict=True):
            known = order.known.get(each.ref, ())
            learnt = hands.writers[each.ref.writer].rewrite(record.component, trees[each.ref], known, session)
            expected[each.ref] = {**record.expected, **learnt}
    return expected


def _trees(order: RecoveryOrder, steps: Steps, hands: Hands, reached: ExitStack) -> dict[ComponentRef, dict[str, str]]:
    """For each component: where the clone of each of its file sets can be reached now."""
    roots = [
        (copy.volume.path, reached.enter_context(hands.providers[aside.volume.provider].reach(aside)))
        for copy, aside in zip(order.source.copies, steps.aside, strict=True)
    ]
    roots.sort(key=lambda pair: len(pair[0]), reverse=True)
    return {
        record.component.ref: {files.path: _within(files.path, roots) for files in record.component.files}
        for record in order.source.components
    }


def _within(path: str, roots: Sequence[tuple[str, str]]) -> str:
    """Where a recorded path lies below the clone of the innermost volume that carried it."""
    for volume_path, clone in roots:
        if path == volume_path or path.startswith(volume_path.rstrip("/") + "/"):
            return clone + path[len(volume_path.rstrip("/")) :]
    raise SlackwaterError(
        f"The replica's document names {path}, which lies on none of its volumes.",
        data="Nothing was changed.",
        code="document",
    )


def _nobody_else(order: RecoveryOrder, hands: Hands) -> None:
    """With the application stopped, nobody may hold the volumes any more, in whatever mount namespace."""
    found: list[Finding] = []
    for volume in order.live:
        beside = [each for each in order.live if each.id != volume.id]
        found += hands.providers[volume.provider].check_recovery(volume, frozenset(), beside)
    for finding in found:
        if finding.severity is Severity.REFUSAL:
            raise SlackwaterError(
                finding.sentence,
                data="Nothing was switched; the application was stopped, and is started again on the data it had.",
                hint=finding.hint,
                code=finding.code,
            )


class Ahead:
    """Effects whose intents are committed together, and which are made one by one, in order."""

    def __init__(self, journal: Journal, session: str, effects: Sequence[Effect]) -> None:
        self._journal = journal
        self._entries = iter(journal.intend(session, effects))

    async def make(self, effects: Sequence[Effect]) -> None:
        """Make the next of them."""
        for effect in effects:
            await in_thread(self._journal.make, next(self._entries), effect)


def undo_document(order: RecoveryOrder, steps: Steps, session: str, owner: str, created: datetime) -> BackupComponents:
    """Describe what a recovery sets aside. The facts of the copies are known only when they are sealed."""
    ran = any(each.running for each in order.now)
    return BackupComponents(
        schema_version=1,
        owner=owner,
        session=session,
        kind=ReplicaKind.UNDO,
        specification=order.source.specification,
        created=created,
        hold=Hold.COLD,
        reason=f"Set aside by the recovery of {order.source.session}, with the application stopped.",
        consistency=Consistency.APPLICATION if ran else Consistency.CRASH,
        window=Window(),
        components=tuple(ComponentRecord(each, {}) for each in order.now),
        copies=steps.aside,
        replica=order.source.session,
    )


def record_aside(document: BackupComponents, hands: Hands, journal: Journal) -> BackupComponents:
    """Complete the undo replica's document with what sealing it showed, beside the copies. Idempotent.

    Also what a reconcile does for a recovery that died after its switch.
    """
    sealed = [entry.facts for entry in journal.entries(document.session) if entry.kind.endswith(".seal")]
    copies = tuple(replace(copy, facts=facts) for copy, facts in zip(document.copies, sealed, strict=True))
    complete = replace(document, copies=copies)
    for provider in _providers(complete, hands):
        provider.write_document(complete)
    return complete


def _providers(document: BackupComponents, hands: Hands) -> list[Provider]:
    return [hands.providers[name] for name in sorted({copy.volume.provider for copy in document.copies})]
