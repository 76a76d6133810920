# SPDX-License-Identifier: Apache-2.0
"""Where the files lie: mounts, volumes, shadow copies, and how much room there is."""

import os.path
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
    """What one commit covers at one instant: `volume`, `file` where each file has an instant of its own, or `nothing`
    where its data is copied, which takes the longer the more there is.
    """
    reads_through_filesystem: bool
    """True when data that processes have written but the kernel has not yet put on the disk is in the copy: it copies
    through the filesystem, or has it write everything and stand still by itself. False below it: an image, an array."""
    rootless: bool = False
    """True when it works without root on what the user owns."""

    @property
    def by_file(self) -> bool:
        """Whether a copy is made file by file, of what is named and of nothing else."""
        return self.instant_over != "volume"

    @property
    def copies(self) -> bool:
        """Whether a copy or clone takes the time and the room of its data."""
        return self.instant_over == "nothing"


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
class Filesystem:
    """A mounted filesystem that can be frozen, known by its superblock."""

    superblock: str
    """`major:minor` of mountinfo."""
    fsid: str
    """What tells two filesystems apart that bore this number one after the other, in hexadecimal digits."""
    mount: str
    """Where it is mounted."""
    rank: int = 0
    """Of those that are frozen together, each that lies in another one (by a file, a loop device or a volume) is of a
    lower rank, and frozen before it."""


def moved(path: str, volume: Volume, root: str) -> str:
    """Where a path of a volume lies when the volume's root is reached at `root`."""
    return os.path.normpath(os.path.join(root, os.path.relpath(path, volume.path)))


@dataclass(frozen=True, slots=True)
class Take:
    """What one commit takes of a volume. A provider whose instant covers the whole volume takes all of it anyway."""

    volume: Volume
    trees: tuple[str, ...] = ()
    """The directory trees to take, absolute; empty for the whole volume."""
    without: tuple[str, ...] = ()
    """Trees and files below them that are left out, absolute: another stage takes them, or they are made anew."""
    last: tuple[str, ...] = ()
    """Files that are taken after all others, absolute."""
    patient: bool = False
    """Nobody is held while it is taken: what was written right before may be looked at once more."""


@dataclass(frozen=True, slots=True)
class ShadowCopy:
    """One volume's snapshot, as it lies on the storage."""

    volume: Volume
    place: str
    """Where it lies, in the provider's own terms (Btrfs: the path from the filesystem's top level)."""
    facts: Facts = field(default_factory=dict)
    """What tells whether it is still the one that was made, and unaltered (Btrfs: UUID, generation)."""
    by: str = ""
    """The provider that keeps it, where that is not the volume's: `full` for an independent copy elsewhere."""

    @property
    def provider(self) -> str:
        """Who made it, and knows what lies there."""
        return self.by or self.volume.provider


@dataclass(frozen=True, slots=True)
class MountOrder:
    """How a copy or a clone is shown at a path: what mount(8) has to be told."""

    fstype: str
    """`none` for a directory that is bound (`bind` is then among the options)."""
    source: str
    """The device, the file behind a loop device, or the directory to be bound."""
    root: str
    """The path inside the filesystem, with a slash before: by it, mountinfo tells whether this is what is mounted."""
    options: tuple[str, ...] = ()
    """What leads to the copy (Btrfs: `subvol=PATH`), and the filesystem's own; how it is shown is added by who mounts:
    `ro`, `nosuid`, `nodev`, `noexec`."""


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
