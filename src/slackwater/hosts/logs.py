# SPDX-License-Identifier: Apache-2.0
"""Logs that are kept for a later recovery: whether that can be, how far they go back, and when they are let go of."""

from collections.abc import Collection, Mapping, Sequence

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component
from slackwater.model.facts import Finding, Severity, refusal
from slackwater.model.plan import LogKeeping
from slackwater.model.replica import BackupComponents
from slackwater.writers.contract import KeepsLog, Writer

Writers = Mapping[str, Writer]


def check(components: Sequence[Component], keeping: LogKeeping, writers: Writers) -> list[Finding]:
    """What stands against keeping these components' log. Reads only."""
    if len(components) > 1:
        return [_needless("a set of several components has one moment, and no log has all of them")]
    found: list[Finding] = []
    for component in components:
        writer = writers[component.ref.writer]
        if not isinstance(writer, KeepsLog):
            found.append(_needless(f"{component.ref} has no log that a replica could be rolled forward by"))
        elif not component.refusals:
            try:
                found += writer.check_log(component, keeping)
            except SlackwaterError as e:
                found.append(refusal(e.reason, e.sentence, e.hint))
    return found


def _needless(why: str) -> Finding:
    return Finding("no-log", Severity.REFUSAL, f"No log is kept: {why}.", 'Set logs = "none" in [recovery].')


def advance(document: BackupComponents, keeping: LogKeeping, writers: Writers) -> list[str]:
    """Let the logs before a replica go; returns where that failed, a sentence each."""
    failed = []
    for record in document.components:
        writer = writers[record.component.ref.writer]
        if isinstance(writer, KeepsLog):
            try:
                writer.advance_log(record.component, keeping, record.expected)
            except Exception as e:  # noqa: BLE001  # a stranger's code may raise anything
                failed.append(f"The log before this replica is kept, too: {e}")
    return failed


def drop(components: Sequence[Component], owner: str, wanted: Collection[str], writers: Writers) -> list[str]:
    """Let go of what is kept for none of the wanted specifications, or without a bound; a sentence for each.

    Also for failures.
    """
    told: list[str] = []
    for component in components:
        writer = writers.get(component.ref.writer)
        if isinstance(writer, KeepsLog) and component.running and not component.refusals:
            try:
                dropped = writer.drop_logs(component, owner, wanted)
                told += [
                    f"The log of {component.ref} is not kept by {each} any more: {why}."
                    for each, why in dropped.items()
                ]
            except Exception as e:  # noqa: BLE001  # a stranger's code may raise anything
                told.append(f"{component.ref} may still keep a log that nobody asks for: {e}")
    return told
