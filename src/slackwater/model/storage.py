# SPDX-License-Identifier: Apache-2.0
"""Where the files lie: mounts, volumes, shadow copies, and how much room there is."""

from dataclasses import dataclass, field
from enum import StrEnum

from slackwater.model.facts import Facts


class CommitForm(StrEnum):
    """How a provider makes the instant of a snapshot; decides under which hold it may be used."""

    SYSTEM_CALL = "system-call"
    HELPER = "helper"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, for the planner to read."""

    commit_form: CommitForm
    instant_over: str
    """What one commit covers at one instant: `volume`, `file`, `group`."""
    reads_through_filesystem: bool
    """True when data that processes have written but the kernel has not yet put on the disk is in the copy."""


@dataclass(frozen=True, slots=True)
class Volume:
    """What one provider can snapshot as one thing."""

    provider: str
    id: str
    """Stays the same over recoveries, remounts and reboots (Btrfs: the filesystem's UUID and the path inside it)."""
    name: str
    """Short, of letters, digits, dot, dash and underscore: its directory in a replica. Unique only within a set."""
    path: str
    """Where this host reaches its root now."""
    superblock: str
    """The filesystem as the kernel counts them: `major:minor` of mountinfo, the same for all Btrfs subvolumes."""
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShadowCopy:
    """One volume's snapshot, as it lies on the storage."""

    volume: Volume
    place: str
    """Where it lies, in the provider's own terms (Btrfs: the path from the filesystem's top level)."""
    facts: Facts = field(default_factory=dict)
    """What tells whether it is still the one that was made, and unaltered (Btrfs: UUID, generation)."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much a filesystem can still take before writes fail."""

    total_bytes: int
    free_bytes: int
    """What can be relied on, by the provider's own judgement, not by statfs."""

    @property
    def free_ratio(self) -> float:
        """Free part of the whole, 0 to 1."""
        return self.free_bytes / self.total_bytes if self.total_bytes else 0.0
