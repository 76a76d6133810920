# SPDX-License-Identifier: Apache-2.0
"""What is here: every component, its volumes, the hold a backup would use, and whether it could be recovered."""

from dataclasses import dataclass

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Finding, Severity
from slackwater.model.hold import Hold
from slackwater.model.plan import Placement, PlanOptions
from slackwater.model.storage import Volume
from slackwater.sessions.cell import Cell


@dataclass(frozen=True, slots=True)
class Discovered:
    """One component and what can be done for it today."""

    component: Component
    volumes: tuple[Volume, ...]
    hold: Hold | None
    """None when it cannot be backed up."""
    reason: str
    """Why this hold is enough, or why there is none."""
    recoverable: bool
    findings: tuple[Finding, ...]
    placements: tuple[Placement, ...] = ()
    """What lies on which volume."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """Everything on this host."""

    components: tuple[Discovered, ...]
    failures: tuple[Finding, ...]


async def discover(cell: Cell) -> Discovery:
    """Ask every writer, also for what specifications name, and plan a backup of each component alone. Reads only."""
    good, _ = cell.specifications
    named = {ref: each.name for each in good for ref in each.components}
    identified = await cell.host.identify(tuple(named))
    there = {each.ref for each in identified.components}
    gone = [_gone(ref, name) for ref, name in named.items() if ref not in there and not _disabled(cell, ref)]
    found = tuple([await look(cell, each) for each in identified.components])
    return Discovery(found, (*identified.failures, *gone))


def _gone(ref: ComponentRef, specification: str) -> Finding:
    return Finding(
        "no-component",
        Severity.WARNING,
        f"There is no component {ref} on this host, and the specification {specification} names it.",
        f"Mount what holds it, or put the specification right: slackwater spec check {specification}",
    )


def _disabled(cell: Cell, ref: ComponentRef) -> bool:
    return ref.writer in cell.settings.writers.disable


async def look(cell: Cell, component: Component) -> Discovered:
    """Plan a backup and a recovery of one component, as the strictest specification would."""
    try:
        return await _look(cell, component)
    except SlackwaterError as e:  # what cannot be looked at must not hide the others
        against = Finding(e.reason, Severity.REFUSAL, e.sentence, e.hint)
        return Discovered(component, (), None, e.sentence, recoverable=False, findings=(*component.findings, against))


async def _look(cell: Cell, component: Component) -> Discovered:
    planned = await cell.host.plan([component], PlanOptions())
    plan = planned.plan
    refusals = list(plan.refusals)
    against = [] if refusals else await cell.host.recoverable(plan)
    findings = tuple(dict.fromkeys((*plan.findings, *against)))
    against_all = [each for each in findings if each.severity is Severity.REFUSAL]
    return Discovered(
        component=component,
        volumes=plan.volumes,
        hold=None if refusals else plan.hold,
        reason=refusals[0].sentence if refusals else plan.reason,
        recoverable=not against_all,
        findings=findings,
        placements=plan.placements,
    )
