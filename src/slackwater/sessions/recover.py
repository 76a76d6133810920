# SPDX-License-Identifier: Apache-2.0
"""An instant recovery, and its undo: the application goes back to a replica, and what it had is set aside."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import groupby, takewhile
from typing import TypeVar

import anyio

from slackwater.errors import NotFoundError, SlackwaterError
from slackwater.hosts.contract import RecoveryPlan
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.replica import BackupComponents, Replica, ReplicaKind, ReplicaState
from slackwater.model.session import Message, Outcome, Phase, PhaseRecord, SessionKind
from slackwater.model.target import TO_REPLICA, Reach, RecoveryTarget, TargetKind
from slackwater.policy.room import enough
from slackwater.recovery.part import left_behind, part
from slackwater.sessions.cell import Cell
from slackwater.sessions.downtime import Downtime, foreseen
from slackwater.sessions.logs import keep_from
from slackwater.sessions.running import Run, running
from slackwater.sessions.target import refuse, resolve
from slackwater.system.story import Listener

Candidate = TypeVar("Candidate")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class RecoveryPreview:
    """What a recovery would do."""

    specification: str
    replica: str
    created: datetime
    back_s: float
    """How far back in time it goes."""
    sets_aside: tuple[str, ...]
    """The paths whose present data becomes the undo replica."""
    steps: tuple[str, ...]
    findings: tuple[Finding, ...]
    components: tuple[ComponentRef, ...]
    """What goes back."""
    target: RecoveryTarget = TO_REPLICA
    reach: Reach | None = None
    """How far it goes forward from the replica; None when it does not."""
    since: Mapping[ComponentRef, Facts] = field(default_factory=dict)
    """What applications have written since the replica."""
    down: Downtime | None = None
    """How long the application will be down; None when that was not measured yet."""
    services: tuple[str, ...] = ()
    """Those around the application that run, and stop with it."""
    configuration: tuple[str, ...] = ()
    """Files outside of the volumes that are put back, or removed."""


@dataclass(frozen=True, slots=True)
class RecoveryResult:
    """How a recovery ended."""

    session: str
    specification: str
    outcome: Outcome
    replica: str
    undo_replica: str
    downtime_ms: float
    phases: tuple[PhaseRecord, ...]
    messages: tuple[Message, ...]
    reached: Mapping[str, Facts]
    target: RecoveryTarget = TO_REPLICA
    since: Mapping[ComponentRef, Facts] = field(default_factory=dict)
    """What applications had written since the replica when the recovery began."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """What somebody asks of a recovery; see `recover`."""

    target: str
    replica: str = ""
    undo: bool = False
    to: RecoveryTarget = TO_REPLICA
    only: Sequence[ComponentRef] = ()
    with_config: bool = False
    stay: bool = False


def choose(
    cell: Cell,
    target: str,
    replica: str = "",
    *,
    undo: bool = False,
    to: RecoveryTarget = TO_REPLICA,
    only: Sequence[ComponentRef] = (),
) -> Replica:
    """The replica that a recovery of `target` would use, or would try first.

    Args:
        cell: where to look.
        target: a specification, or WRITER:COMPONENT.
        replica: an id, a unique prefix or `latest`; empty for the newest good backup that is older than `to`.
        undo: the newest undo replica instead, which puts back what the last recovery set aside.
        to: where it goes from the replica.
        only: these components, and none of the others.

    Raises:
        NotFoundError: there is none.
    """
    return _candidates(cell, _Wish(target, replica, undo, to, only))[0]


def _candidates(cell: Cell, wish: _Wish) -> list[Replica]:
    """The replicas that a recovery may begin with, the best first; at least one."""
    target, replica, to, only = wish.target, wish.replica, wish.to, wish.only
    if ":" not in target:
        resolve(cell, target)
    kind = ReplicaKind.UNDO if wish.undo else ReplicaKind.BACKUP
    if replica and replica != "latest":
        chosen = cell.catalog.replicas.find(replica)
        if chosen.document.specification != target:
            raise NotFoundError(
                f"The replica {chosen.id} belongs to {chosen.document.specification}, not to {target}.",
                data="Nothing was changed.",
                hint=f"slackwater recover {chosen.document.specification} --replica {chosen.id}",
            )
        return [chosen]
    found = cell.catalog.replicas.list(specification=target, kind=kind)
    # What was kept of a recovery that was taken back took no replica's place: it is recovered from only by its id.
    good = [each for each in found if each.state is ReplicaState.GOOD and (each.document.replica or not wish.undo)]
    good = [each for each in good if set(only) <= set(each.components)] or ([] if wish.undo else good)
    if to.kind is TargetKind.TIME:
        good = [each for each in good if each.document.created <= to.time]
    if not good:
        what = "undo replica" if wish.undo else "good replica"
        when = f" from before {to}" if to.kind is TargetKind.TIME else ""
        hint = f"slackwater replica list {target}" if found else f"slackwater backup {target}"
        raise NotFoundError(
            f"There is no {what} of {target}{when}.", data="Nothing was changed.", hint=hint, code="no-replica"
        )
    if wish.undo and not only:
        _refuse_earlier(cell, target, good[0])
    return good


def _refuse_earlier(cell: Cell, target: str, undo: Replica) -> None:
    """Raise when it is not what the last recovery set aside: that is gone, and nobody asked for what came before it.

    What a recovery that is not put in order yet has set aside, the next session takes into the catalog.
    """
    done = (Outcome.COMPLETED, Outcome.COMPLETED_WITH_FAILURES)
    ran = cell.catalog.sessions.ran()  # in their order, whatever the clock said
    since = set(ran[ran.index(undo.id) + 1 :] if undo.id in ran else ()) - set(cell.host.pending())
    sessions = [each for each in cell.catalog.sessions.list(target) if each.id in since and each.outcome in done]
    later = [each.id for each in sessions if each.kind is SessionKind.RECOVERY]
    if later:
        raise NotFoundError(
            f"What the last recovery of {target}, {max(later, key=ran.index)}, set aside is gone.",
            data="Nothing was changed.",
            hint=f"slackwater recover {target} --replica {undo.id} goes to what an earlier one set aside.",
            code="no-replica",
        )


async def preview(
    cell: Cell,
    target: str,
    replica: str = "",
    *,
    undo: bool = False,
    to: RecoveryTarget = TO_REPLICA,
    only: Sequence[ComponentRef] = (),
    with_config: bool = False,
) -> RecoveryPreview:
    """Plan a recovery. Takes no lock, writes nothing."""
    cell = cell.speaking(target)
    chosen, planned = await _plan(cell, _Wish(target, replica, undo, to, only, with_config))
    return RecoveryPreview(
        specification=target,
        replica=chosen.id,
        created=chosen.document.created,
        back_s=(cell.clock.now() - chosen.document.created).total_seconds(),
        sets_aside=tuple(volume.path for volume in planned.order.live),
        steps=planned.steps,
        findings=(*planned.findings, *left_behind(chosen.document, only), *_doubts(chosen), *_lost(planned)),
        components=tuple(record.component.ref for record in planned.order.source.components),
        target=to,
        reach=planned.reach,
        since=planned.since,
        down=foreseen(cell, chosen),
        services=planned.services,
        configuration=planned.configuration,
    )


async def recover(
    cell: Cell,
    target: str,
    replica: str = "",
    *,
    undo: bool = False,
    to: RecoveryTarget = TO_REPLICA,
    only: Sequence[ComponentRef] = (),
    with_config: bool = False,
    stay: bool = False,
    wait_s: float = 0.0,
    listener: Listener | None = None,
) -> RecoveryResult:
    """Put the application back.

    Where it fails, all goes back to where it was. With `stay`, one that fails after its switch is left there instead:
    its session stays open until a reconcile finds it started, or `abort` takes it back.

    Raises:
        NotFoundError: no such replica, or its volume is gone.
        RefusedError: a check said no; nothing was touched.
        PartialError: the application is recovered, and something about it could not be put in order.
        SlackwaterError: it failed; the application is where it was before, unless it was to `stay`.
    """
    cell = cell.speaking(target)
    wish = _Wish(target, replica, undo, to, only, with_config, stay)
    _candidates(cell, wish)  # what is not there is told before the wait; asked again when nobody else is at work
    async with running(cell, SessionKind.RECOVERY, target, wait_s=wait_s, listener=listener) as run:
        with run.story.phase(Phase.CHECK):
            chosen, planned = await _plan(cell, wish)
            refuse(planned.findings)
            for each in (*planned.findings, *left_behind(chosen.document, only)):
                if each.severity is Severity.WARNING:
                    run.story.say("warning", each.sentence)
            for doubt in _doubts(chosen):
                run.story.say("warning", doubt.sentence)
        run.document |= {"replica": chosen.id, "target": str(to)}
        # Proven, and in use: whatever comes then is too late to take back what it acknowledges.
        keep = partial(run.keep, f"The application is recovered; what it had is kept as the undo replica {run.id}.")
        recovered = await cell.host.recover(
            run.id, replace(planned.order, stays=wish.stay), run.story, learnt=partial(_remember, run), proven=keep
        )
        with anyio.CancelScope(shield=True), run.story.phase(Phase.RECORD):
            aside = await cell.host.complete(recovered)
            cell.catalog.replicas.add(Replica(aside))
            await keep_from(cell, chosen.document, run.story)
        _remember(run, recovered.reached)
        for facts in recovered.reached.values():
            if unproven := facts.get("unproven"):
                run.story.say("warning", str(unproven))
        run.document["downtime_ms"] = recovered.downtime_ms
        run.count_errors()
    return RecoveryResult(
        session=run.id,
        specification=target,
        outcome=run.outcome,
        replica=chosen.id,
        undo_replica=aside.session,
        downtime_ms=recovered.downtime_ms,
        phases=run.story.phases,
        messages=run.story.messages,
        reached=run.document["recovered"],
        target=to,
        since=planned.since,
    )


async def _plan(cell: Cell, wish: _Wish) -> tuple[Replica, RecoveryPlan]:
    """Plan from the first candidate from which the target can be reached; from the first one, where there is none."""
    chosen, planned = await _plan_from(cell, wish)
    return chosen, replace(planned, findings=(*planned.findings, *await _low_room(cell, wish.target, planned)))


async def _plan_from(cell: Cell, wish: _Wish) -> tuple[Replica, RecoveryPlan]:
    """The same without what is found in the end.

    The first is asked thoroughly, which reads all of the log behind it. The others are first asked how far they go at
    all; among those that go equally far, each has all of the log of the one before, so few of them have to be read.
    """
    candidates = _candidates(cell, wish)
    specification = resolve(cell, wish.target)
    check, around = specification.options.configuration_check, specification.hooks.around

    async def plan(chosen: Replica) -> RecoveryPlan:
        source = part(chosen.document, wish.only)
        refs = [record.component.ref for record in source.components]
        known = {ref: cell.catalog.sessions.recoveries(ref) for ref in refs}
        return await cell.host.plan_recovery(
            source, known, configuration_check=check, around=around, target=wish.to, logs=_logs(cell, chosen, refs),
            services=specification.recovery.services, with_config=wish.with_config,
            archive=specification.recovery.asked,
        )  # fmt: skip

    async def reaching(chosen: Replica) -> RecoveryPlan | None:
        planned = await plan(chosen)
        return None if _falls_short(planned) else planned

    first = await plan(candidates[0])
    if wish.to.kind is TargetKind.REPLICA or not candidates[1:] or not _falls_short(first):
        return candidates[0], first
    asked = specification.recovery.asked
    for alike in await _going_equally_far(cell, candidates[1:], wish.to, wish.only, asked):
        if found := await first_that(alike, reaching):
            return found
    return candidates[0], first


def _falls_short(planned: RecoveryPlan) -> bool:
    return planned.reach is not None and bool(planned.reach.against)


async def _going_equally_far(
    cell: Cell, candidates: Sequence[Replica], to: RecoveryTarget, only: Sequence[ComponentRef], archive: str | None
) -> list[list[Replica]]:
    """Candidates in groups whose log ends at the same place, in their order; without those that cannot get there."""
    last = candidates[-1]
    documents = [last.document, *_logs(cell, last, only or last.components)]
    horizons = await cell.host.horizons(_parts(documents, only), archive)
    ends = [(each, horizons.get(each.id)) for each in candidates]
    able = [(each, end) for each, end in ends if end and end.to and not _ends_before(end, to)]
    return [[each for each, _ in alike] for _, alike in groupby(able, key=lambda pair: pair[1].to)]


def _ends_before(end: Reach, to: RecoveryTarget) -> bool:
    """Whether a log ends, with something missing, before the target for certain."""
    if not end.against:
        return False
    before = to.kind is TargetKind.TIME and end.at is not None and end.at < to.time
    return before or to.kind is TargetKind.LATEST


async def first_that(
    ordered: Sequence[Candidate], ask: Callable[[Candidate], Awaitable[Found | None]]
) -> tuple[Candidate, Found] | None:
    """The first of some for which `ask` answers, where it then answers for all that follow. None: for the last neither.

    Asks few: in steps that double, and then within the last step.
    """
    low, step = 0, 1
    while True:
        high = min(low + step, len(ordered)) - 1
        if (found := await ask(ordered[high])) is not None:
            break
        if high == len(ordered) - 1:
            return None
        low, step = high + 1, step * 2
    while low < high:
        middle = (low + high) // 2
        nearer = await ask(ordered[middle])
        if nearer is None:
            low = middle + 1
        else:
            high, found = middle, nearer
    return ordered[high], found


def _parts(documents: Sequence[BackupComponents], only: Sequence[ComponentRef]) -> list[BackupComponents]:
    """What documents say of some components alone; without those that cannot be recovered alone."""
    found = []
    for document in documents:
        with suppress(SlackwaterError):
            found.append(part(document, only))
    return found


def _logs(cell: Cell, chosen: Replica, refs: Sequence[ComponentRef]) -> list[BackupComponents]:
    """Everything younger than a replica that holds one of its components: its log may lead on; the oldest first."""
    mine = set(refs)
    younger = takewhile(lambda each: each.id != chosen.id, cell.catalog.replicas.list())
    shared = [each.document for each in younger if mine & set(each.components)]
    return shared[::-1]


def _remember(run: Run, facts: Mapping[ComponentRef, Facts]) -> None:
    """Store, before the switch, what later recoveries have to know: a timeline that was taken is never taken again."""
    run.document["recovered"] = {str(ref): dict(each) for ref, each in facts.items()}
    run.save(run)


async def _low_room(cell: Cell, target: str, planned: RecoveryPlan) -> list[Finding]:
    """What is set aside shares its blocks with what runs now, and takes more room with everything that is written."""
    room = await cell.host.room(planned.order.live)
    short = enough(room, resolve(cell, target).replica.min_free) if room else None
    if short is None:
        return []
    return [
        Finding(
            "low-room",
            Severity.WARNING,
            f"{short.sentence} What the recovery sets aside takes more and more of it, until it is deleted.",
            "See what else can go: slackwater replica list",
        )
    ]


def _doubts(chosen: Replica) -> list[Finding]:
    """What has happened to the replica since it was taken that its user should know."""
    found = []
    if chosen.verification is not None and not chosen.verification.passed:
        found.append(
            Finding(
                "verification-failed",
                Severity.WARNING,
                f"The last verification of {chosen.id} failed: {chosen.verification.error}",
                "Recover from another replica; `slackwater replica list` shows them.",
            )
        )
    if chosen.used is not None:
        found.append(
            Finding(
                "used",
                Severity.WARNING,
                f"{chosen.id} was mounted read-write at {chosen.used:%Y-%m-%d %H:%M:%S} UTC: what was written there is "
                "no part of it, and a recovery does not bring it back.",
            )
        )
    return found


def _lost(planned: RecoveryPlan) -> list[Finding]:
    """What the writers said at the backup that a recovery will not bring back."""
    return [finding for record in planned.order.source.components for finding in record.component.findings]
