# SPDX-License-Identifier: Apache-2.0
"""An instant recovery, and its undo: the application goes back to a replica, and what it had is set aside."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import anyio

from slackwater.errors import NotFoundError
from slackwater.hosts.contract import RecoveryPlan
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Facts, Finding
from slackwater.model.replica import Replica, ReplicaKind, ReplicaState
from slackwater.model.session import Message, Outcome, Phase, PhaseRecord, SessionKind
from slackwater.sessions.cell import Cell
from slackwater.sessions.running import Run, running
from slackwater.sessions.target import refuse, resolve
from slackwater.system.story import Listener


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


def choose(cell: Cell, target: str, replica: str = "", *, undo: bool = False) -> Replica:
    """The replica that a recovery of `target` would use.

    Args:
        cell: where to look.
        target: a specification, or WRITER:COMPONENT.
        replica: an id, a unique prefix or `latest`; empty for the newest good backup.
        undo: the newest undo replica instead, which puts back what the last recovery set aside.

    Raises:
        NotFoundError: there is none.
    """
    if ":" not in target:
        resolve(cell, target)
    kind = ReplicaKind.UNDO if undo else ReplicaKind.BACKUP
    if replica and replica != "latest":
        chosen = cell.catalog.replicas.find(replica)
        if chosen.document.specification != target:
            raise NotFoundError(
                f"The replica {chosen.id} belongs to {chosen.document.specification}, not to {target}.",
                data="Nothing was changed.",
                hint=f"slackwater recover {chosen.document.specification} --replica {chosen.id}",
            )
        return chosen
    found = cell.catalog.replicas.list(specification=target, kind=kind)
    good = [each for each in found if each.state is ReplicaState.GOOD]
    if not good:
        what = "undo replica" if undo else "good replica"
        hint = f"slackwater replica list {target}" if found else f"slackwater backup {target}"
        raise NotFoundError(
            f"There is no {what} of {target}.", data="Nothing was changed.", hint=hint, code="no-replica"
        )
    return max(good, key=lambda each: each.document.created)


async def preview(cell: Cell, target: str, replica: str = "", *, undo: bool = False) -> RecoveryPreview:
    """Plan a recovery. Takes no lock, writes nothing."""
    chosen = choose(cell, target, replica, undo=undo)
    planned = await _plan(cell, target, chosen)
    return RecoveryPreview(
        specification=target,
        replica=chosen.id,
        created=chosen.document.created,
        back_s=(cell.clock.now() - chosen.document.created).total_seconds(),
        sets_aside=tuple(volume.path for volume in planned.order.live),
        steps=planned.steps,
        findings=(*planned.findings, *_lost(chosen)),
    )


async def recover(
    cell: Cell,
    target: str,
    replica: str = "",
    *,
    undo: bool = False,
    wait_s: float = 0.0,
    listener: Listener | None = None,
) -> RecoveryResult:
    """Put the application back.

    Raises:
        NotFoundError: no such replica, or its volume is gone.
        RefusedError: a check said no; nothing was touched.
        PartialError: the application is recovered, and something about it could not be put in order.
        SlackwaterError: it failed; the application is where it was before.
    """
    choose(cell, target, replica, undo=undo)
    async with running(cell, SessionKind.RECOVERY, target, wait_s=wait_s, listener=listener) as run:
        with run.story.phase(Phase.CHECK):
            chosen = choose(cell, target, replica, undo=undo)
            planned = await _plan(cell, target, chosen)
            refuse(planned.findings)
        run.document["replica"] = chosen.id
        recovered = await cell.host.recover(run.id, planned.order, run.story, learnt=partial(_remember, run))
        # Proven, and in use: whatever comes now is too late to take back what it acknowledges.
        run.keep(f"The application is recovered; what it had is kept as the undo replica {run.id}.")
        with anyio.CancelScope(shield=True), run.story.phase(Phase.RECORD):
            aside = await cell.host.complete(recovered)
            cell.catalog.replicas.add(Replica(aside))
        _remember(run, recovered.reached)
        run.document["downtime_ms"] = recovered.downtime_ms
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
    )


async def _plan(cell: Cell, target: str, chosen: Replica) -> RecoveryPlan:
    check = "strict" if ":" in target else resolve(cell, target).options.configuration_check
    known = {ref: cell.catalog.sessions.recoveries(ref) for ref in chosen.components}
    return await cell.host.plan_recovery(chosen.document, known, configuration_check=check)


def _remember(run: Run, facts: Mapping[ComponentRef, Facts]) -> None:
    """Store, before the switch, what later recoveries have to know: a timeline that was taken is never taken again."""
    run.document["recovered"] = {str(ref): dict(each) for ref, each in facts.items()}
    run.save(run)


def _lost(chosen: Replica) -> list[Finding]:
    """What the writers said at the backup that a recovery will not bring back."""
    return [finding for record in chosen.document.components for finding in record.component.findings]
