# SPDX-License-Identifier: Apache-2.0
"""A backup: the eight phases, from identify to record. Begin with `backup`."""

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from slackwater.config.specification import Specification
from slackwater.errors import AbortedError, RefusedError, RightsError, SlackwaterError, VerificationError
from slackwater.hosts.contract import Planned
from slackwater.model.component import Component
from slackwater.model.facts import Finding, Severity
from slackwater.model.hold import Consistency
from slackwater.model.plan import Plan, Window
from slackwater.model.replica import BackupComponents, Replica, Verification
from slackwater.model.session import Message, Outcome, Phase, PhaseRecord, SessionKind
from slackwater.policy.retention import Decision
from slackwater.policy.room import enough
from slackwater.sessions.cell import Cell
from slackwater.sessions.logs import drop_unwanted, keep_logs
from slackwater.sessions.retry import retried
from slackwater.sessions.rotation import foresee, rotate
from slackwater.sessions.running import Run, running
from slackwater.sessions.target import refuse, resolve, select
from slackwater.sessions.tidy import tidy
from slackwater.sessions.verify import due, questions, verify
from slackwater.system.story import Listener

#: Between a backup and its verification another session may come in between; it is waited for.
_VERIFY_WAIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class BackupPreview:
    """What a backup would do."""

    specification: str
    plan: Plan
    findings: tuple[Finding, ...]
    """Of the plan and of policy; a refusal among them means that it would not start."""
    retention: tuple[Decision, ...] = ()
    """What rotation would decide after it; empty where the catalog may not be read."""


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
    verification: Verification | None = None
    """How the verification ended that the specification asks for; None for none."""


async def preview(cell: Cell, target: str) -> BackupPreview:
    """Plan a backup. Takes no lock, writes nothing.

    Raises:
        NotFoundError: no such specification or component.
        UsageError: the specification is wrong, or has a question that nobody can answer.
    """
    cell = cell.speaking(target)
    specification = resolve(cell, target)
    questions(cell, specification)  # a verification would find out too late
    identified = await cell.host.identify(specification.components)
    planned = await plan_of(cell, specification, select(identified, specification.components))
    retention: tuple[Decision, ...] = ()
    with suppress(RightsError):
        retention = foresee(cell, specification, planned.plan, verified=due(cell, specification))
    return BackupPreview(specification.name, planned.plan, findings_of(planned, specification), retention)


async def backup(cell: Cell, target: str, *, wait_s: float = 0.0, listener: Listener | None = None) -> BackupResult:
    """Take a replica.

    Raises:
        UsageError: the specification is wrong, or has a question that nobody can answer; nothing was touched.
        RefusedError: a check said no; nothing was touched.
        DeadlineError: the window's deadline passed; everything was thawed and nothing kept.
        SlackwaterError: it failed; nothing was kept.
    """
    cell = cell.speaking(target)
    specification = resolve(cell, target)
    questions(cell, specification)
    async with running(cell, SessionKind.BACKUP, specification.name, wait_s=wait_s, listener=listener) as run:
        options = specification.options
        planned, document = await retried(
            cell, run, partial(_take, cell, specification, run), retries=options.retries, after_s=options.retry_after
        )
        window = {"frozen_ms": document.window.frozen_ms, "held_ms": document.window.held_ms}
        run.document |= {"replica": run.id, "consistency": document.consistency.value, "window": window}
        run.keep(f"The replica {run.id} had been taken and is kept.")
        run.count_errors()
        with run.story.phase(Phase.RECORD):
            verifies = due(cell, specification)
            _record(cell, document, run)
            await cell.host.tell(planned.plan.components, run.story, good=True)
            await keep_logs(cell, planned.plan, document, run.story)
            rotated = () if verifies else await _rotate(cell, specification, document.session, run)
    result = BackupResult(
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
    return await _verified(cell, specification, result, listener) if verifies else result


async def _take(cell: Cell, specification: Specification, run: Run) -> tuple[Planned, BackupComponents]:
    """One whole attempt: everything from identify to the document beside the copies."""
    with run.story.phase(Phase.IDENTIFY):
        identified = await cell.host.identify(specification.components)
    with run.story.phase(Phase.SELECT):
        components = select(identified, specification.components)
    with run.story.phase(Phase.PLAN):
        planned = await plan_of(cell, specification, components)
        try:
            refuse(findings_of(planned, specification))
        except RefusedError:  # perhaps since nothing bounds the log any more that is kept up to now
            for told in await drop_unwanted(cell, components):
                run.story.say("warning", told)
            raise
    run.document |= {"hold": planned.plan.hold.value, "reason": planned.plan.reason}
    accept_crash = specification.options.on_writer_failure == "crash"
    try:
        document = await cell.host.take(
            run.id, specification.name, planned.plan, run.story, accept_crash=accept_crash
        )  # fmt: skip
    except BaseException:
        await cell.host.tell(planned.plan.components, run.story, good=False)
        raise
    return planned, document


async def _verified(
    cell: Cell, specification: Specification, result: BackupResult, listener: Listener | None
) -> BackupResult:
    """Verify what was just taken, in a session of its own; rotation waits until it is proven."""
    rotated: list[Decision] = []

    async def passed(run: Run) -> None:
        rotated.extend(await _rotate(cell, specification, result.replica, run))

    chosen = cell.catalog.replicas.get(result.replica)
    try:
        await verify(cell, chosen, wait_s=_VERIFY_WAIT_S, listener=listener, passed=passed)
    except VerificationError:
        pass  # the replica itself says how it ended
    except AbortedError:
        raise
    except SlackwaterError as e:
        said = Message(cell.clock.now(), "error", f"The replica is good; verifying it failed: {e.sentence}")
        result = replace(result, outcome=Outcome.COMPLETED_WITH_FAILURES, messages=(*result.messages, said))
    verification = cell.catalog.replicas.get(result.replica).verification
    return replace(result, verification=verification, rotated=tuple(rotated))


async def plan_of(cell: Cell, specification: Specification, components: list[Component]) -> Planned:
    """Plan as the specification wishes."""
    return await cell.host.plan(components, specification.plan_options)


def findings_of(planned: Planned, specification: Specification) -> tuple[Finding, ...]:
    """What the planner found, and whether policy finds enough room."""
    rooms = [enough(room, specification.replica.min_free) for room in planned.rooms.values()]
    short = {each.sentence: each for each in rooms if each is not None}
    return (*planned.plan.findings, *short.values())


def _record(cell: Cell, document: BackupComponents, run: Run) -> None:
    """Take the replica into the catalog."""
    cell.catalog.replicas.add(Replica(document))
    for finding in document_warnings(document):
        run.story.say("warning", finding)


async def _rotate(cell: Cell, specification: Specification, made: str, run: Run) -> tuple[Decision, ...]:
    """The old goes only when the new is there."""
    try:
        rotated = await rotate(cell, specification, made=made, run=run)
        if forgotten := tidy(cell):
            run.story.say("note", f"{len(forgotten)} old sessions were forgotten ([catalog] keep_sessions).")
    except SlackwaterError as e:
        run.outcome = Outcome.COMPLETED_WITH_FAILURES
        run.story.say("error", f"The replica is good; rotation failed: {e.sentence}")
        return ()
    return rotated


def document_warnings(document: BackupComponents) -> list[str]:
    """What a recovery from this replica will not bring back, by the writers' word."""
    findings = [finding for record in document.components for finding in record.component.findings]
    return [finding.sentence for finding in findings if finding.severity is not Severity.NOTE]
