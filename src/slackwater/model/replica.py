# SPDX-License-Identifier: Apache-2.0
"""What is kept: replicas and the document that lies beside each."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Facts
from slackwater.model.plan import Consistency, Hold, Window
from slackwater.model.storage import ShadowCopy, Volume


class ReplicaKind(StrEnum):
    """Where a replica comes from."""

    BACKUP = "backup"
    UNDO = "undo"
    """The volumes that a recovery set aside."""


class ReplicaState(StrEnum):
    """What can be done with a replica."""

    GOOD = "good"
    DELETING = "deleting"
    """Its deletion was decided and not yet finished."""
    MISSING = "missing"
    """The catalog knows it, the storage does not hold it, or not as it was made."""


@dataclass(frozen=True, slots=True)
class ComponentRecord:
    """What recovery has to know of one component, as it was at the backup."""

    component: Component
    expected: Facts
    """What the writer saw just before the window; a recovered engine must be at or past it."""
    configuration: dict[str, str] = field(default_factory=dict)
    """Small files outside the set, path to text."""


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


@dataclass(frozen=True, slots=True)
class Replica:
    """A shadow copy set that the catalog tracks."""

    document: BackupComponents
    state: ReplicaState = ReplicaState.GOOD
    pinned: bool = False
    verified: datetime | None = None
    read_only: bool = True
    presented: bool = False

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
