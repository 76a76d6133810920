# SPDX-License-Identifier: Apache-2.0
"""How single values are said to people: times, ages, holds, and lines on standard error."""

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from slackwater.model.clone import CloneState
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.hold import Consistency, Hold
from slackwater.model.quantities import format_bytes, format_duration
from slackwater.model.replica import Replica, ReplicaKind, ReplicaState, ReplicaType, Verification
from slackwater.model.session import Outcome, PhaseRecord
from slackwater.model.target import Reach, RecoveryTarget

if TYPE_CHECKING:
    from slackwater.sessions.clone import CloneShown
    from slackwater.sessions.downtime import Downtime

HOLDS = {
    Hold.ATOMIC: "none (atomic)",
    Hold.COLD: "none (stopped)",
    Hold.STILL: "none (nothing changed)",
    Hold.LOG_BRIDGE: "none (log bridge)",
    Hold.APPLICATION_LOCK: "application lock",
    Hold.FILESYSTEM_FREEZE: "filesystem freeze",
    Hold.PROCESS_FREEZE: "process freeze",
}
CONSISTENCIES = {
    Consistency.APPLICATION: "application-consistent",
    Consistency.CRASH: "crash-consistent only",
}
TYPES = {
    ReplicaType.SNAPSHOT: "snapshot, on the disks of its volumes",
    ReplicaType.FULL: "full copies, on another filesystem",
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


def forward(reach: Reach | None, target: RecoveryTarget) -> list[str]:
    """How far forward from its replica a recovery goes: no line, or one."""
    if reach is None or reach.against:
        return []
    last = f"the last transaction is of {local(reach.at, seconds=True)}" if reach.at else "no transaction is in it"
    return [f"From there it goes forward to {target}, through {format_bytes(reach.bytes)} of log; {last}."]


def since(told: Mapping[ComponentRef, Facts]) -> list[str]:
    """What applications have written since a replica, a line each."""
    lines = []
    for component, facts in told.items():
        numbers = facts.get("transactions")
        count = f", at most {numbers} transaction{'s' if numbers != 1 else ''}" if isinstance(numbers, int) else ""
        lines.append(f"{format_bytes(int(facts['bytes'] or 0))} of log of {component}{count}")
    return lines


def down(foreseen: "Downtime | None", reach: Reach | None = None) -> str:
    """How long a recovery will take, and who measured it; how long the replay of a log takes, nobody has."""
    log = reach.bytes if reach is not None and not reach.against else 0
    replay = f", and the replay of {format_bytes(log)} of log" if log else ""
    if foreseen is None:
        return f"not measured yet; a verification or a recovery does{replay}"
    time = took(foreseen.ms)
    if foreseen.whole:
        return f"about {time}, the longest of the last recoveries ({foreseen.of}){replay}"
    return f"{time} for the engine (verification {foreseen.of}), and the stop and the switch{replay}"


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
        said.append("undo" if replica.document.replica else "taken back")
    if replica.pinned:
        said.append("pinned")
    if replica.presented:
        said.append("mounted")
    if replica.used:
        said.append("used")
    return ", ".join(said or ["good"])


def verified(replica: Replica) -> str:
    """When a replica was last proven, or how its last verification failed."""
    return verdict(replica.verification) if replica.verification else "never"


def verdict(verification: Verification) -> str:
    """How a verification ended."""
    when = local(verification.at)
    if not verification.passed:
        return f"failed at {when}: {verification.error}"
    return f"{when}, recovered in {took(verification.recovery_ms)}"


def clone_state(shown: "CloneShown") -> str:
    """How a clone stands."""
    if shown.mounted:
        return "mounted"
    if shown.clone.state is CloneState.DELETING:
        return "deleting"
    return "running" if shown.running else "stopped"


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
