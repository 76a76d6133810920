# SPDX-License-Identifier: Apache-2.0
"""What is kept: replicas and the document that lies beside each."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Facts
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Holding, Window
from slackwater.model.storage import ShadowCopy, Volume


class ReplicaKind(StrEnum):
    """Where a replica comes from."""

    BACKUP = "backup"
    UNDO = "undo"
    """The volumes that a recovery set aside."""


class ReplicaType(StrEnum):
    """How independent of its volumes a replica is."""

    SNAPSHOT = "snapshot"
    """It shares blocks, and the disks, with the volumes it was taken of."""
    FULL = "full"
    """Whole copies on another filesystem."""


class ReplicaState(StrEnum):
    """What can be done with a replica."""

    GOOD = "good"
    DELETING = "deleting"
    """Its deletion was decided and not yet finished."""
    MISSING = "missing"
    """The catalog knows it, the storage does not hold it, or not as it was made."""
    FAILED = "failed"
    """Its last verification failed: it is not taken for a recovery by itself, and does not count in rotation."""


@dataclass(frozen=True, slots=True)
class ComponentRecord:
    """What recovery has to know of one component, as it was at the backup."""

    component: Component
    expected: Facts
    """What the writer saw just before the window; a recovered engine must be at or past it."""
    configuration: dict[str, str] = field(default_factory=dict)
    """Small files outside the set, path to text."""
    absent: dict[str, str] = field(default_factory=dict)
    """Of what a recovery set aside: small files that were not there, path to the digest of what was put there."""
    holding: Holding | None = None
    """How it was kept still, and what is promised for it; None for what a recovery set aside."""


@dataclass(frozen=True, slots=True)
class BackupComponents:
    """The backup components document: what was selected, what each writer said, where each volume was.

    Kept in the catalog and beside the replica on its storage, so that either can be rebuilt from the other.
    """

    schema_version: int
    owner: str
    """The installation that made it; storage with another owner's tag is never touched."""
    session: str
    kind: ReplicaKind
    specification: str
    """Name of the specification, or WRITER:COMPONENT for a backup without one."""
    created: datetime
    """The instant, between freeze and thaw."""
    hold: Hold
    reason: str
    consistency: Consistency
    window: Window
    components: tuple[ComponentRecord, ...]
    copies: tuple[ShadowCopy, ...]
    replica: str = ""
    """For an undo replica: which replica the recovery that set it aside had put in its place."""

    @property
    def type(self) -> ReplicaType:
        """Whether it survives the loss of its volumes."""
        return ReplicaType.FULL if any(copy.by for copy in self.copies) else ReplicaType.SNAPSHOT


@dataclass(frozen=True, slots=True)
class Verification:
    """How the last verification of a replica ended."""

    session: str
    at: datetime
    passed: bool
    recovery_ms: float
    """From the order to start the engine on the clone until it had recovered."""
    total_ms: float
    checks: dict[str, dict[str, str]] = field(default_factory=dict)
    """By component, each check that was made and what it found."""
    error: str = ""
    """What it did not pass by; empty when it passed."""


@dataclass(frozen=True, slots=True)
class Replica:
    """A shadow copy set that the catalog tracks."""

    document: BackupComponents
    state: ReplicaState = ReplicaState.GOOD
    pinned: bool = False
    verified: datetime | None = None
    """When it was last proven to recover; None when never, or when the last verification failed."""
    read_only: bool = True
    presented: bool = False
    """True while it is mounted; the mount table knows, the catalog's own word is not asked."""
    verification: Verification | None = None
    used: datetime | None = None
    """When it was mounted read-write: somebody may take what he wrote there for a part of it. None: never."""

    @property
    def id(self) -> str:
        """A replica bears its session's id."""
        return self.document.session

    @property
    def volumes(self) -> tuple[Volume, ...]:
        """The volumes it is a copy of."""
        return tuple(copy.volume for copy in self.document.copies)

    @property
    def components(self) -> tuple[ComponentRef, ...]:
        """What can be recovered from it."""
        return tuple(record.component.ref for record in self.document.components)


@dataclass(frozen=True, slots=True)
class FoundReplica:
    """A replica as the storage shows it: a directory that bears our tag."""

    session: str
    superblock: str
    places: tuple[str, ...]
    document: BackupComponents | None
    """None: `undocumented`; never recovered from, never deleted by itself."""
    facts: Facts = field(default_factory=dict)
    pinned: bool | None = None
    """What is noted beside it; None where the storage cannot tell."""
