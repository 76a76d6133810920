# SPDX-License-Identifier: Apache-2.0
"""One run of backup, recovery, deletion or reconcile: its phases, messages and outcome."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class SessionKind(StrEnum):
    """What a user asked for."""

    BACKUP = "backup"
    RECOVERY = "recovery"
    DELETION = "deletion"
    CLONE = "clone"
    """A clone was made, or deleted."""
    VERIFICATION = "verification"
    TRIAL = "trial"
    """A backup, a verification of it, and nothing kept."""
    LISTING = "listing"
    """A replica was asked, on a clone, for the names of what was lost behind it."""
    MOUNT = "mount"
    """A replica was mounted, or unmounted."""


class Outcome(StrEnum):
    """How a session ended, or where it stands."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    COMPLETED_WITH_FAILURES = "completed_with_failures"
    FAILED = "failed"
    ABORTED = "aborted"


class Phase(StrEnum):
    """The steps that a session names while it runs.

    A backup has identify, select, plan, prepare, freeze, snapshot, thaw and record; a recovery identify, check,
    prepare, stop, switch, start and record; a verification check, clone, start, verify and record; a trial those of a
    backup up to thaw, then those of a verification.
    """

    IDENTIFY = "identify"
    SELECT = "select"
    PLAN = "plan"
    PREPARE = "prepare"
    FREEZE = "freeze"
    SNAPSHOT = "snapshot"
    THAW = "thaw"
    RECORD = "record"
    CHECK = "check"
    STOP = "stop"
    SWITCH = "switch"
    START = "start"
    CLONE = "clone"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """One phase that was gone through."""

    name: Phase
    started: datetime
    duration_ms: float


@dataclass(frozen=True, slots=True)
class Message:
    """One line of a session's story."""

    at: datetime
    severity: str
    """note, warning or error."""
    text: str


@dataclass(frozen=True, slots=True)
class Session:
    """A session as the catalog keeps it."""

    id: str
    kind: SessionKind
    specification: str
    outcome: Outcome
    started: datetime
    ended: datetime | None = None
    process: str = ""
    """`pid:start time:boot id` of the process that runs it, so that a dead one is never taken for alive."""
    phases: tuple[PhaseRecord, ...] = ()
    messages: tuple[Message, ...] = ()
    document: dict[str, Any] = field(default_factory=dict)
    """What it planned and found, as its result shows it: plan, window, replica, error."""
