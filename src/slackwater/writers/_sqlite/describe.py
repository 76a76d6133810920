# SPDX-License-Identifier: Apache-2.0
"""A database that was found, as a component."""

import os
from dataclasses import replace

from slackwater.model.component import Component, ComponentRef, FileRole, FileSet, Handling
from slackwater.model.facts import Finding, Severity
from slackwater.model.hold import Hold
from slackwater.system import services
from slackwater.system.processes import descendants
from slackwater.writers._handling import facts_of
from slackwater.writers._sqlite.find import Database, names

_UNKNOWN = Finding(
    "journal-unknown",
    Severity.NOTE,
    "A program that opens it with journal_mode=OFF or MEMORY, or synchronous=OFF, gives up that it survives a power"
    " cut, and only that program knows.",
    'If one does: hold = "application-lock" in the specification.',
)


def component_of(database: Database, name: str, handling: Handling) -> Component:
    """Describe it.

    It is never called stopped: whoever opens it next writes to it, and nobody has to run for that.
    """
    holders = frozenset(database.pids)
    facts = facts_of(handling, _unit_of(holders))
    caption = f"SQLite ({'write-ahead log' if database.wal else 'rollback journal'}), " + (
        f"open in {names(holders)}" if holders else "open in no process now"
    )
    ref = ComponentRef("sqlite", name)
    if not database.reachable:
        ref = ComponentRef("sqlite", f"container-{min(holders)}:{database.path}")
        return Component(
            ref, caption, running=True, files=(), survives_power_cut=True, findings=(_contained(database),)
        )
    if holders and not (facts["unit"] or facts["stop_command"]):
        facts["held_by"] = names(holders)
    directory, file = os.path.split(database.path)
    return Component(
        ref,
        caption,
        running=True,
        files=(FileSet(FileRole.DATA, directory, never=(f"{file}-shm",)),),
        survives_power_cut=True,
        offers=() if database.exclusive else (Hold.APPLICATION_LOCK,),
        can_stop=bool(facts["unit"] or facts["stop_command"]),
        facts=facts | {"path": database.path, "wal": database.wal},
        findings=_findings(database),
    )


def _findings(database: Database) -> tuple[Finding, ...]:
    unknown = () if database.wal else (_UNKNOWN,)
    if not database.exclusive:
        return unknown
    locked = Finding(
        "locked-exclusively",
        Severity.NOTE,
        f"{names(frozenset([database.exclusive]))} keeps everybody else out of {database.path}"
        " (PRAGMA locking_mode=EXCLUSIVE): SQLite's own lock is not to be had.",
    )
    return (locked, *(replace(each, hint="") for each in unknown))


def _contained(database: Database) -> Finding:
    return Finding(
        "in-container",
        Severity.REFUSAL,
        f"{database.path} of {names(frozenset(database.pids))} is another file here: they run in a mount namespace of"
        " their own (a container, or a sandboxed unit), or it was replaced under them.",
        "Back it up from inside, or name it by the path that it has here.",
    )


def _unit_of(holders: frozenset[int]) -> str:
    """The service that all holders belong to: the main process of one, and what stems from it."""
    for pid in holders:
        if (unit := services.unit_of(pid)) and holders <= descendants(pid):
            return unit
    return ""
