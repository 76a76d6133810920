# SPDX-License-Identifier: Apache-2.0
"""What the Btrfs provider makes: places, snapshots, clones, the exchange, the seal, and deletions.

Each effect finds out on the storage how far it came, by UUID: names are kept over an exchange, UUIDs tell who bears
them. Each change of names is committed to the disk before it counts as made, so that a power cut cannot take it back.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.providers._btrfs.places import ROOT, Place, explained, mounted_in
from slackwater.system import btrfs, processes
from slackwater.system.btrfs import Subvolume


@dataclass(frozen=True, slots=True)
class MakePlace(Place):
    """The tagged directory that holds a session's copies on one filesystem."""

    kind: ClassVar[str] = "btrfs.place"

    def describe(self) -> str:
        """Say what it does."""
        return f"make the directory {ROOT}/{self.session} for the copies on the Btrfs {self.filesystem}"

    def make(self) -> Facts:
        """Make and tag it."""
        with explained(self.describe(), "No data was touched."):
            self.make_directory()
        return {"filesystem": self.filesystem, "place": f"{ROOT}/{self.session}"}

    def undo(self) -> None:
        """Remove it with the document, if no copy lies in it."""
        with explained(f"removing {ROOT}/{self.session}"):
            self.remove_directory()


@dataclass(frozen=True, slots=True)
class Snapshot(Place):
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
            explained(self.describe(), "The live data was not touched."),
            self.top() as top,
            self.required(top) as place,
        ):
            # Also settles the removal of files that were open and deleted at the instant, which would show as a change.
            btrfs.commit(top)
            return facts_of(self._mine(place, read_only=True))

    @contextmanager
    def ready(self, top: int) -> Iterator[bytearray]:
        """Open the source, write its dirty pages back, and give the order that takes the snapshot."""
        source = os.open(self.subvolume, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
        try:
            if btrfs.subvolume(source).uuid != self.subvolume_uuid:
                raise RefusedError(
                    f"The subvolume {self.subvolume} is not the one that was found before.", data="Nothing was changed."
                )
            btrfs.write_back(source)
            yield btrfs.snapshot_order(source, self.name, read_only=True)
        finally:
            os.close(source)

    def undo(self) -> None:
        """Delete it, if it is there."""
        with explained(f"deleting {self.path(self.name)}"), self.top() as top, self.opened(top) as place:
            if place is not None and btrfs.subvolume_at(self.name, place) is not None:
                self._mine(place, read_only=False)
                btrfs.delete(place, self.name)
                btrfs.commit(top)

    def _mine(self, place: int, *, read_only: bool) -> Subvolume:
        found = btrfs.subvolume_at(self.name, place)
        if found is None or found.parent_uuid != self.subvolume_uuid or (read_only and not found.read_only):
            raise _stranger(self.path(self.name), f"a read-only snapshot of {self.subvolume}")
        return found


@dataclass(frozen=True, slots=True)
class _Turn(Place):
    """What a clone and its exchange have in common: which copy, and which live subvolume it takes the place of."""

    name: str
    copy_uuid: str
    live: str
    """Path of the live subvolume from the top level."""
    live_uuid: str
    """As planned. Whoever bears it is the old volume, wherever it lies."""

    def _is_clone(self, found: Subvolume | None) -> bool:
        # The live volume may itself be a clone of the same copy, from an earlier recovery: only its UUID tells.
        return found is not None and found.parent_uuid == self.copy_uuid and found.uuid != self.live_uuid

    def _is_live(self, found: Subvolume | None) -> bool:
        return found is not None and found.uuid == self.live_uuid


@dataclass(frozen=True, slots=True)
class Clone(_Turn):
    """A writable clone of a copy, beside, until it is exchanged with the live volume."""

    kind: ClassVar[str] = "btrfs.clone"
    copy: str
    """Path of the copy from the top level."""

    def describe(self) -> str:
        """Say what it does."""
        return f"clone {self.copy} as {self.path(self.name)}"

    def make(self) -> Facts:
        """Clone the copy. After an exchange the clone is at the live path, and is described from there."""
        with (
            explained(self.describe(), "The live data was not touched."),
            self.top() as top,
            self.required(top) as place,
        ):
            found = btrfs.subvolume_at(self.name, place)
            if found is None:
                self._take(top, place)
                found = btrfs.subvolume_at(self.name, place)
            elif self._is_live(found):
                found = btrfs.subvolume_at(self.live, top)
            if found is None or not self._is_clone(found):
                raise _stranger(self.path(self.name), f"a clone of {self.copy}")
            return facts_of(found)

    def _take(self, top: int, place: int) -> None:
        copy = os.open(self.copy, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
        try:
            if btrfs.subvolume(copy).uuid != self.copy_uuid:
                raise _stranger(self.copy, "the copy that was planned with")
            btrfs.snapshot(place, btrfs.snapshot_order(copy, self.name, read_only=False))
        finally:
            os.close(copy)

    def undo(self) -> None:
        """Delete the clone, and only the clone: after an exchange the old live volume lies at this very path."""
        with explained(f"deleting {self.path(self.name)}"), self.top() as top, self.opened(top) as place:
            found = None if place is None else btrfs.subvolume_at(self.name, place)
            if place is None or found is None:
                return
            if not self._is_clone(found):
                raise _stranger(self.path(self.name), f"a clone of {self.copy}, but what a recovery set aside")
            _refuse_mounted(self.filesystem, self.path(self.name))
            btrfs.delete(place, self.name)
            btrfs.commit(top)


@dataclass(frozen=True, slots=True)
class Exchange(_Turn):
    """The clone takes the live volume's place, and the live volume the clone's, in one instant."""

    kind: ClassVar[str] = "btrfs.exchange"

    def describe(self) -> str:
        """Say what it does."""
        return f"exchange the subvolume {self.live} with its clone; the old one is then {self.path(self.name)}"

    def make(self) -> Facts:
        """Exchange them, unless the live path already shows another than the old volume."""
        with explained(self.describe()), self.top() as top, self.required(top) as place:
            live, aside = btrfs.subvolume_at(self.live, top), btrfs.subvolume_at(self.name, place)
            if self._is_live(live) and self._is_clone(aside):
                _refuse_mounted(self.filesystem, self.live)
                _refuse_held(top, self.live)
                btrfs.exchange(top, self.live, self.path(self.name))
                btrfs.commit(top)
            elif not (self._is_clone(live) and self._is_live(aside)):
                raise _stranger(self.live, "the volume that was planned with, nor its clone")
            return {"live": self.live, "aside": self.path(self.name), "aside_uuid": self.live_uuid}

    def made(self) -> bool:
        """Whether the clone lies in the volume's place, and the volume beside."""
        with explained(f"looking at {self.live}"), self.top(read_only=True) as top, self.opened(top) as place:
            aside = None if place is None else btrfs.subvolume_at(self.name, place)
            return self._is_clone(btrfs.subvolume_at(self.live, top)) and self._is_live(aside)

    def undo(self) -> None:
        """Exchange them back, if the old volume lies beside."""
        with explained(f"putting the old volume back at {self.live}"), self.top() as top, self.opened(top) as place:
            if place is None or not self._is_live(btrfs.subvolume_at(self.name, place)):
                return
            if not self._is_clone(btrfs.subvolume_at(self.live, top)):
                raise _stranger(self.live, f"the clone that took the place of {self.path(self.name)}")
            _refuse_mounted(self.filesystem, self.live)
            _refuse_held(top, self.live)
            # It was somebody's live data: it must not come back sealed.
            _set_read_only(place, self.name, read_only=False)
            btrfs.exchange(top, self.live, self.path(self.name))
            btrfs.commit(top)


@dataclass(frozen=True, slots=True)
class Seal(Place):
    """What a recovery set aside becomes a read-only replica."""

    kind: ClassVar[str] = "btrfs.seal"
    name: str
    live_uuid: str

    def describe(self) -> str:
        """Say what it does."""
        return f"make {self.path(self.name)} read-only"

    def make(self) -> Facts:
        """Make it read-only, and return the facts by which an alteration is noticed."""
        with explained(self.describe()), self.top() as top, self.required(top) as place:
            self._set_aside(place)
            _set_read_only(place, self.name, read_only=True)
            # What its processes had written and never synced would reach the disk later, and show as an alteration.
            btrfs.write_back(place)
            btrfs.commit(top)
            return facts_of(self._set_aside(place))

    def undo(self) -> None:
        """Make it writable again, if it lies there."""
        with explained(f"making {self.path(self.name)} writable"), self.top() as top, self.opened(top) as place:
            found = None if place is None else btrfs.subvolume_at(self.name, place)
            if place is not None and found is not None and found.uuid == self.live_uuid:
                _set_read_only(place, self.name, read_only=False)
                btrfs.commit(top)

    def _set_aside(self, place: int) -> Subvolume:
        found = btrfs.subvolume_at(self.name, place)
        if found is None or found.uuid != self.live_uuid:
            raise _stranger(self.path(self.name), "what the recovery set aside")
        return found


@dataclass(frozen=True, slots=True)
class Delete:
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

    def describe(self) -> str:
        """Say what it does."""
        return f"delete {ROOT}/{self.session} with {', '.join(self.names)}"

    def make(self) -> Facts:
        """Delete what is still there of it.

        Raises:
            RefusedError: a directory does not bear our tags, a copy is another than recorded, or is mounted.
        """
        deleted = 0
        with explained(self.describe(), "What was not yet deleted is still there, and good."):
            places = {
                f: Place(f, s, self.owner, self.session) for f, s in zip(self.filesystems, self.sources, strict=True)
            }
            for place in places.values():
                copies = [
                    (name, uuid)
                    for f, name, uuid in zip(self.filesystems, self.names, self.uuids, strict=True)
                    if f == place.filesystem
                ]
                deleted += _delete_copies(place, copies)
                place.remove_directory()
        return {"deleted": deleted}

    def undo(self) -> None:
        """Nothing: what was deleted does not come back."""


def _delete_copies(place: Place, copies: list[tuple[str, str]]) -> int:
    with place.top() as top, place.opened(top) as fd:
        if fd is None:
            return 0
        there = {name: uuid for name, uuid in copies if (found := btrfs.subvolume_at(name, fd)) and found.uuid == uuid}
        for name, _ in copies:
            if name not in there and btrfs.subvolume_at(name, fd) is not None:
                raise _stranger(place.path(name), "the copy that was recorded")
            _refuse_mounted(place.filesystem, place.path(name))
        for name in there:
            btrfs.delete(fd, name)
        btrfs.commit(top)
        return len(there)


def facts_of(found: Subvolume) -> Facts:
    """What tells whether a copy is still the one that was made, and unaltered."""
    return {
        "subvolume_uuid": found.uuid,
        "subvolume_id": found.id,
        "parent_uuid": found.parent_uuid,
        "changed": found.changed,
        "made": found.made,
        "read_only": found.read_only,
    }


def _set_read_only(place: int, name: str, *, read_only: bool) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    try:
        btrfs.set_read_only(fd, read_only=read_only)
    finally:
        os.close(fd)


def _refuse_mounted(filesystem: str, path: str) -> None:
    # The kernel lets a mounted subvolume be deleted or renamed: whoever has it mounted is left with the wrong one.
    if where := mounted_in(filesystem, path):
        raise RefusedError(
            f"The subvolume {path} is mounted at {', '.join(where)}.",
            data="It was left as it is.",
            hint=f"umount {where[0].partition(' ')[0]}",
            code="mounted",
        )


def _refuse_held(top: int, path: str) -> None:
    # A process keeps what it has open over an exchange: it would go on writing into what was set aside.
    held = processes.lasting_holders(os.stat(path, dir_fd=top).st_dev)
    if held:
        raise RefusedError(
            f"{held[0].command} (pid {held[0].pid}) holds {held[0].path} on the subvolume {path}.",
            data="It was left as it is.",
            hint=f"Stop it (kill {held[0].pid}, or the service it belongs to), then: slackwater reconcile",
            code="held",
        )


def _stranger(path: str, expected: str) -> RefusedError:
    return RefusedError(
        f"What lies at {path} on the Btrfs is not {expected}.",
        data="It was left as it is.",
        hint="See `btrfs subvolume show`: it was moved or replaced by hand, or another step has to be undone first.",
    )
