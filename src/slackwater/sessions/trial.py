# SPDX-License-Identifier: Apache-2.0
"""Trying it out: one replica, a clone of it recovered and checked, and nothing kept. Harmless on production."""

from dataclasses import dataclass

from slackwater.model.hold import Consistency
from slackwater.model.plan import Plan, Window
from slackwater.model.replica import Verification
from slackwater.model.session import Message, Phase, PhaseRecord, SessionKind
from slackwater.sessions.backup import findings_of, plan_of
from slackwater.sessions.cell import Cell
from slackwater.sessions.running import running
from slackwater.sessions.target import refuse, resolve, select
from slackwater.sessions.verify import prove, questions, take_away
from slackwater.system.story import Listener


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The receipt."""

    session: str
    specification: str
    plan: Plan
    consistency: Consistency
    size_bytes: int
    """What the application's files take."""
    window: Window
    gap_ms: float | None
    """The longest that a client of ours had to wait for an answer; None where nobody could ask."""
    why_no_gap: str
    """Why that was not measured; empty when it was."""
    verification: Verification
    phases: tuple[PhaseRecord, ...]
    messages: tuple[Message, ...]


async def trial(cell: Cell, target: str, *, wait_s: float = 0.0, listener: Listener | None = None) -> TrialResult:
    """Take a replica, recover it on a clone, have it checked, and take everything away again.

    Raises:
        UsageError: the specification is wrong, or has a question that nobody can answer; nothing was touched.
        RefusedError: a check said no; nothing was touched.
        VerificationError: the replica does not recover, or the engine finds damage.
        SlackwaterError: it failed; nothing was kept.
    """
    specification = resolve(cell, target)
    asked = questions(cell, specification)
    async with running(cell, SessionKind.TRIAL, specification.name, wait_s=wait_s, listener=listener) as run:
        with run.story.phase(Phase.IDENTIFY):
            identified = await cell.host.identify(specification.components)
        with run.story.phase(Phase.SELECT):
            components = select(identified, specification.components)
        with run.story.phase(Phase.PLAN):
            planned = await plan_of(cell, specification, components)
            refuse(findings_of(planned, specification))
        rehearsed = await cell.host.rehearse(run.id, specification.name, planned.plan, run.story)
        proof = await prove(cell, rehearsed.document, run, asked)
        await take_away(cell, run)
        if proof.error is not None:
            raise proof.error
    return TrialResult(
        session=run.id,
        specification=specification.name,
        plan=planned.plan,
        consistency=rehearsed.document.consistency,
        size_bytes=rehearsed.bytes,
        window=rehearsed.document.window,
        gap_ms=rehearsed.gap_ms,
        why_no_gap=rehearsed.why_no_gap,
        verification=proof.verification,
        phases=run.story.phases,
        messages=run.story.messages,
    )
