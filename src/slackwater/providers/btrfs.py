# SPDX-License-Identifier: Apache-2.0
"""Btrfs: one subvolume is one volume, snapshotted by one system call and exchanged by one.

Replicas lie at the top level of the filesystem, out of the application's sight, reached by a mount that only this
process sees (`system/btrfs.top_level`). The effects are in `_btrfs/effects.py` and `_btrfs/mounts.py`, the directories
and their tags in `_btrfs/places.py`, what is looked at before in `_btrfs/checks.py`.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from slackwater.errors import NotFoundError, RefusedError
from slackwater.journal.effects import Effect, fields_of
from slackwater.model.facts import Facts, Finding
from slackwater.model.replica import BackupComponents, FoundReplica
from slackwater.model.storage import Capabilities, CommitForm, MountOrder, Room, ShadowCopy, Take, Volume
from slackwater.providers._btrfs import checks
from slackwater.providers._btrfs.effects import Clone, Delete, Exchange, Fill, MakePlace, Seal, Snapshot
from slackwater.providers._btrfs.manual import manual
from slackwater.providers._btrfs.mounts import Bar, Mount, Unbar, Unmount
from slackwater.providers._btrfs.places import BtrfsPlace, explained, mounted
from slackwater.providers._btrfs.room import room_of
from slackwater.providers._keeping import Keeping
from slackwater.providers._places import ROOT, Place, name_of
from slackwater.providers.contract import Commit, Switch
from slackwater.system import btrfs, files, loops, mounts


@dataclass(frozen=True, slots=True)
class _Commit:
    """The order for one snapshot, and where to give it."""

    directory: int
    order: bytearray

    def __call__(self) -> None:
        """Give it: one ioctl."""
        btrfs.snapshot(self.directory, self.order)


class BtrfsProvider(Keeping):
    """Snapshots of Btrfs subvolumes."""

    name: ClassVar[str] = "btrfs"
    capabilities: ClassVar[Capabilities] = Capabilities(
        commit_form=CommitForm.SYSTEM_CALL, instant_over="volume", reads_through_filesystem=True
    )
    effects: ClassVar[tuple[type[Effect], ...]] = (
        MakePlace, Snapshot, Fill, Clone, Exchange, Seal, Delete, Unmount, Mount, Bar, Unbar,
    )  # fmt: skip

    # -- looking ---------------------------------------------------------------------------------------------------

    def volume_of(self, path: str) -> Volume | None:
        """The subvolume that carries `path`; None when that is not on Btrfs.

        Raises:
            NotFoundError: there is no such path.
            RightsError: it cannot be looked at without root.
        """
        real = os.path.realpath(path)
        with explained(f"looking at {path}"):
            try:
                mount = mounts.mount_of(real)
                return _volume(real, mount) if mount is not None and mount.fstype == "btrfs" else None
            except FileNotFoundError as e:
                raise NotFoundError(f"There is no {path}.", data="Nothing was changed.") from e

    def check_backup(self, volume: Volume, trees: Sequence[str], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        """What would be missing in a snapshot, or make it fail; codes are those of `_btrfs/checks`."""
        with explained(f"checking {volume.path}"):
            return checks.backup(volume, trees, beside, self._owner)

    def check_recovery(self, volume: Volume, pids: frozenset[int], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        """What would not follow an exchange, now or after a reboot; codes are those of `_btrfs/checks`."""
        with explained(f"checking {volume.path}"):
            return checks.recovery(volume, pids, beside, self._owner)

    def estimate_s(self, volume: Volume) -> float:
        """Nothing to speak of: one snapshot is one transaction, whatever it holds."""
        return 0.0

    def room(self, volume: Volume) -> Room:
        """How much the filesystem can still take, by what is given out to chunks; see `_btrfs/room`."""
        with explained(f"reading the room of {volume.path}"):
            fd = os.open(volume.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                return room_of(btrfs.allocation(fd))
            finally:
                os.close(fd)

    # -- backup ----------------------------------------------------------------------------------------------------

    def place_effect(self, volume: Volume, session: str) -> MakePlace:
        """Plan the directory of the session; the same for all volumes of a filesystem."""
        return MakePlace(*_where(volume), self._owner, session)

    def snapshot_effect(self, volume: Volume, session: str) -> Snapshot:
        """Plan the read-only snapshot."""
        facts = volume.facts
        return Snapshot(
            *_where(volume), self._owner, session, volume.name, str(facts["subvolume"]), str(facts["subvolume_uuid"])
        )

    @contextmanager
    def open(self, take: Take, session: str) -> Iterator[Commit]:
        """Write back dirty pages and open source and destination; what is left is one ioctl.

        Raises:
            SlackwaterError: the place is missing or not ours, or the volume is another than it was.
        """
        effect = self.snapshot_effect(take.volume, session)
        with ExitStack() as opened:
            with explained(f"preparing the snapshot of {take.volume.path}", "Nothing was changed."):
                top = opened.enter_context(effect.top())
                place = opened.enter_context(effect.required(top))
                order = opened.enter_context(effect.ready(top))
            yield _Commit(place, order)

    def copy(self, volume: Volume, session: str, facts: Facts) -> ShadowCopy:
        """Describe the copy that was made."""
        return ShadowCopy(volume, f"{ROOT}/{session}/{volume.name}", facts)

    # -- copies ----------------------------------------------------------------------------------------------------

    @contextmanager
    def reach(self, copy: ShadowCopy) -> Iterator[str]:
        """A path to the root of a copy (read-only) or clone (writable), good in this process.

        Raises:
            NotFoundError: it is gone.
        """
        place = self._place(copy)
        with ExitStack() as opened:
            with explained(f"reaching {copy.place}", "Nothing was changed."):
                with place.top(read_only=True) as top:
                    found = btrfs.subvolume_at(copy.place, top)
                if found is None:
                    raise self._gone(copy)
                top = opened.enter_context(place.top(read_only=found.read_only))
            yield f"/proc/self/fd/{top}/{copy.place}"

    def clone_effect(self, copy: ShadowCopy, session: str) -> Clone:
        """Plan a writable snapshot of a copy that takes nobody's place."""
        return Clone(
            *_where(copy.volume), self._owner, session, copy.volume.name, str(copy.facts["subvolume_uuid"]),
            live="", live_uuid="", copy=copy.place,
        )  # fmt: skip

    def mount_order(self, copy: ShadowCopy) -> MountOrder:
        """The subvolume, by its path from the top level."""
        place = self._place(copy)
        with explained(f"looking for {copy.place}"), place.top(read_only=True) as top:
            if btrfs.subvolume_at(copy.place, top) is None:
                raise self._gone(copy)
        source = btrfs.device_of(place.filesystem, place.source)
        return MountOrder("btrfs", source, f"/{copy.place}", (f"subvol=/{copy.place}",))

    def mounted_at(self, copy: ShadowCopy) -> Sequence[str]:
        """Where our namespace shows it; another Btrfs could hold the same path, and then the device tells."""
        filesystem = _where(copy.volume)[0]
        shown = [m for m in mounts.read() if m.fstype == "btrfs" and mounts.inside(m.root, f"/{copy.place}")]
        devices = btrfs.devices_of(filesystem) if shown else ()
        return tuple(m.target for m in shown if os.path.realpath(m.source) in devices)

    def altered(self, copy: ShadowCopy) -> str:
        """Why it is not the copy that was made.

        The generation would say too much: being cloned moves it. The transaction that last changed a file (ctransid)
        moves with every change and with nothing else, but only once that change is written back: so it is, first.
        (Linux 6.18: what was appended to a file and still is in the page cache has moved nothing, also after a commit,
        and yet is in the next clone.)
        """
        with explained(f"looking at {copy.place}"), self._place(copy).top(read_only=True) as top:
            files.write_back(top)
            found = btrfs.subvolume_at(copy.place, top)
        if found is None:
            return "it is gone"
        if found.uuid != copy.facts.get("subvolume_uuid"):
            return "another subvolume lies in its place"
        if not found.read_only:
            return "it is no longer read-only"
        if found.changed != copy.facts.get("changed", found.changed):
            return "it was written to after it was made"
        return ""

    # -- recovery --------------------------------------------------------------------------------------------------

    def switch(
        self, copies: Sequence[ShadowCopy], live: Sequence[Volume], session: str, *, alone: bool = True
    ) -> Switch:
        """Plan the clones, the exchange and the seal.

        Raises:
            RefusedError: a copy lies on another filesystem than the volume it is to replace.
        """
        pairs = list(zip(copies, live, strict=True))
        for copy, volume in pairs:
            if _where(copy.volume)[0] != _where(volume)[0]:
                raise RefusedError(
                    f"{copy.place} lies on another Btrfs than {volume.path}, so nothing can be switched there.",
                    data="Nothing was changed.",
                    hint=f"Mount the Btrfs {_where(copy.volume)[0]} at {volume.path}.",
                    code="other-filesystem",
                )
        places = dict.fromkeys(self.place_effect(volume, session) for volume in live)
        exchanges = [self._exchange(copy, volume, session) for copy, volume in pairs]
        unmounts = _mounted(live)
        bars = None if alone and len(exchanges) == 1 else _bars(exchanges)
        return Switch(
            clones=(*places, *(_clone(each, copy) for each, copy in zip(exchanges, copies, strict=True))),
            bar=(Bar(*bars),) if bars else (),
            exchange=(
                *unmounts,
                *exchanges,
                *(Mount(**fields_of(each)) for each in reversed(unmounts)),
            ),
            unbar=(Unbar(*bars),) if bars else (),
            seal=tuple(Seal(e.filesystem, e.source, e.owner, e.session, e.name, e.live_uuid) for e in exchanges),
            aside=tuple(self.copy(v, session, {"subvolume_uuid": v.facts["subvolume_uuid"]}) for v in live),
        )

    def fill_effect(self, volume: Volume, session: str, origin: str, digest: str) -> Fill:
        """Plan a subvolume beside the live one that is filled from a full copy."""
        return Fill(*_where(volume), self._owner, session, volume.name, origin, digest)

    def _exchange(self, copy: ShadowCopy, volume: Volume, session: str) -> Exchange:
        return Exchange(
            *_where(volume), self._owner, session, volume.name, str(copy.facts["subvolume_uuid"]),
            str(volume.facts["subvolume"]), str(volume.facts["subvolume_uuid"]),
        )  # fmt: skip

    # -- keeping ---------------------------------------------------------------------------------------------------

    def delete_effect(self, copies: Sequence[ShadowCopy], session: str) -> Delete:
        """Plan to delete the copies and then the directories that held them."""
        mine = self._mine(copies)
        where = [_where(copy.volume) for copy in mine]
        return Delete(
            owner=self._owner,
            session=session,
            filesystems=tuple(filesystem for filesystem, _ in where),
            sources=tuple(source for _, source in where),
            names=tuple(os.path.basename(copy.place) for copy in mine),
            uuids=tuple(str(copy.facts["subvolume_uuid"]) for copy in mine),
        )

    def find(self) -> Sequence[FoundReplica]:
        """Every directory with our tag, once for each filesystem that is mounted in our namespace.

        A filesystem that cannot be read now is passed over: a broken disk must not stand in the way of all others.
        """
        found: list[FoundReplica] = []
        if os.geteuid() != 0:
            return found  # only root can look, and only root has made any
        with explained("looking for replicas"):
            for superblock, filesystem in mounted().items():
                try:
                    with btrfs.top_level(filesystem, read_only=True) as top:
                        place_of = partial(BtrfsPlace, filesystem, "", self._owner)
                        found += self._found(top, superblock, place_of, _subvolumes)
                except OSError as e:
                    if e.errno in (errno.EPERM, errno.EACCES):
                        raise
        return found

    def _place(self, copy: ShadowCopy) -> BtrfsPlace:
        return BtrfsPlace(*_where(copy.volume), self._owner, copy.place.split("/")[1])

    def _manual(self, document: BackupComponents, place: Place, copies: list[ShadowCopy]) -> str:
        return manual(document, place.filesystem, copies)

    def _told(self, what: str, data: str = "") -> AbstractContextManager[None]:
        return explained(what, data)


def _subvolumes(place: int) -> list[str]:
    """What of a place's directory is a copy."""
    return [name for name in os.listdir(place) if btrfs.subvolume_at(name, place)]


def _where(volume: Volume) -> tuple[str, str]:
    """Filesystem and device of a volume, with which every effect begins."""
    return str(volume.facts["filesystem"]), str(volume.facts["source"])


def _volume(path: str, mount: mounts.Mount) -> Volume:
    root = path
    while root != mount.target and os.stat(root).st_ino != btrfs.ROOT_INODE:
        root = os.path.dirname(root)
    fd = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        filesystem, found = btrfs.filesystem_of(fd), btrfs.subvolume(fd)
        inner = "" if os.fstat(fd).st_ino == btrfs.ROOT_INODE else _inner(fd)
    finally:
        os.close(fd)
    within = os.path.normpath(os.path.join(mount.root, os.path.relpath(root, mount.target)))
    subvolume = within.removesuffix(inner).strip("/")
    table = [m for m in mounts.read() if m.superblock == mount.superblock]
    shown = [m.target for m in table if m.root == f"/{subvolume}"]
    if inner:
        root = _reached(subvolume, found.uuid, table) or root
    return Volume(
        provider="btrfs",
        id=f"btrfs:{filesystem}:{subvolume}",
        name=name_of(subvolume),
        path=root,
        superblock=mount.superblock,
        facts={
            "filesystem": filesystem,
            "source": loops.backing_file(mount.source) or mount.source,
            "subvolume": subvolume,
            "subvolume_uuid": found.uuid,
            "subvolume_id": found.id,
            "mounted": bool(shown),
            "mount_point": root if root in shown else (shown or [""])[-1],
        },
    )


def _inner(fd: int) -> str:
    """For a bind mount of a part of a subvolume: the part's path inside it, with a slash before."""
    if os.path.isdir(f"/proc/self/fd/{fd}"):
        return "/" + btrfs.path_within(fd)
    return ""


def _reached(subvolume: str, uuid: str, table: Iterable[mounts.Mount]) -> str:
    """Another path at which a subvolume's root can be reached; empty for none."""
    for mount in table:
        if mounts.inside(f"/{subvolume}", mount.root):
            path = os.path.normpath(os.path.join(mount.target, os.path.relpath(f"/{subvolume}", mount.root)))
            found = btrfs.subvolume_at(path)
            if found is not None and found.uuid == uuid:
                return path
    return ""


def _mounted(volumes: Sequence[Volume]) -> list[Unmount]:
    """The effects that take the mounts of the volumes away, innermost first."""
    table = mounts.read()
    shown = [
        (volume, mount)
        for mount in reversed(table)
        for volume in volumes
        if (mount.superblock, mount.root) == (volume.superblock, f"/{volume.facts['subvolume']}")
    ]
    shown.sort(key=lambda pair: len(pair[1].target), reverse=True)
    targets = [mount.target for _, mount in shown]
    return [
        Unmount(
            *_where(volume),
            subvolume=str(volume.facts["subvolume"]),
            live_uuid=str(volume.facts["subvolume_uuid"]),
            target=mount.target,
            options=_options(mount),
            inner=tuple(t for t in targets if t != mount.target and mounts.inside(t, mount.target)),
        )
        for volume, mount in shown
    ]


def _options(mount: mounts.Mount) -> tuple[str, ...]:
    """What to mount with again: the mount's own options, then the filesystem's, without where it is."""
    shared = (o for o in mount.super_options if o not in ("ro", "rw") and not o.startswith(("subvol=", "subvolid=")))
    return (*mount.options, *shared)


def _clone(exchange: Exchange, copy: ShadowCopy) -> Clone:
    e = exchange
    return Clone(
        e.filesystem, e.source, e.owner, e.session, e.name, e.copy_uuid, e.live, e.live_uuid, copy.place
    )  # fmt: skip


def _bars(exchanges: Sequence[Exchange]) -> tuple[tuple[str, ...], ...]:
    """The fields of the bar over several exchanges."""
    rows = [(e.filesystem, e.source, e.live, e.path(e.name), e.live_uuid) for e in exchanges]
    return tuple(zip(*rows, strict=True))
