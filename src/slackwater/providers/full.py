# SPDX-License-Identifier: Apache-2.0
"""Full copies on another filesystem, which survive the loss of the volumes they are of.

It snapshots nothing itself: what another provider has snapshotted is copied after the thaw (`hosts/full.py`), and
before a recovery a copy is brought back beside the live volume by that volume's provider (`recovery/filling.py`).
A volume says among its facts where its full copy lies. The effects are in `_full/effects.py`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.journal.effects import Effect
from slackwater.model.facts import Facts, Finding, refusal
from slackwater.model.replica import BackupComponents, FoundReplica
from slackwater.model.storage import Capabilities, CommitForm, MountOrder, Room, ShadowCopy, Take, Volume
from slackwater.providers._copying import size_of
from slackwater.providers._full.effects import CopyTree, Delete, MakePlace, shown_at
from slackwater.providers._full.manual import manual
from slackwater.providers._full.places import FULL, FullPlace, explained, on_disks, uuid_of
from slackwater.providers._keeping import Keeping, directories
from slackwater.providers._places import Place
from slackwater.providers._trees.manifest import manifest
from slackwater.providers.contract import Commit, Switch
from slackwater.system import loops, mounts

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FullProvider(Keeping):
    """Keeps full copies; see `contract.Provider` for what each method promises."""

    name: ClassVar[str] = "full"
    capabilities: ClassVar[Capabilities] = Capabilities(
        commit_form=CommitForm.COMMAND, instant_over="file", reads_through_filesystem=True
    )
    effects: ClassVar[tuple[type[Effect], ...]] = (MakePlace, CopyTree, Delete)

    # -- the other filesystem --------------------------------------------------------------------------------------

    def check_target(self, to: str, volumes: Sequence[Volume]) -> tuple[list[Finding], Room | None]:
        """What stands against copying the volumes to `to`, and the room it will have after that. Reads only."""
        if os.geteuid() != 0:
            return [refusal("needs-root", "Full copies are made by root only.", "Run it with sudo.")], None
        mount = mounts.at(os.path.realpath(to))
        if mount is None:
            return [refusal(
                "target-not-mounted",
                f"[replica] to = {to} is no mount point: full copies would fill the disk that holds it.",
                f"Mount the filesystem for full replicas: mount {to}",
            )], None  # fmt: skip
        if mount not in on_disks() or not uuid_of(mount):
            return [refusal(
                "target-unfit",
                f"{to} is a {mount.fstype}, which has no disk and no UUID of its own.",
                "Use an ext4, XFS or Btrfs on another disk.",
            )], None  # fmt: skip
        if any(mount.superblock == volume.superblock for volume in volumes):
            return [refusal(
                "target-same",
                f"{to} is the filesystem that carries the set itself: a copy there would be lost with it.",
                "Mount a filesystem of another disk there.",
            )], None  # fmt: skip
        found = os.statvfs(to)
        free = found.f_bavail * found.f_frsize
        size = sum(size_of(volume.path) for volume in volumes)
        if size > free:
            return [refusal(
                "target-room",
                f"The set takes {size >> 20} MiB, and {to} has {free >> 20} MiB free.",
                "Delete full replicas there (slackwater replica list), or use a larger filesystem.",
            )], None  # fmt: skip
        return [], Room(found.f_blocks * found.f_frsize, free - size)

    def onto(self, volume: Volume, to: str) -> Volume:
        """The same volume, with where its full copy goes."""
        mount = mounts.at(os.path.realpath(to))
        if mount is None:
            raise RefusedError(f"{to} is no mount point.", data="Nothing was changed.", code="target-not-mounted")
        source = loops.backing_file(mount.source) or mount.source
        told = {"full_filesystem": uuid_of(mount), "full_source": source, "full_to": mount.target}
        return replace(volume, facts={**volume.facts, **told})

    def copy_effect(self, volume: Volume, session: str, origin: str) -> CopyTree:
        """Plan the copy of what lies at `origin`, a snapshot of the volume."""
        return CopyTree(*self._where(volume, session), volume.name, origin, "")

    def path_of(self, copy: ShadowCopy) -> str:
        """Where a copy lies now, for every process.

        Raises:
            SlackwaterError: its filesystem is not mounted.
        """
        with explained(f"looking for {copy.place}", "Nothing was changed."):
            return os.path.join(self._place(copy).mount.target, copy.place)

    # -- live volumes are those of others --------------------------------------------------------------------------

    def volume_of(self, path: str) -> Volume | None:
        """None: it snapshots nothing."""
        return None

    def check_backup(self, volume: Volume, trees: Sequence[str], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        """Nothing: it has no live volume."""
        return ()

    def check_recovery(self, volume: Volume, pids: frozenset[int], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        """Nothing: it has no live volume."""
        return ()

    def estimate_s(self, volume: Volume) -> float:
        """Nothing is held for a full copy."""
        return 0.0

    def foreign(self, volume: Volume, trees: Sequence[str]) -> Sequence[str]:
        """Nothing: it has no live volume."""
        return ()

    def room(self, volume: Volume) -> Room:
        """How much the filesystem of the copies can still take."""
        with explained("reading the room"):
            found = os.statvfs(self._place_of(volume, "").mount.target)
        return Room(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def snapshot_effect(self, volume: Volume, session: str) -> Effect:
        """There are none.

        Raises:
            RefusedError: always.
        """
        raise _not_for_full("taken by itself")

    def open(self, take: Take, session: str) -> AbstractContextManager[Commit]:
        """There are none.

        Raises:
            RefusedError: always.
        """
        raise _not_for_full("taken by itself")

    def switch(
        self, copies: Sequence[ShadowCopy], live: Sequence[Volume], session: str, *, alone: bool = True
    ) -> Switch:
        """The live volume's provider switches.

        Raises:
            RefusedError: always.
        """
        raise _not_for_full("switched to")

    # -- copies ----------------------------------------------------------------------------------------------------

    def place_effect(self, volume: Volume, session: str) -> MakePlace:
        """Plan the directory of the session."""
        return MakePlace(*self._where(volume, session))

    def copy(self, volume: Volume, session: str, facts: Facts) -> ShadowCopy:
        """Describe the copy that was made."""
        return ShadowCopy(volume, self._place_of(volume, session).path(volume.name), facts, by=self.name)

    @contextmanager
    def reach(self, copy: ShadowCopy) -> Iterator[str]:
        """A path to the root of a copy.

        Raises:
            NotFoundError: it is gone.
        """
        path = self.path_of(copy)
        if not os.path.isdir(path):
            raise self._gone(copy)
        yield path

    def clone_effect(self, copy: ShadowCopy, session: str) -> CopyTree:
        """Plan another full copy, since most filesystems can share nothing; what it then holds is compared."""
        digest = str(copy.facts["contents"])
        return CopyTree(*self._where(copy.volume, session), copy.volume.name, self.path_of(copy), digest)

    def mount_order(self, copy: ShadowCopy) -> MountOrder:
        """The directory, bound.

        Raises:
            NotFoundError: it is gone.
        """
        with self.reach(copy) as path, explained(f"looking for {copy.place}"):
            root = self._place(copy).mount.root
        return MountOrder("none", path, os.path.join(root, copy.place), ("bind",))

    def mounted_at(self, copy: ShadowCopy) -> Sequence[str]:
        """Where our namespace shows it, by its path, which holds the session's id."""
        return shown_at(self._place(copy), copy.place.rpartition("/")[2])

    def altered(self, copy: ShadowCopy) -> str:
        """Why it is not the copy that was made, by what stat(2) says of everything in it.

        What is in its files is compared when it is cloned or recovered from.
        """
        place = self._place(copy)
        with explained(f"looking at {copy.place}"), place.top(read_only=True) as top, place.opened(top) as fd:
            try:
                tree = None if fd is None else os.open(copy.place.rpartition("/")[2], _DIRECTORY, dir_fd=fd)
            except (FileNotFoundError, NotADirectoryError):
                tree = None
            if tree is None:
                return "it is gone"
            try:
                if manifest(tree).digest != copy.facts.get("manifest"):
                    return "something in it was written, replaced or removed after it was made"
            finally:
                os.close(tree)
        return ""

    def delete_effect(self, copies: Sequence[ShadowCopy], session: str) -> Delete:
        """Plan to delete the copies and then the directories that held them."""
        mine = self._mine(copies)
        places = [self._place(copy) for copy in mine]
        return Delete(
            owner=self._owner,
            session=session,
            filesystems=tuple(each.filesystem for each in places),
            sources=tuple(each.source for each in places),
            tos=tuple(each.to for each in places),
            names=tuple(copy.place.rpartition("/")[2] for copy in mine),
        )

    def find(self) -> Sequence[FoundReplica]:
        """Every directory with our tag at a mount point of a filesystem with a disk; what cannot be read is passed."""
        result: list[FoundReplica] = []
        seen: set[tuple[int, int]] = set()
        for mount in on_disks() if os.geteuid() == 0 else ():
            try:
                known = os.lstat(f"{mount.target}/{FULL}")
                if (known.st_dev, known.st_ino) not in seen:
                    seen.add((known.st_dev, known.st_ino))
                    result += self._found_on(mount)
            except OSError:
                continue  # none is there, or its disk is broken, which must not stand in the way of the others
        return result

    def _found_on(self, mount: mounts.Mount) -> list[FoundReplica]:
        place, top = (
            FullPlace(uuid_of(mount), mount.source, self._owner, "", mount.target),
            os.open(mount.target, _DIRECTORY),
        )
        try:
            return list(self._found(top, mount.superblock, lambda session: replace(place, session=session), _copies))
        finally:
            os.close(top)

    # -- small things ----------------------------------------------------------------------------------------------

    def _where(self, volume: Volume, session: str) -> tuple[str, str, str, str, str]:
        facts = volume.facts
        filesystem, source, to = (str(facts[f"full_{each}"]) for each in ("filesystem", "source", "to"))
        return filesystem, source, self._owner, session, to

    def _place_of(self, volume: Volume, session: str) -> FullPlace:
        return FullPlace(*self._where(volume, session))

    def _place(self, copy: ShadowCopy) -> FullPlace:
        return self._place_of(copy.volume, copy.place.split("/")[-2])

    def _manual(self, document: BackupComponents, place: Place, copies: list[ShadowCopy]) -> str:
        return manual(document, copies)

    def _told(self, what: str, data: str = "") -> AbstractContextManager[None]:
        return explained(what, data)


def _copies(place: int) -> list[str]:
    """What of a place's directory is a copy: not the sums beside."""
    return [name for name in directories(place) if not name.endswith(".sha256")]


def _not_for_full(what: str) -> RefusedError:
    return RefusedError(
        f"A full copy cannot be {what}.",
        data="Nothing was changed.",
        hint="It is made from another provider's snapshot.",
        code="not-for-full",
    )
