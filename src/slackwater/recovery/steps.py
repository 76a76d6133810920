# SPDX-License-Identifier: Apache-2.0
"""The steps of a recovery as values: a preview prints them, a session makes them, the journal mends them.

Switch, do not copy: a writable clone of the replica, made beside while the application still runs, takes the place of
its volumes; what was there is set aside and becomes the undo replica. Begin with `recover`.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypeVar

from slackwater.errors import PartialError, SlackwaterError
from slackwater.journal.effects import Effect
from slackwater.journal.journal import Decision, Journal
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.hold import Hold
from slackwater.model.plan import Window
from slackwater.model.replica import BackupComponents, ReplicaKind
from slackwater.model.session import Phase
from slackwater.model.storage import ShadowCopy
from slackwater.model.target import TargetKind
from slackwater.providers import _copying
from slackwater.providers.contract import Provider, Switch
from slackwater.recovery import configured, filling, logs, services
from slackwater.recovery.order import Hands, RecoveryOrder, Trees, trees_in
from slackwater.recovery.promise import promise
from slackwater.system import btrfs, companions, namespaces
from slackwater.system.companions import StopService
from slackwater.system.configuration import Change, ForgetConfiguration, forget
from slackwater.system.crew import in_thread, stop_in_thread, wait_in_thread
from slackwater.system.story import Story

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Steps:
    """A recovery, as effects in order."""

    fill: tuple[Effect, ...]
    """What brings full copies back; undone as soon as the clones are there."""
    clones: tuple[Effect, ...]
    stop: tuple[Effect, ...]
    exchange: tuple[Effect, ...]
    start: tuple[Effect, ...]
    settle: tuple[Effect, ...]
    seal: tuple[Effect, ...]
    aside: tuple[ShadowCopy, ...]
    stopped: frozenset[ComponentRef]
    """Who runs, and is stopped by a step."""
    services: tuple[StopService, ...] = ()
    configuration: tuple[Change, ...] = ()
    forget: tuple[ForgetConfiguration, ...] = ()

    def describe(self) -> tuple[str, ...]:
        """One plain line a step, as the preview shows them."""
        before = (
            *self.fill, *self.clones, *self.services, *self.stop, *self.exchange, *self.configuration, *self.start
        )  # fmt: skip
        back = [each.describe_start() for each in reversed(self.services) if each.running]
        after = (*self.settle, *self.forget, *self.seal)
        return (*(each.describe() for each in before), *back, *(each.describe() for each in after))


@dataclass(frozen=True, slots=True)
class Recovered:
    """An application that is back, and what was set aside for it."""

    undo: BackupComponents
    """Without the facts of its copies, until they are sealed."""
    downtime_ms: float
    reached: Mapping[ComponentRef, Facts]


Known = Mapping[ComponentRef, Sequence[Facts]]
"""What earlier recoveries returned, by component."""
"""By component, where each of its file sets can be reached."""
Learnt = Callable[[Mapping[ComponentRef, Facts]], None]
"""Told, before the switch, what later recoveries have to know."""
Proven = Callable[[], None]
"""Called when the application is proven to be back: from then on nothing is taken back."""


def plan_steps(order: RecoveryOrder, session: str, hands: Hands) -> Steps:
    """Turn a recovery order into steps. Reads only."""
    fillings = filling.plan(order.source.copies, order.live, session, hands.providers)
    beside = filling.foreseen(fillings, order.source.copies, session, hands.providers)
    steps = _steps(order, fillings, beside, session, hands)
    with suppress(SlackwaterError):  # one that is not here is a finding of its own
        steps = replace(steps, services=tuple(companions.plan(order.services, session, order.source.specification)))
    return steps


def _steps(
    order: RecoveryOrder,
    fillings: Sequence[filling.Filling | None],
    copies: Sequence[ShadowCopy],
    session: str,
    hands: Hands,
) -> Steps:
    """The same from these copies, each beside its volume."""
    switches = _switches(order, copies, session, hands)
    writers = [hands.writers[each.ref.writer] for each in order.now]
    pairs = list(zip(writers, order.now, strict=True))
    stops = [writer.stop_effect(each) for writer, each in pairs]
    put = configured.changes(order, session)
    return Steps(
        fill=tuple(each.fill for each in fillings if each is not None),
        clones=_all(each.clones for each in switches),
        stop=_some(stops),
        exchange=(
            *_all(each.bar for each in switches),
            *_all(each.exchange for each in switches),
            *_all(each.unbar for each in reversed(switches)),
        ),
        start=_some(writer.start_effect(each) for writer, each in reversed(pairs)),
        settle=_some(writer.settle_effect(each) for writer, each in pairs) if _rolls(order) else (),
        seal=_all(each.seal for each in switches),
        aside=_all(each.aside for each in switches),
        stopped=frozenset(each.ref for each, stop in zip(order.now, stops, strict=True) if stop and each.running),
        configuration=put,
        forget=tuple(map(forget, put)),
    )


def _switches(order: RecoveryOrder, beside: Sequence[ShadowCopy], session: str, hands: Hands) -> list[Switch]:
    """One switch for each provider; the copies of one follow each other in a document."""
    pairs = list(zip(beside, order.live, strict=True))
    names = list(dict.fromkeys(volume.provider for volume in order.live))
    switches = []
    for name in names:
        copies = [copy for copy, volume in pairs if volume.provider == name]
        live = [volume for volume in order.live if volume.provider == name]
        switches.append(hands.providers[name].switch(copies, live, session, alone=len(names) == 1))
    return switches


def _all(parts: Iterable[Sequence[T]]) -> tuple[T, ...]:
    return tuple(each for part in parts for each in part)


def _some(effects: Iterable[Effect | None]) -> tuple[Effect, ...]:
    return tuple(each for each in effects if each is not None)


def _rolls(order: RecoveryOrder) -> bool:
    """Whether the engine recovers onto a history of its own; what was set aside is put back as it was instead."""
    return order.source.kind is ReplicaKind.BACKUP


async def recover(
    order: RecoveryOrder, session: str, owner: str, hands: Hands, journal: Journal, story: Story, learnt: Learnt,
    proven: Proven,
) -> Recovered:  # fmt: skip
    """Put the application back on the replica, up to the proof that it is back; `complete` does the rest.

    When it raises, the caller takes the session back by its journal: the application is then where it was, and what it
    may have written to the clones is kept (`takeback.py`). One that `stays` stays in the journal, as it is, from its
    switch on. From `proven` on nothing may be taken back any more: the application acknowledges, and the services that
    live on it are started.

    Raises:
        SlackwaterError: a step failed, or the application did not recover as it had to.
    """
    fillings = filling.plan(order.source.copies, order.live, session, hands.providers)
    with story.phase(Phase.PREPARE):
        facts = await filling.fill(fillings, session, journal, story)
        beside = filling.foreseen(fillings, order.source.copies, session, hands.providers, facts)
        steps = _steps(order, fillings, beside, session, hands)
        places = {each.place for each in fillings if each is not None}
        for volume in (each for each in order.live if hands.providers[each.provider].capabilities.copies):
            story.say("note", f"Copying the replica of {volume.path} beside it; the application works on.")
        for effect in steps.clones:
            if effect not in places:
                await stop_in_thread(journal.run, session, effect, stop=_copying.stop)
        await filling.discard(fillings, session, journal)
        await in_thread(_unaltered, order, hands)
        expected = await in_thread(_prepare, order, steps, session, owner, hands)
        expected |= await in_thread(_roll, order, steps, expected, hands)
        await in_thread(logs.forgive, order, steps.aside, hands)
        learnt(expected)
    began_s = hands.clock.boot_s()
    with story.phase(Phase.STOP):
        around = await services.stop(order, session, journal)
        for effect in steps.stop:
            await in_thread(journal.run, session, effect)
        for part in (namespaces.end_over, namespaces.let_go):
            await in_thread(part, [volume.path for volume in order.live])
        await in_thread(_nobody_else, order, hands)
        stopped = hands.clock.now()
        # Only now the log is complete.
        if rolled := await in_thread(_roll, order, steps, expected, hands):
            expected |= rolled
            learnt(expected)
    # All further intents at once: from the decision on, a reconcile must know the whole way to the end.
    ahead = Ahead(
        journal,
        session,
        (*steps.exchange, *steps.configuration, *steps.start, *steps.settle, *steps.forget, *steps.seal),
    )
    before = _roots(order)
    with story.phase(Phase.SWITCH):
        await ahead.make(steps.exchange)
        _must_be_switched(order, before)
        journal.decide(session, Decision.STAY if order.stays else Decision.FINISH)
    with story.phase(Phase.START):
        await ahead.make(steps.configuration)
        await ahead.make(steps.start)
        reached = {}
        for each in order.now:
            confirm = partial(hands.writers[each.ref.writer].confirm, timeout_s=order.timeout_s)
            reached[each.ref] = {**expected[each.ref], **await wait_in_thread(confirm, each, expected[each.ref])}
        proven()
        await services.start(around, session, journal, story)
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
    aside = record_aside(recovered.undo, hands, journal)
    for copy in aside.copies:
        if why := hands.providers[copy.provider].altered(copy):
            raise PartialError(
                f"The application is recovered, but what it had before is not as its provider says: {why}.",
                data=f"It lies at {copy.place} and cannot be recovered from.",
                hint="Tell the authors of the provider.",
            )
    return aside


def _unaltered(order: RecoveryOrder, hands: Hands) -> None:
    """Ask once more, now that the clones are made: between the check and the clone, a copy may have been altered."""
    for copy in order.source.copies:
        if why := hands.providers[copy.provider].altered(copy):
            raise SlackwaterError(
                f"The copy {copy.place} is not what was backed up: {why}.",
                data="Nothing was switched; the application was not stopped.",
                hint="Recover from another replica; `slackwater replica list` shows them.",
                code="replica-altered",
            )


def _prepare(order: RecoveryOrder, steps: Steps, session: str, owner: str, hands: Hands) -> dict[ComponentRef, Facts]:
    """Make the clones' files ready, and put the undo replica's document beside them, before anything stops."""
    document = undo_document(order, steps, session, owner, hands.clock.now())
    for provider in _providers(document, hands):
        provider.write_document(document)
    if not _rolls(order):
        return {each.ref: {} for each in order.now}
    with ExitStack() as reached:
        return make_ready(order.source, order.known, trees_in(order, steps.aside, hands, reached), session, hands)


def _roll(
    order: RecoveryOrder, steps: Steps, expected: Mapping[ComponentRef, Facts], hands: Hands
) -> dict[ComponentRef, Facts]:
    """Lay the log on the way to the target beside the clones; what is expected changes with it."""
    if order.target.kind is TargetKind.REPLICA:
        return {}
    with ExitStack() as reached:
        rolled = logs.roll(order, trees_in(order, steps.aside, hands, reached), expected, hands)
    known = {ref: {**expected[ref], **facts} for ref, facts in rolled.items()}
    return {ref: {name: fact for name, fact in facts.items() if fact is not None} for ref, facts in known.items()}


def make_ready(
    source: BackupComponents, known: Known, trees: Trees, session: str, hands: Hands
) -> dict[ComponentRef, Facts]:
    """Have the writers make the files of clones ready; returns for each component what its engine has to reach."""
    expected: dict[ComponentRef, Facts] = {}
    for record in source.components:
        ref = record.component.ref
        rewrite = hands.writers[ref.writer].rewrite
        learnt = rewrite(record.component, trees[ref], record.expected, known.get(ref, ()), session)
        expected[ref] = {**record.expected, **learnt}
    return expected


def _roots(order: RecoveryOrder) -> list[tuple[object, ...]]:
    """What lies in the volumes' places, as the kernel tells it.

    All subvolumes have one inode number, and a device number that was given back with the last unmount is given out
    again with the next mount: only the subvolume's own identity tells two of them apart.
    """
    found = [os.stat(volume.path) for volume in order.live]
    subvolumes = [_subvolume(volume.path) for volume in order.live]
    return [(each.st_dev, each.st_ino, uuid) for each, uuid in zip(found, subvolumes, strict=True)]


def _subvolume(path: str) -> str:
    """The identity of the subvolume whose root is at a path; empty where there is none."""
    try:
        found = btrfs.subvolume_at(path)
    except OSError:  # another filesystem
        return ""
    return found.uuid if found else ""


def _must_be_switched(order: RecoveryOrder, before: Sequence[tuple[object, ...]]) -> None:
    """See for ourselves that something else lies in each place now; after this the session is finished, not undone."""
    for volume, old, new in zip(order.live, before, _roots(order), strict=True):
        if old == new:
            raise SlackwaterError(
                f"The provider {volume.provider} says that it has exchanged {volume.path}, and has not.",
                data="What had been switched is switched back; the application is started again on the data it had.",
                hint="Tell the authors of the provider.",
                code="not-as-said",
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
    return BackupComponents(
        schema_version=1,
        owner=owner,
        session=session,
        kind=ReplicaKind.UNDO,
        specification=order.source.specification,
        created=created,
        hold=Hold.COLD,
        reason=f"Set aside by the recovery of {order.source.session}, with the application stopped.",
        consistency=promise(order.now, steps.stopped),
        window=Window(),
        components=tuple(
            configured.aside(each, record, order)
            for each, record in zip(order.now, order.source.components, strict=True)
        ),
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
    return [hands.providers[name] for name in sorted({copy.provider for copy in document.copies})]
