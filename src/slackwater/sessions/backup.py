# SPDX-License-Identifier: Apache-2.0
"""A backup: the eight phases, from identify to record. Begin with `backup`."""

from dataclasses import dataclass

from slackwater.config.specification import Specification
from slackwater.errors import SlackwaterError
from slackwater.hosts.contract import Planned
from slackwater.model.component import Component
from slackwater.model.facts import Finding
from slackwater.model.plan import Consistency, Plan, Window
from slackwater.model.replica import BackupComponents, Replica
from slackwater.model.session import Message, Outcome, Phase, PhaseRecord, SessionKind
from slackwater.policy.retention import Decision
from slackwater.policy.room import enough
from slackwater.sessions.cell import Cell
from slackwater.sessions.rotation import rotate
from slackwater.sessions.running import Run, running
from slackwater.sessions.target import refuse, resolve, select
from slackwater.system.story import Listener


@dataclass(frozen=True, slots=True)
class BackupPreview:
    """What a backup would do."""

    specification: str
    plan: Plan
    findings: tuple[Finding, ...]
    """Of the plan and of policy; a refusal among them means that it would not start."""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """How a backup ended."""

    session: str
    specification: str
    outcome: Outcome
    consistency: Consistency
    replica: str
    plan: Plan
    window: Window
    phases: tuple[PhaseRecord, ...]
    messages: tuple[Message, ...]
    rotated: tuple[Decision, ...]


async def preview(cell: Cell, target: str) -> BackupPreview:
    """Plan a backup. Takes no lock, writes nothing.

    Raises:
        NotFoundError: no such specification or component.
    """
    specification = resolve(cell, target)
    identified = await cell.host.identify()
    planned = await _plan(cell, specification, select(identified, specification.components))
    return BackupPreview(specification.name, planned.plan, _findings(planned, specification))


async def backup(cell: Cell, target: str, *, wait_s: float = 0.0, listener: Listener | None = None) -> BackupResult:
    """Take a replica.

    Raises:
        RefusedError: a check said no; nothing was touched.
        DeadlineError: the window's deadline passed; everything was thawed and nothing kept.
        SlackwaterError: it failed; nothing was kept.
    """
    specification = resolve(cell, target)
    async with running(cell, SessionKind.BACKUP, specification.name, wait_s=wait_s, listener=listener) as run:
        with run.story.phase(Phase.IDENTIFY):
            identified = await cell.host.identify()
        with run.story.phase(Phase.SELECT):
            components = select(identified, specification.components)
        with run.story.phase(Phase.PLAN):
            planned = await _plan(cell, specification, components)
            refuse(_findings(planned, specification))
        run.document |= {"hold": planned.plan.hold.value, "reason": planned.plan.reason}
        document = await cell.host.take(
            run.id,
            specification.name,
            planned.plan,
            run.story,
            accept_crash=specification.options.on_writer_failure == "crash",
        )
        window = {"frozen_ms": document.window.frozen_ms, "held_ms": document.window.held_ms}
        run.document |= {"replica": run.id, "consistency": document.consistency.value, "window": window}
        run.keep(f"The replica {run.id} had been taken and is kept.")
        with run.story.phase(Phase.RECORD):
            rotated = await _record(cell, specification, document, run)
    return BackupResult(
        session=run.id,
        specification=specification.name,
        outcome=run.outcome,
        consistency=document.consistency,
        replica=document.session,
        plan=planned.plan,
        window=document.window,
        phases=run.story.phases,
        messages=run.story.messages,
        rotated=rotated,
    )


async def _plan(cell: Cell, specification: Specification, components: list[Component]) -> Planned:
    return await cell.host.plan(
        components,
        configuration_check=specification.options.configuration_check,
        limits=specification.limits,
    )


def _findings(planned: Planned, specification: Specification) -> tuple[Finding, ...]:
    """What the planner found, and whether policy finds enough room."""
    rooms = [enough(room, specification.replica.min_free) for room in planned.rooms.values()]
    short = {each.sentence: each for each in rooms if each is not None}
    return (*planned.plan.findings, *short.values())


async def _record(
    cell: Cell, specification: Specification, document: BackupComponents, run: Run
) -> tuple[Decision, ...]:
    """Take the replica into the catalog, then rotate: the old goes only when the new is there."""
    cell.catalog.replicas.add(Replica(document))
    for finding in document_warnings(document):
        run.story.say("warning", finding)
    try:
        return await rotate(cell, specification.name, specification.replica.keep, made=document.session)
    except SlackwaterError as e:
        run.outcome = Outcome.COMPLETED_WITH_FAILURES
        run.story.say("error", f"The replica is good; rotation failed: {e.sentence}")
        return ()


def document_warnings(document: BackupComponents) -> list[str]:
    """What a recovery from this replica will not bring back, by the writers' word."""
    return [finding.sentence for record in document.components for finding in record.component.findings]
