# SPDX-License-Identifier: Apache-2.0
"""A provider of directories: copied file by file, beside on the same filesystem, and exchanged by one rename.

What is made before the window is made once more in it, but only of what changed since (`mirror`). A subclass says what
its files can, which filesystems it is for, and by which names journals know its effects.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from slackwater.errors import NotFoundError, RefusedError, RightsError
from slackwater.model.facts import Facts, Finding
from slackwater.model.replica import BackupComponents, FoundReplica
from slackwater.model.storage import MountOrder, Room, ShadowCopy, Take, Volume
from slackwater.providers import contract
from slackwater.providers._bars import BarEffect, UnbarEffect
from slackwater.providers._btrfs.room import room_of
from slackwater.providers._copying import begin
from slackwater.providers._keeping import Keeping, directories
from slackwater.providers._places import Place, name_of, read_tag
from slackwater.providers._trees import checks, effects, find
from slackwater.providers._trees.commit import Commit, Session
from slackwater.providers._trees.manifest import manifest
from slackwater.providers._trees.manual import manual
from slackwater.providers._trees.mirror import TICK_S, Mirror, scope_of
from slackwater.providers._trees.places import TreePlace, explained, found
from slackwater.system import btrfs, filesystems, loops, mounts

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Kinds:
    """The effects of a provider."""

    place: type[effects.MakePlace]
    snapshot: type[effects.Snapshot]
    fill: type[effects.Fill]
    clone: type[effects.Clone]
    exchange: type[effects.Exchange]
    seal: type[effects.Seal]
    delete: type[effects.Delete]
    bar: type[BarEffect]
    unbar: type[UnbarEffect]


class TreeProvider(Keeping):
    """Copies of directories."""

    kinds: ClassVar[Kinds]
    shares: ClassVar[bool]
    """Files share their extents, so that a copy takes no room until one of both is written to."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self._open: dict[str, Session] = {}

    # -- looking ---------------------------------------------------------------------------------------------------

    def volume_of(self, path: str) -> Volume | None:
        """The directory itself, or that of a file; None on a filesystem that this provider is not for.

        Raises:
            NotFoundError: there is no such path.
            RightsError: it cannot be looked at without root.
        """
        real = os.path.realpath(path)
        with explained(f"looking at {path}"):
            try:
                real = real if stat.S_ISDIR(os.stat(real).st_mode) else os.path.dirname(real)
                mount = mounts.mount_of(real)
                return self._volume(real, mount) if mount is not None else None
            except FileNotFoundError as e:
                raise NotFoundError(f"There is no {path}.", data="Nothing was changed.") from e

    def check_backup(self, volume: Volume, trees: Sequence[str], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        """What would be missing in a copy, or make it fail; codes are those of `_trees/checks`."""
        with explained(f"checking {volume.path}"):
            return checks.backup(volume, trees, beside, self._owner)

    def check_recovery(self, volume: Volume, pids: frozenset[int], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        """What would not follow an exchange; codes are those of `_trees/checks`."""
        with explained(f"checking {volume.path}"):
            return checks.recovery(volume, pids)

    def room(self, volume: Volume) -> Room:
        """What statfs(2) says is free for users; for Btrfs see `_btrfs/room`."""
        with explained(f"reading the room of {volume.path}"):
            fd = os.open(volume.path, DIRECTORY)
            try:
                if volume.facts["fstype"] == "btrfs":
                    return room_of(btrfs.allocation(fd))
                told = os.fstatvfs(fd)
                return Room(told.f_blocks * told.f_frsize, told.f_bavail * told.f_frsize)
            finally:
                os.close(fd)

    # -- backup ----------------------------------------------------------------------------------------------------

    def place_effect(self, volume: Volume, session: str) -> effects.MakePlace:
        """Plan the directory of the session; the same for all volumes of a filesystem."""
        return self.kinds.place(*self._where(volume, session))

    def snapshot_effect(self, volume: Volume, session: str) -> effects.Snapshot:
        """Plan the copy."""
        return self.kinds.snapshot(
            *self._where(volume, session), volume.name, str(volume.facts["live"]), str(volume.facts["identity"])
        )

    @contextmanager
    def open(self, take: Take, session: str) -> Iterator[contract.Commit]:
        """Copy everything once, and what can be shared once more; what is left is what changes until then.

        Raises:
            SlackwaterError: the place is missing or not ours, or the volume is another than it was.
        """
        volume, effect = take.volume, self.snapshot_effect(take.volume, session)
        scope = scope_of(volume.path, take.trees, take.without, take.last)
        with ExitStack() as opened:
            with explained(f"preparing the copy of {volume.path}", "The live data was not touched."):
                top = opened.enter_context(effect.top())
                place = opened.enter_context(effect.required(top))
                begin()
                source, target = opened.enter_context(effect.begun(top, place))
                mirror = Mirror(source, target, str(volume.facts["fstype"]), scope, shares=self.shares)
                mirror.copy()
                if not mirror.settled:
                    time.sleep(TICK_S)
                if self.shares:  # else it would be copied a second time where the third is what counts
                    mirror.copy()
            group = self._open.setdefault(session, Session())
            commit = Commit(volume, mirror, group, take.patient)
            group.commits.append(commit)
            try:
                yield commit
            finally:
                group.commits.remove(commit)
                if not group.commits:
                    self._open.pop(session, None)

    def copy(self, volume: Volume, session: str, facts: Facts) -> ShadowCopy:
        """Describe the copy that was made."""
        return ShadowCopy(volume, TreePlace(*self._where(volume, session)).path(volume.name), facts)

    # -- copies ----------------------------------------------------------------------------------------------------

    @contextmanager
    def reach(self, copy: ShadowCopy) -> Iterator[str]:
        """A path to the root of a copy (read-only, where root reaches it) or clone (writable), good in this process.

        Raises:
            NotFoundError: it is gone.
        """
        place = self._place(copy)
        with ExitStack() as opened:
            with explained(f"reaching {copy.place}", "Nothing was changed."):
                with place.top(read_only=True) as top, found(copy.place, top) as fd:
                    if fd is None:
                        raise self._gone(copy)
                    writable = read_tag(fd, "clone") == place.session and read_tag(fd, "kept") is None
                top = opened.enter_context(place.top(read_only=not writable))
            yield f"/proc/self/fd/{top}/{copy.place}"

    def clone_effect(self, copy: ShadowCopy, session: str) -> effects.Clone:
        """Plan a clone of a copy that takes nobody's place."""
        return self.kinds.clone(
            *self._where(copy.volume, session), copy.volume.name, str(copy.facts["identity"]),
            live="", live_identity="", copy=copy.place,
        )  # fmt: skip

    def mount_order(self, copy: ShadowCopy) -> MountOrder:
        """The directory, bound from where the filesystem is mounted.

        Raises:
            NotFoundError: it is gone.
            RefusedError: the filesystem is mounted only in parts that do not show it.
        """
        place = self._place(copy)
        with explained(f"looking for {copy.place}"), place.top(read_only=True) as top, found(copy.place, top) as fd:
            if fd is None:
                raise self._gone(copy)
        inner = place.inner(copy.place)
        mount = filesystems.mount_with(place.filesystem, place.fstype, inner)
        if mount is None:
            raise RefusedError(
                f"{place.where} is mounted only in parts, none of which shows {inner}.",
                data="Nothing was changed.",
                hint=f"Mount its top somewhere: mount UUID={place.filesystem} /mnt",
                code="not-reachable",
            )
        path = os.path.normpath(os.path.join(mount.target, os.path.relpath(inner, mount.root)))
        return MountOrder("none", path, inner, ("bind",))

    def mounted_at(self, copy: ShadowCopy) -> Sequence[str]:
        """Where our namespace shows it; its path, which holds the session's id, is no other filesystem's."""
        place = self._place(copy)
        inner = place.inner(copy.place)
        return tuple(m.target for m in mounts.read() if m.fstype == place.fstype and mounts.inside(m.root, inner))

    def altered(self, copy: ShadowCopy) -> str:
        """Why it is not the copy that was made, by what stat(2) says of everything in it."""
        with (
            explained(f"looking at {copy.place}"),
            self._place(copy).top(read_only=True) as top,
            found(copy.place, top) as fd,
        ):
            if fd is None:
                return "it is gone"
            if filesystems.identity(fd) != copy.facts.get("identity"):
                return "another directory lies in its place"
            if "manifest" in copy.facts and manifest(fd).digest != copy.facts["manifest"]:
                return "something in it was written, replaced or removed after it was made"
        return ""

    # -- recovery --------------------------------------------------------------------------------------------------

    def switch(
        self, copies: Sequence[ShadowCopy], live: Sequence[Volume], session: str, *, alone: bool = True
    ) -> contract.Switch:
        """Plan the clones, the exchange and the seal.

        Raises:
            RefusedError: a copy lies on another filesystem than the volume it is to replace.
            RightsError: several volumes, and we are not root.
        """
        pairs = list(zip(copies, live, strict=True))
        for copy, volume in pairs:
            place = self._place(copy)
            if (place.filesystem, place.base) != (volume.facts["filesystem"], volume.facts["base"]):
                raise RefusedError(
                    f"{copy.place} lies on {place.where}, and {volume.path} does not: nothing can be switched there.",
                    data="Nothing was changed.",
                    hint=f"Mount that filesystem at {volume.path}.",
                    code="other-filesystem",
                )
        exchanges = [self._exchange(copy, volume, session) for copy, volume in pairs]
        if os.geteuid() != 0 and not (alone and len(exchanges) == 1):
            raise RightsError(
                "Several volumes are exchanged one after the other, and only root can keep everybody out meanwhile.",
                data="Nothing was changed.",
                hint="Run it with sudo.",
            )
        bars = None if alone and len(exchanges) == 1 else _bars(exchanges)
        return contract.Switch(
            clones=(
                *dict.fromkeys(self.place_effect(volume, session) for volume in live),
                *(_clone(self.kinds.clone, each, copy) for each, copy in zip(exchanges, copies, strict=True)),
            ),
            bar=(self.kinds.bar(*bars),) if bars else (),
            exchange=tuple(exchanges),
            unbar=(self.kinds.unbar(*bars),) if bars else (),
            seal=tuple(self.kinds.seal(*self._where(v, session), v.name, str(v.facts["identity"])) for v in live),
            aside=tuple(self.copy(v, session, {"identity": v.facts["identity"]}) for v in live),
        )

    def fill_effect(self, volume: Volume, session: str, origin: str, digest: str) -> effects.Fill:
        """Plan a directory beside the live one that is filled from a full copy."""
        return self.kinds.fill(*self._where(volume, session), volume.name, origin, digest)

    def _exchange(self, copy: ShadowCopy, volume: Volume, session: str) -> effects.Exchange:
        return self.kinds.exchange(
            *self._where(volume, session), volume.name, str(copy.facts["identity"]),
            str(volume.facts["live"]), str(volume.facts["identity"]),
        )  # fmt: skip

    # -- keeping ---------------------------------------------------------------------------------------------------

    def delete_effect(self, copies: Sequence[ShadowCopy], session: str) -> effects.Delete:
        """Plan to delete the copies and then the directories that held them."""
        mine = [copy for copy in copies if copy.provider == self.name]
        places = [self._place(copy) for copy in mine]
        return self.kinds.delete(
            owner=self._owner,
            session=session,
            filesystems=tuple(each.filesystem for each in places),
            sources=tuple(each.source for each in places),
            fstypes=tuple(each.fstype for each in places),
            bases=tuple(each.base for each in places),
            names=tuple(os.path.basename(copy.place) for copy in mine),
            identities=tuple(str(copy.facts["identity"]) for copy in mine),
        )

    def find(self) -> Sequence[FoundReplica]:
        """Every directory with our tag, once for each filesystem that is mounted in our namespace.

        A filesystem that cannot be read now is passed over: a broken disk must not stand in the way of all others.
        """
        result: list[FoundReplica] = []
        with explained("looking for replicas"):
            for place, superblock in self._bases().items():
                try:
                    with place.top(read_only=True) as top:
                        result += self._found(top, superblock, partial(_of_session, place), directories)
                except OSError as e:
                    # In a container most mounts are of an ext4 of its host's, which nobody may mount there.
                    if e.errno in (errno.EPERM, errno.EACCES) and self.shares:
                        raise
        return result

    # -- small things ----------------------------------------------------------------------------------------------

    def _bases(self) -> dict[TreePlace, str]:
        """Where replicas of ours may lie."""
        return find.bases(self._owner, shares=self.shares)

    def _where(self, volume: Volume, session: str) -> tuple[str, str, str, str, str, str]:
        """What every effect begins with."""
        facts = volume.facts
        return (
            str(facts["filesystem"]), str(facts["source"]), self._owner, session, str(facts["fstype"]),
            str(facts["base"]),
        )  # fmt: skip

    def _place(self, copy: ShadowCopy) -> TreePlace:
        return TreePlace(*self._where(copy.volume, copy.place.split("/")[-2]))

    def _manual(self, document: BackupComponents, place: Place, copies: list[ShadowCopy]) -> str:
        return manual(document, self._place(copies[0]), copies)

    def _told(self, what: str, data: str = "") -> AbstractContextManager[None]:
        return explained(what, data)

    def _volume(self, path: str, mount: mounts.Mount) -> Volume | None:
        fd = os.open(path, DIRECTORY)
        try:
            filesystem = filesystems.filesystem_of(fd, mount.fstype)
            if filesystem is None or filesystem.shares is not self.shares:
                return None
            base = find.base_of(path, mount, fd)
            if base is None:
                return None
            identity = filesystems.identity(fd)
        finally:
            os.close(fd)
        inner = find.inner_of(path, mount)
        return Volume(
            provider=self.name,
            id=f"{self.name}:{filesystem.uuid}:{inner}",
            name=name_of(inner),
            path=path,
            superblock=mount.superblock,
            facts={
                "filesystem": filesystem.uuid,
                "fstype": filesystem.fstype,
                "source": loops.backing_file(mount.source) or mount.source,
                "inner": inner,
                "base": base,
                "live": inner.removeprefix(base).strip("/"),
                "identity": identity,
            },
        )


def _of_session(place: TreePlace, session: str) -> TreePlace:
    return replace(place, session=session)


def _clone(kind: type[effects.Clone], exchange: effects.Exchange, copy: ShadowCopy) -> effects.Clone:
    e = exchange
    return kind(
        e.filesystem, e.source, e.owner, e.session, e.fstype, e.base, e.name, e.copy_identity, e.live,
        e.live_identity, copy.place,
    )  # fmt: skip


def _bars(exchanges: Sequence[effects.Exchange]) -> tuple[tuple[str, ...], ...]:
    """The fields of the bar over several exchanges."""
    rows = [(e.filesystem, e.source, e.fstype, e.base, e.live, e.path(e.name), e.live_identity) for e in exchanges]
    return tuple(zip(*rows, strict=True))
