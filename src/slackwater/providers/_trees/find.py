# SPDX-License-Identifier: Apache-2.0
"""Where the places of a filesystem can be: at its top, in a subvolume, or without root in what is the user's own."""

import os
from contextlib import suppress

from slackwater.providers._trees.places import TreePlace
from slackwater.system import filesystems, loops, mounts


def base_of(path: str, mount: mounts.Mount, fd: int) -> str | None:
    """Where the copies lie: at the filesystem's top; on Btrfs in the subvolume, since no rename leaves it.

    Without root in the user's home, or at the top of a mount that is the user's. None where replicas could not be found
    again: a Btrfs whose subvolume is not mounted by itself, and without root any other place.
    """
    if os.geteuid() != 0:
        tops = (top for top in _own_tops() if mounts.inside(path, top))
        return next((inner_of(t, mount) for t in tops if (m := mounts.mount_of(t)) and m.id == mount.id), None)
    if mount.fstype != "btrfs":
        return ""
    if os.fstat(fd).st_dev != os.stat(mount.target).st_dev:
        return None
    return _subvolume(mount)


def _own_tops() -> list[str]:
    """The directories in which we keep copies without root: those of them that are ours."""
    candidates = [os.path.realpath(os.path.expanduser("~")), *(mount.target for mount in mounts.read())]
    own = []
    for path in dict.fromkeys(candidates):
        with suppress(OSError):
            if os.stat(path).st_uid == os.geteuid():
                own.append(path)
    return own


def inner_of(path: str, mount: mounts.Mount) -> str:
    """A path inside its filesystem, from the filesystem's top."""
    return os.path.normpath(os.path.join(mount.root, os.path.relpath(path, mount.target))).strip("/")


def _subvolume(mount: mounts.Mount) -> str:
    options = (option.partition("=") for option in mount.super_options)
    return next((value.strip("/") for name, _, value in options if name == "subvol"), "")


def bases(owner: str, *, shares: bool) -> dict[TreePlace, str]:
    """Every directory of this host that may hold replicas of ours, and the superblock of its filesystem.

    Args:
        owner: whose.
        shares: whether on the filesystems whose files can share extents, or on the others.
    """
    root = os.geteuid() == 0
    tops = [(mount.target, mount) for mount in mounts.read()] if root else _mounted_tops()
    kinds = filesystems.on_disks()
    result: dict[TreePlace, str] = {}
    for path, mount in tops:
        if mount.fstype in kinds:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue  # hidden below another mount: another mount of the same will do
            try:
                filesystem = filesystems.filesystem_of(fd, mount.fstype)
            finally:
                os.close(fd)
            if filesystem is not None and filesystem.shares is shares:
                base = inner_of(path, mount) if not root else _subvolume(mount) if mount.fstype == "btrfs" else ""
                source = loops.backing_file(mount.source) or mount.source
                place = TreePlace(filesystem.uuid, source, owner, "", mount.fstype, base)
                result.setdefault(place, mount.superblock)
    return result


def _mounted_tops() -> list[tuple[str, mounts.Mount]]:
    return [(path, mount) for path in _own_tops() if (mount := mounts.mount_of(path)) is not None]
