# SPDX-License-Identifier: Apache-2.0
"""How single values are said to people: times, ages, holds, and lines on standard error."""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

from slackwater.model.facts import Finding, Severity
from slackwater.model.plan import Consistency, Hold
from slackwater.model.quantities import format_duration
from slackwater.model.replica import Replica, ReplicaKind, ReplicaState
from slackwater.model.session import Outcome, PhaseRecord

HOLDS = {
    Hold.ATOMIC: "none (atomic)",
    Hold.COLD: "none (stopped)",
    Hold.PROCESS_FREEZE: "process freeze",
}
CONSISTENCIES = {
    Consistency.APPLICATION: "application-consistent",
    Consistency.CRASH: "crash-consistent only",
}
OUTCOMES = {
    Outcome.WAITING: "waiting",
    Outcome.RUNNING: "running",
    Outcome.COMPLETED: "completed",
    Outcome.COMPLETED_WITH_FAILURES: "completed with failures",
    Outcome.FAILED: "failed",
    Outcome.ABORTED: "aborted",
}
SEVERITIES = {Severity.NOTE: "note", Severity.WARNING: "warning", Severity.REFUSAL: "refused"}


def local(moment: datetime | None, *, seconds: bool = False) -> str:
    """A moment in the local zone, which is named; a dash for none."""
    if moment is None:
        return "-"
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z" if seconds else "%Y-%m-%d %H:%M %Z")


def rfc3339(moment: datetime) -> str:
    """A moment for programs: UTC, milliseconds, ending in Z."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ago(age_s: float | None) -> str:
    """An age in one unit: `just now`, `3 min ago`, `5 days ago`; a dash for none."""
    if age_s is None:
        return "-"
    if age_s < 0:
        return "in the future"
    if age_s < 10:
        return "just now"
    for most, size, unit in ((100, 1, "s"), (100 * 60, 60, "min"), (48 * 3600, 3600, "h")):
        if age_s < most:
            return f"{int(age_s // size)} {unit} ago"
    return f"{int(age_s // 86400)} days ago"


def back(span_s: float) -> str:
    """How far back something goes."""
    return format_duration(max(0.0, span_s))


def took(duration_ms: float) -> str:
    """How long something took."""
    return format_duration(duration_ms / 1000) if duration_ms >= 1 else "<1ms"


def phases(records: Iterable[PhaseRecord]) -> str:
    """Phases with their times, in order."""
    return ", ".join(f"{each.name} {took(each.duration_ms)}" for each in records)


def state(replica: Replica) -> str:
    """What can be done with a replica, and what it is."""
    said = [] if replica.state is ReplicaState.GOOD else [replica.state.value]
    if replica.document.kind is ReplicaKind.UNDO:
        said.append("undo")
    if replica.pinned:
        said.append("pinned")
    return ", ".join(said or ["good"])


def finding(each: Finding) -> str:
    """A finding in one line."""
    return f"{SEVERITIES[each.severity]}: {each.sentence}" + (f" -> {each.hint}" if each.hint else "")


def coloured() -> bool:
    """Whether colours are wanted on standard error (https://no-color.org)."""
    with suppress(AttributeError, ValueError):
        return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return False


def tell(line: str) -> None:
    """Write a line on standard error; a reader that has gone away is no reason to fail."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
