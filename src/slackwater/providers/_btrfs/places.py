# SPDX-License-Identifier: Apache-2.0
"""Where replicas lie on a Btrfs: at the top level, reached by a mount that nobody else sees."""

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.providers import _places
from slackwater.providers._effects import Beside
from slackwater.system import btrfs, mounts, processes
from slackwater.system.btrfs import Subvolume

_HINTS = {
    errno.ENOSPC: "Make room: delete replicas, or see `btrfs filesystem usage` and balance.",
    errno.EROFS: "The filesystem is read-only: see the kernel's log for why, and mount it writable.",
    errno.ETXTBSY: "An active swap file lies on it: swapoff it, or move it to a subvolume of its own.",
    errno.EPERM: "It may be the default subvolume: see `btrfs subvolume get-default`.",
    errno.ENOTEMPTY: "It holds further subvolumes: see `btrfs subvolume list`.",
}


@dataclass(frozen=True, slots=True)
class BtrfsPlace(Beside):
    """A session's directory at the top level of one Btrfs."""

    noun: ClassVar[str] = "subvolume"
    shown_by: ClassVar[str] = "btrfs subvolume show"

    @property
    def where(self) -> str:
        """The filesystem, in words."""
        return f"the Btrfs {self.filesystem}"

    @contextmanager
    def top(self, *, read_only: bool = False) -> Iterator[int]:
        """A descriptor of the filesystem's top level."""
        with btrfs.top_level(self.filesystem, self.source, read_only=read_only) as fd:
            yield fd

    def settle(self, top: int) -> None:
        """Wait for the transaction."""
        btrfs.commit(top)

    def told(self, what: str, data: str = "") -> AbstractContextManager[None]:
        """See `explained`."""
        return explained(what, data)

    def identity_at(self, path: str, folder: int) -> str | None:
        """The subvolume's UUID."""
        found = btrfs.subvolume_at(path, folder)
        return None if found is None else found.uuid

    def facts_at(self, path: str, folder: int) -> Facts:
        """What the kernel says of the subvolume."""
        found = btrfs.subvolume_at(path, folder)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return facts_of(found)

    def remove(self, name: str, place: int) -> None:
        """Delete a subvolume; a making or removal of one is never half done."""
        if btrfs.subvolume_at(name, place) is not None:
            btrfs.delete(place, name)

    def refuse_mounted(self, path: str) -> None:
        """The kernel lets a mounted subvolume be deleted or renamed."""
        if where := mounted_in(self.filesystem, path):
            raise RefusedError(
                f"The subvolume {path} is mounted at {', '.join(where)}.",
                data="It was left as it is.",
                hint=f"umount {where[0].partition(' ')[0]}",
                code="mounted",
            )

    def refuse_held(self, top: int, path: str) -> None:
        """A process keeps what it has open over an exchange."""
        held = processes.lasting_holders(os.stat(path, dir_fd=top).st_dev)
        if held:
            raise RefusedError(
                f"{held[0].command} (pid {held[0].pid}) holds {held[0].path} on the subvolume {path}.",
                data="It was left as it is.",
                hint=f"Stop it (kill {held[0].pid}, or the service it belongs to), then: slackwater reconcile",
                code="held",
            )


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


def set_read_only(place: int, name: str, *, read_only: bool) -> None:
    """Take or give the right to write to a subvolume in a directory."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    try:
        btrfs.set_read_only(fd, read_only=read_only)
    finally:
        os.close(fd)


def mounted_in(filesystem: str, path: str) -> list[str]:
    """Where a path of the filesystem, or something below it, is mounted, in any mount namespace, in words."""
    found = []
    own = mounts.own_namespace()
    for space in mounts.namespaces():
        blocks: dict[str, bool] = {}
        for mount in space.mounts:
            if mount.fstype == "btrfs" and mounts.inside(mount.root, f"/{path}"):
                if mount.superblock not in blocks:
                    blocks[mount.superblock] = _is(filesystem, space, mount)
                if blocks[mount.superblock]:
                    where = "" if space.inode == own else f" in the mount namespace of process {min(space.pids)}"
                    found.append(mount.target + where)
    return found


def _is(filesystem: str, space: mounts.Namespace, mount: mounts.Mount) -> bool:
    """Whether a mount shows this filesystem; when its target cannot be reached, its device has to tell."""
    try:
        fd = os.open(f"/proc/{min(space.pids)}/root{mount.target}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return btrfs.filesystem_of(fd) == filesystem
        finally:
            os.close(fd)
    except OSError:
        return os.path.realpath(mount.source) in btrfs.devices_of(filesystem)


def mounted() -> dict[str, str]:
    """Superblock and UUID of every Btrfs mounted in our namespace."""
    found: dict[str, str] = {}
    for mount in mounts.read():
        if mount.fstype == "btrfs" and mount.superblock not in found:
            try:
                fd = os.open(mount.target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue  # hidden below another mount, or a file: another mount of the same will do
            try:
                found[mount.superblock] = btrfs.filesystem_of(fd)
            except OSError:
                continue  # something else is mounted over it
            finally:
                os.close(fd)
    return found


def explained(what: str, data: str = "") -> AbstractContextManager[None]:
    """See `_places.explained`."""
    return _places.explained(what, data, _HINTS)
