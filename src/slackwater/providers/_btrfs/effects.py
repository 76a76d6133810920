# SPDX-License-Identifier: Apache-2.0
"""What the Btrfs provider makes: places, snapshots, clones, the exchange, the seal, and deletions.

Each effect finds out on the storage how far it came, by UUID: names are kept over an exchange, UUIDs tell who bears
them. Most of what they do is in `_effects`.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.providers._btrfs.places import BtrfsPlace, set_read_only
from slackwater.providers._effects import (
    CloneEffect,
    DeleteEffect,
    ExchangeEffect,
    FillEffect,
    PlaceEffect,
    SealEffect,
    SnapshotEffect,
    Turn,
)
from slackwater.system import btrfs, files

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class MakePlace(BtrfsPlace, PlaceEffect):
    """The tagged directory that holds a session's copies on one filesystem."""

    kind: ClassVar[str] = "btrfs.place"


@dataclass(frozen=True, slots=True)
class Snapshot(BtrfsPlace, SnapshotEffect):
    """The read-only copy of one live subvolume."""

    kind: ClassVar[str] = "btrfs.snapshot"
    name: str
    subvolume: str
    """Path of the live subvolume from the top level."""
    subvolume_uuid: str

    def describe(self) -> str:
        """Say what it does."""
        return f"take a read-only snapshot of the subvolume {self.subvolume} as {self.path(self.name)}"

    def make(self) -> Facts:
        """Read what the window's commit has made.

        Raises:
            RefusedError: it is not there, or another lies in its place. A later one is never taken instead: it would
                show another moment than the rest of the set.
        """
        with (
            self.told(self.describe(), "The live data was not touched."),
            self.top() as top,
            self.required(top) as place,
        ):
            # Also settles the removal of files that were open and deleted at the instant, which would show as a change.
            btrfs.commit(top)
            self.refuse_other(place, read_only=True)
            return self.facts_at(self.name, place)

    @contextmanager
    def ready(self, top: int) -> Iterator[bytearray]:
        """Open the source, write its dirty pages back, and give the order that takes the snapshot."""
        source = os.open(self.subvolume, _DIRECTORY, dir_fd=top)
        try:
            if btrfs.subvolume(source).uuid != self.subvolume_uuid:
                raise RefusedError(
                    f"The subvolume {self.subvolume} is not the one that was found before.", data="Nothing was changed."
                )
            files.write_back(source)
            yield btrfs.snapshot_order(source, self.name, read_only=True)
        finally:
            os.close(source)

    def refuse_other(self, place: int, *, read_only: bool = False) -> None:
        """It is a snapshot of the live subvolume; what was begun and is not read-only yet is ours, too."""
        found = btrfs.subvolume_at(self.name, place)
        if found is None or found.parent_uuid != self.subvolume_uuid or (read_only and not found.read_only):
            raise self.stranger(self.path(self.name), f"a read-only snapshot of {self.subvolume}")


@dataclass(frozen=True, slots=True)
class _Turn(BtrfsPlace, Turn):
    """What a clone and its exchange have in common."""

    name: str
    copy_uuid: str
    live: str
    live_uuid: str

    @property
    def old(self) -> str:
        """The live subvolume's UUID."""
        return self.live_uuid

    def is_clone(self, path: str, folder: int) -> bool:
        """The live volume may itself be a clone of the same copy, from an earlier recovery: only its UUID tells."""
        found = btrfs.subvolume_at(path, folder)
        return found is not None and found.parent_uuid == self.copy_uuid and found.uuid != self.live_uuid


@dataclass(frozen=True, slots=True)
class Clone(_Turn, CloneEffect):
    """A writable snapshot of a copy, beside, until it is exchanged with the live subvolume."""

    kind: ClassVar[str] = "btrfs.clone"
    copy: str

    def take(self, top: int, place: int) -> None:
        """One call."""
        copy = os.open(self.copy, _DIRECTORY, dir_fd=top)
        try:
            if btrfs.subvolume(copy).uuid != self.copy_uuid:
                raise self.stranger(self.copy, "the copy that was planned with")
            btrfs.snapshot(place, btrfs.snapshot_order(copy, self.name, read_only=False))
        finally:
            os.close(copy)

    def protect(self, place: int) -> None:
        """Make it read-only."""
        set_read_only(place, self.name, read_only=True)


@dataclass(frozen=True, slots=True)
class Exchange(_Turn, ExchangeEffect):
    """The exchange of two subvolumes."""

    kind: ClassVar[str] = "btrfs.exchange"

    def loosen(self, top: int) -> None:
        """An old volume that was set aside was somebody's live data: it must not come back sealed."""
        if self.is_old(self.path(self.name), top):
            set_read_only(top, self.path(self.name), read_only=False)


@dataclass(frozen=True, slots=True)
class Seal(BtrfsPlace, SealEffect):
    """What a recovery set aside becomes read-only."""

    kind: ClassVar[str] = "btrfs.seal"
    name: str
    live_uuid: str

    @property
    def old(self) -> str:
        """The UUID of the subvolume that was live."""
        return self.live_uuid

    def protect(self, place: int, *, on: bool) -> None:
        """By the subvolume's own mark."""
        set_read_only(place, self.name, read_only=on)


@dataclass(frozen=True, slots=True)
class Delete(DeleteEffect):
    """The copies of a session and its directories. The tuples belong together, one item for each copy.

    What is deleted is out of sight when this returns, also after a power cut; its room comes back within seconds to
    minutes, as the kernel's cleaner gets on (btrfs-subvolume(8), `sync`).
    """

    kind: ClassVar[str] = "btrfs.delete"
    owner: str
    session: str
    filesystems: tuple[str, ...]
    sources: tuple[str, ...]
    names: tuple[str, ...]
    uuids: tuple[str, ...]

    def rows(self) -> Iterator[tuple[BtrfsPlace, str, str]]:
        """One for each copy; a filesystem is the same by whatever device it was seen."""
        sources = dict(zip(self.filesystems, self.sources, strict=True))
        for filesystem, name, uuid in zip(self.filesystems, self.names, self.uuids, strict=True):
            yield BtrfsPlace(filesystem, sources[filesystem], self.owner, self.session), name, uuid


@dataclass(frozen=True, slots=True)
class Fill(BtrfsPlace, FillEffect):
    """A read-only subvolume with what a full copy holds; it is read-only when it is whole, and not before."""

    kind: ClassVar[str] = "btrfs.fill"
    name: str
    origin: str
    digest: str

    def is_whole(self, place: int) -> bool:
        """A snapshot is never ours."""
        found = btrfs.subvolume_at(self.name, place)
        if found is not None and found.parent_uuid:
            raise self.stranger(self.path(self.name), "what a full copy was brought back to, but a snapshot")
        return found is not None and found.read_only

    def begin(self, place: int) -> str:
        """An empty subvolume."""
        self.remove(self.name, place)
        btrfs.create(place, self.name)
        return f"/proc/self/fd/{place}/{self.name}"

    def end(self, place: int) -> None:
        """Make it read-only."""
        set_read_only(place, self.name, read_only=True)
