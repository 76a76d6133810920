# SPDX-License-Identifier: Apache-2.0
"""Who follows an application's log and cannot follow it back: standby servers, and what slots keep for others."""

from slackwater.model.component import Component
from slackwater.model.facts import Finding, Severity
from slackwater.model.replica import ReplicaKind
from slackwater.model.target import TargetKind
from slackwater.recovery.order import RecoveryOrder


def followers(component: Component, order: RecoveryOrder) -> list[Finding]:
    """What a recovery means to them, by the facts of the component as it is now."""
    return [*_standbys(component, order), *_slots(component, order)]


def _standbys(component: Component, order: RecoveryOrder) -> list[Finding]:
    names = str(component.facts.get("standbys") or "")
    if not names:
        return []
    latest = order.target.kind is TargetKind.LATEST
    why = "those that are ahead of what is recovered cannot follow" if latest else "they are ahead of it"
    told = f"Standby servers follow {component.ref} ({names}): {why}, and it goes on along a history of its own."
    if component.facts.get("synchronous"):
        told += " Commits wait for one of them: they hang until one follows again."
    return [
        Finding(
            "standbys",
            Severity.WARNING,
            told,
            "Afterwards make each anew: stop it, pg_rewind it or take a new pg_basebackup, start it."
            + (" Until then: synchronous_standby_names = ''." if component.facts.get("synchronous") else ""),
        )
    ]


def _slots(component: Component, order: RecoveryOrder) -> list[Finding]:
    names = str(component.facts.get("slots") or "")
    if not names:
        return []
    if order.source.kind is ReplicaKind.UNDO:
        told = f"{component.ref} gets back the replication slots that it had then; those of now go: {names}."
        return [Finding("slots", Severity.WARNING, told, "Whoever uses them has lost its place in the log.")]
    told = f"The replication slots of {component.ref} are gone afterwards: {names}."
    hint = "Make them anew. A subscription needs a new slot and its tables copied again. --undo brings them back."
    return [Finding("slots", Severity.WARNING, told, hint)]
