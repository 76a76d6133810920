# SPDX-License-Identifier: Apache-2.0
"""What an application lives on: components, their files, and what an image of the files must satisfy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.hold import Consistency, Hold


@dataclass(frozen=True, slots=True, order=True)
class ComponentRef:
    """The name of a component, written `WRITER:NAME`, as `postgresql:15/main`."""

    writer: str
    name: str

    def __str__(self) -> str:
        return f"{self.writer}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `WRITER:NAME`; the name may hold further colons.

        Raises:
            ValueError: the text has no writer or no name.
        """
        writer, colon, name = text.partition(":")
        if not (writer and colon and name):
            raise ValueError(f"{text!r} is not of the form WRITER:NAME, as in postgresql:15/main")
        return cls(writer, name)


class FileRole(StrEnum):
    """What the files of a set are for the engine."""

    DATA = "data"
    LOG = "log"
    TABLESPACE = "tablespace"


@dataclass(frozen=True, slots=True)
class FileSet:
    """A directory tree that belongs to a component, whole."""

    role: FileRole
    path: str
    """Absolute and without links, as this host sees it."""
    via: str = ""
    """The link or mount point through which the engine reaches it, relative to the data directory (`pg_wal`); empty for
    none.
    """
    log: str = ""
    """The directory below `path` that holds the application's log, where that has no file set of its own (`pg_wal`)."""
    never: tuple[str, ...] = ()
    """Entries below `path` that a copy file by file leaves out, since they are made anew (`app.db-shm`)."""
    last: tuple[str, ...] = ()
    """Files below `path` that a copy file by file takes after all others (`global/pg_control`)."""


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that can be backed up and recovered as a whole, as its writer described it just now."""

    ref: ComponentRef
    caption: str
    """One line for people: engine, version, where it listens."""
    running: bool
    files: tuple[FileSet, ...]
    survives_power_cut: bool
    """True when an image of all its files at one instant is enough: the engine recovers from a power cut by itself."""
    offers: tuple[Hold, ...] = ()
    """The holds that its writer brings for it: `LOG_BRIDGE`, `APPLICATION_LOCK`."""
    can_stop: bool = False
    """Its writer stops it for the copies and starts it again where a specification asks for it (`hold = "stop"`)."""
    best: Consistency = Consistency.APPLICATION
    """What a replica of it can promise at all; `CRASH` where nobody knows when its files belong together."""
    main_pid: int | None = None
    """The process whose death is the application's death; None when it is stopped."""
    configuration: tuple[str, ...] = ()
    """Small files outside the sets that are copied into the replica's documents; they are never put back by
    themselves.
    """
    facts: Facts = field(default_factory=dict)
    """What the writer needs to stop, start and recover it. Never a secret."""
    findings: tuple[Finding, ...] = ()

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """Why it cannot be backed up; empty when it can."""
        return tuple(f for f in self.findings if f.severity is Severity.REFUSAL)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a writer may log in. Only names of places where secrets lie, never a secret.

    With everything empty the writer uses the operating system's word for who it is (peer authentication), as the
    owner of the component's files.
    """

    user: str = ""
    service: str = ""
    """A section of the engine's service file (PostgreSQL: `pg_service.conf`)."""
    password_file: str = ""
    """A file in the engine's own format (PostgreSQL: `.pgpass`), or the name of a systemd credential."""


@dataclass(frozen=True, slots=True)
class Handling:
    """What a specification says about one component to its writer.

    Commands are split into words as a shell does, and run without one.
    """

    credentials: Credentials = Credentials()
    consistency: str = ""
    """What the replica shall promise: `application` or `crash`; empty for the writer's own choice."""
    unit: str = ""
    """The systemd unit that runs the application."""
    cgroup: str = ""
    """The folder of the cgroup that holds the application's processes, and nobody else's."""
    pid_file: str = ""
    """The file with the number of the application's first process."""
    stop: str = ""
    """The command that stops the application, and returns when it is stopped."""
    start: str = ""
    lock: str = ""
    """The command that keeps everybody from writing; it returns when nobody writes any more."""
    unlock: str = ""
    """The command that lets them write again. It may run more than once."""


Options = Mapping[ComponentRef, Handling]
