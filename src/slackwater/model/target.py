# SPDX-License-Identifier: Apache-2.0
"""Where a recovery goes: to the replica itself, or forward from it through the application's log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from enum import StrEnum
from typing import Self

from slackwater.model.facts import Facts


class TargetKind(StrEnum):
    """What the log is followed to."""

    REPLICA = "replica"
    """Nowhere: the state of the replica."""
    LATEST = "latest"
    """The last commit that the log holds."""
    TIME = "time"
    BEFORE = "before"
    """Right before a transaction, so that it and all that committed after it never happened."""
    LSN = "lsn"
    """A position in the log, the record there included."""
    NAME = "name"
    """A position that somebody named."""


@dataclass(frozen=True, slots=True)
class RecoveryTarget:
    """Where a recovery goes."""

    kind: TargetKind = TargetKind.REPLICA
    value: str = ""
    """A time with its zone (ISO 8601), a transaction's number, a position, a name; empty for the first two kinds."""

    def __str__(self) -> str:
        prefixed = self.kind in (TargetKind.BEFORE, TargetKind.LSN, TargetKind.NAME)
        return f"{self.kind}:{self.value}" if prefixed else self.value or self.kind.value

    @property
    def time(self) -> datetime:
        """The moment, for a target of the kind `TIME`."""
        return datetime.fromisoformat(self.value)

    @classmethod
    def parse(cls, text: str, zone: tzinfo | None = None) -> Self:
        """Read `replica`, `latest`, `before:XID`, `lsn:POSITION`, `name:NAME`, or a time.

        Args:
            text: what somebody wrote.
            zone: of a time that has none; None for the machine's.

        Raises:
            ValueError: it is none of them.
        """
        if text in (TargetKind.REPLICA, TargetKind.LATEST):
            return cls(TargetKind(text))
        word, colon, value = text.partition(":")
        if colon and value and word in (TargetKind.BEFORE, TargetKind.LSN, TargetKind.NAME):
            return cls(TargetKind(word), value)
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"{text!r} is neither replica nor latest, nor before:XID, lsn:POSITION, name:NAME or a time as in"
                " 2026-11-22T14:31:07Z"
            ) from None
        if time.tzinfo is None:
            time = time.replace(tzinfo=zone) if zone else time.astimezone()
        return cls(TargetKind.TIME, time.isoformat())


#: The state of the replica itself.
TO_REPLICA = RecoveryTarget()


@dataclass(frozen=True, slots=True)
class LogSource:
    """A place where a part of an application's log may lie."""

    caption: str
    """What it is, for people: `the live volumes`, `the replica 2026-11-22-1`."""
    trees: Mapping[str, str]
    """By path of each of the component's file sets as the replica recorded them: where it can be reached now; empty for
    an archive."""
    live: bool = False
    """Whether the application may still write to it."""
    archive: str | None = None
    """How an archive is asked: a command, a directory, or empty for the application's own way; None for none."""
    folder: str = ""
    """Of an archive: a folder of ours for what it gives, removed when the source is not used any more."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a replica can be rolled forward towards a target, found before anything is stopped."""

    to: str
    """The position that a recovery has to reach, as the engine writes it."""
    at: datetime | None = None
    """When the last transaction committed that it would contain; None where the log holds none."""
    bytes: int = 0
    """How much log has to be read."""
    against: str = ""
    """Why the target cannot be reached, and what the last moment is that can; empty when it can."""
    facts: Facts = field(default_factory=dict)
    """For reports: timeline, segments, sources."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A transaction by which rows were lost: a mistake, or not."""

    at: datetime
    """When it committed, by the application's clock."""
    target: RecoveryTarget
    """Right before it."""
    what: tuple[str, ...]
    """In words: `dropped public.payments in shop`."""

    @property
    def of_rows(self) -> bool:
        """Whether only rows are gone, and no table or database."""
        return all(each.startswith(("deleted ", "changed ")) for each in self.what)


@dataclass(frozen=True, slots=True)
class Losses:
    """Those that the log behind a replica tells of."""

    since: str
    """The position from which on they were looked for, as the engine writes it: all before is in the replica itself."""
    found: tuple[Loss, ...] = ()
    """The newest first, in numbers of the engine's own where its log has no names."""
    evidence: str = ""
    """What the writer needs to find the names, for itself; empty where there is nothing to be named."""
    against: str = ""
    """Why the log could not be read, or not to its end; empty when it was."""
    lacking: bool = False
    """Whether that is because a part of it was not found."""
