# SPDX-License-Identifier: Apache-2.0
"""Filesystems on disks: which one a path lies on, its top on a mount of our own, and what no other file of it bears.

Numbers and structures are those of `fs.h` and `ext4.h` of Linux. Everything raises OSError when the kernel refuses.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from slackwater.system import btrfs, files, mounts, xfs

_GETVERSION, _GETFLAGS = 0x80087601, 0x80086601
_GETFSUUID, _EXT4_GETFSUUID = 0x80111500, 0x8008662C
_ENCRYPTED = 0x00000800


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A filesystem that is known again by its UUID, and whose files by their identity."""

    fstype: str
    uuid: str
    shares: bool
    """Its files can share extents."""


def filesystem_of(fd: int, fstype: str) -> Filesystem | None:
    """The filesystem of this type that a descriptor lies on; None where it could not be known again. Writes nothing."""
    try:
        if fstype == "btrfs":
            return Filesystem(fstype, btrfs.filesystem_of(fd), shares=True)
        if fstype == "xfs":
            found = xfs.geometry(fd)
            return Filesystem(fstype, found.uuid, found.reflink)
        if fstype not in on_disks():
            return None
        identity(fd)
        return Filesystem(fstype, _uuid(fd), shares=False)
    except OSError:
        return None  # something else is mounted there, or the kernel cannot tell


def on_disks() -> frozenset[str]:
    """The types of filesystems that have a disk (/proc/filesystems: not `nodev`); those of a network could hang."""
    with open("/proc/filesystems", encoding="ascii") as f:
        return frozenset(line.split()[-1] for line in f if not line.startswith("nodev"))


def _uuid(fd: int) -> str:
    """By FS_IOC_GETFSUUID (Linux 6.9), or by that of ext4 (Linux 6.0)."""
    told = bytearray(17)
    try:
        fcntl.ioctl(fd, _GETFSUUID, told)
        return str(UUID(bytes=bytes(told[1:17])))
    except OSError:
        told = bytearray(struct.pack("=II16x", 16, 0))
        fcntl.ioctl(fd, _EXT4_GETFSUUID, told)
        return str(UUID(bytes=bytes(told[8:24])))


def mount_with(filesystem: str, fstype: str, inner: str = "") -> mounts.Mount | None:
    """A mount of our namespace that shows this path of a filesystem.

    Args:
        filesystem: its UUID.
        fstype: its type.
        inner: a path inside it, with a slash before; empty for any part.
    """
    for mount in mounts.read():
        if mount.fstype == fstype and (not inner or mounts.inside(inner, mount.root)):
            try:
                fd = os.open(mount.target, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue  # hidden below another mount: another mount of the same will do
            try:
                found = filesystem_of(fd, fstype)
            finally:
                os.close(fd)
            if found is not None and found.uuid == filesystem:
                return mount
    return None


@contextmanager
def top_level(mount: mounts.Mount, filesystem: str, *, read_only: bool = False) -> Iterator[int]:
    """A descriptor of the top of a mounted filesystem, on a mount that nobody else sees and that ends with us.

    Args:
        mount: any mount that shows a part of it.
        filesystem: its UUID.
        read_only: for looking only.

    Raises:
        OSError: it is mounted no more, or we are not root.
    """
    # A mount of a device that is mounted shares its superblock, which has to be asked for as it is (else EBUSY).
    frozen = "ro" in mount.super_options
    with mounts.detached(
        mount.fstype, _device(mount), {}, read_only=read_only or frozen, superblock_read_only=frozen
    ) as fd:  # fmt: skip
        found = filesystem_of(fd, mount.fstype)
        if found is None or found.uuid != filesystem:
            raise OSError(errno.ENODEV, f"{mount.source} carries another filesystem than {filesystem}")
        yield fd


def commit(fd: int, fstype: str) -> None:
    """Wait until all names that were changed up to now are on the disk.

    Args:
        fd: a directory.
        fstype: its filesystem's type.
    """
    {"btrfs": btrfs.commit, "xfs": xfs.commit}.get(fstype, files.write_back)(fd)


def identity(fd: int) -> str:
    """What no other file of the filesystem ever bears: inode number and generation; kept over renames and reboots."""
    told = bytearray(8)
    fcntl.ioctl(fd, _GETVERSION, told)
    return f"{os.fstat(fd).st_ino}:{struct.unpack_from('=I', told)[0]}"


def encrypted(fd: int) -> bool:
    """Whether what is written to a directory is encrypted (fscrypt): a copy elsewhere would not be."""
    told = bytearray(8)
    try:
        fcntl.ioctl(fd, _GETFLAGS, told)
    except OSError:
        return False
    return bool(struct.unpack_from("=I", told)[0] & _ENCRYPTED)


def _device(mount: mounts.Mount) -> str:
    """The device by the kernel's name for it: what mountinfo shows is what was typed, and may lead elsewhere now."""
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{mount.superblock}")).replace("!", "/")
    return f"/dev/{name}" if os.path.exists(f"/dev/{name}") else mount.source
