# SPDX-License-Identifier: Apache-2.0
"""Btrfs as the kernel offers it: subvolumes, snapshots, room, by ioctl(2); no program of btrfs-progs is needed.

Numbers and structures are those of `linux/btrfs.h` and `linux/btrfs_tree.h`. Descriptors are of directories; names are
single path components unless said otherwise. Everything raises OSError when the kernel refuses.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from uuid import UUID

from slackwater.system import loops, mounts

#: Every subvolume's root directory has this inode number (BTRFS_FIRST_FREE_OBJECTID).
ROOT_INODE = 256
#: The subvolume that a filesystem is made with (BTRFS_FS_TREE_OBJECTID).
TOP_LEVEL = 5
_SNAP_CREATE_V2, _SUBVOL_CREATE_V2, _SNAP_DESTROY = 0x50009417, 0x50009418, 0x5000940F
_START_SYNC, _WAIT_SYNC = 0x80089418, 0x40089416
_GET_FLAGS, _SET_FLAGS = 0x80089419, 0x4008941A
_FS_INFO, _DEV_INFO, _SPACE_INFO = 0x8400941F, 0xD000941E, 0xC0109414
_SUBVOL_INFO, _SUBVOL_ROOTREF = 0x81F8943C, 0xD000943D
_INO_LOOKUP, _INO_LOOKUP_USER, _TREE_SEARCH = 0xD0009412, 0xD000943E, 0xD0009411
_READ_ONLY = 2  # BTRFS_SUBVOL_RDONLY
_ROOT_READ_ONLY = 1  # BTRFS_ROOT_SUBVOL_RDONLY


@dataclass(frozen=True, slots=True)
class Subvolume:
    """What the kernel says of a subvolume (BTRFS_IOC_GET_SUBVOL_INFO)."""

    id: int
    uuid: str
    parent_uuid: str
    """Of the subvolume it is a snapshot of; empty for none."""
    read_only: bool
    generation: int
    """Moves when its tree is rewritten, which also being cloned does: says nothing about being altered."""
    changed: int
    """Transaction that last changed a file in it (ctransid); settled once that transaction is committed."""
    made: int
    """Transaction that made it (otransid)."""


@dataclass(frozen=True, slots=True)
class Space:
    """Chunks of one kind (BTRFS_IOC_SPACE_INFO)."""

    flags: int
    total_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Allocation:
    """How a filesystem's devices are given out to chunks."""

    devices: tuple[tuple[int, int], ...]
    """For each device, bytes in all and bytes given out."""
    spaces: tuple[Space, ...]


@contextmanager
def top_level(filesystem: str, source: str = "", *, read_only: bool = False) -> Iterator[int]:
    """A descriptor of the filesystem's top level, on a mount that nobody else sees and that ends with us.

    Args:
        filesystem: its UUID.
        source: a device on which it was last seen, or the file behind a loop device, for a filesystem that is not
            mounted.
        read_only: for looking only.

    Raises:
        OSError: no device with this filesystem, or not root.
    """
    device = device_of(filesystem, source)
    with (
        loops.attached(device) if os.path.isfile(device) else nullcontext(device) as device,
        mounts.detached("btrfs", device, {"subvolid": str(TOP_LEVEL)}, read_only=read_only) as fd,
    ):
        if filesystem_of(fd) != filesystem:
            raise OSError(errno.ENODEV, f"{device} carries another filesystem than {filesystem}")
        yield fd


def device_of(filesystem: str, source: str = "") -> str:
    """A device that carries the filesystem now: as the kernel knows it, as udev does, or `source`."""
    if devices := devices_of(filesystem):
        return devices[0]
    link = f"/dev/disk/by-uuid/{filesystem}"
    return os.path.realpath(link) if os.path.exists(link) else source


def devices_of(filesystem: str) -> tuple[str, ...]:
    """All devices of a filesystem that is mounted, in whatever namespace; empty when it is not."""
    try:
        names = os.listdir(f"/sys/fs/btrfs/{filesystem}/devices")
    except OSError:
        return ()
    return tuple("/dev/" + name.replace("!", "/") for name in sorted(names))  # sysfs cannot have a slash in a name


def filesystem_of(fd: int) -> str:
    """The UUID of the filesystem, the same for all its subvolumes and devices."""
    return str(UUID(bytes=bytes(_ask(fd, _FS_INFO, bytearray(1024))[16:32])))


def subvolume(fd: int) -> Subvolume:
    """Describe the subvolume that a descriptor lies on."""
    told = _ask(fd, _SUBVOL_INFO, bytearray(504))
    generation, flags = struct.unpack_from("=QQ", told, 280)
    changed, made = struct.unpack_from("=QQ", told, 344)
    parent = bytes(told[312:328])
    return Subvolume(
        id=struct.unpack_from("=Q", told, 0)[0],
        uuid=str(UUID(bytes=bytes(told[296:312]))),
        parent_uuid=str(UUID(bytes=parent)) if any(parent) else "",
        read_only=bool(flags & _ROOT_READ_ONLY),
        generation=generation,
        changed=changed,
        made=made,
    )


def subvolume_at(path: str, dir_fd: int | None = None) -> Subvolume | None:
    """Describe the subvolume whose root is at a path; None when there is nothing, or no root of a subvolume."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return subvolume(fd) if os.fstat(fd).st_ino == ROOT_INODE else None
    finally:
        os.close(fd)


def path_within(fd: int) -> str:
    """The path of a directory from the root of its subvolume; empty for the root itself. Needs root."""
    told = bytearray(4096)
    struct.pack_into("=QQ", told, 0, 0, os.fstat(fd).st_ino)
    return os.fsdecode(bytes(_ask(fd, _INO_LOOKUP, told)[16:]).partition(b"\0")[0]).strip("/")


def nested(fd: int) -> tuple[str, ...]:
    """The paths of the subvolumes directly inside this one, from its root; a snapshot shows each as an empty folder.

    Args:
        fd: the root directory of the subvolume.
    """
    paths = []
    first, more = 0, True
    while more:
        told = bytearray(4096)
        struct.pack_into("=Q", told, 0, first)
        try:
            _ask(fd, _SUBVOL_ROOTREF, told)
            more = False
        except OSError as e:
            if e.errno != errno.EOVERFLOW:  # the answer is full, and there are more
                raise
        for i in range(told[4088]):
            child, directory = struct.unpack_from("=QQ", told, 8 + 16 * i)
            paths.append(_path_of_child(fd, child, directory))
            first = child + 1
    return tuple(sorted(paths))


def _path_of_child(fd: int, child: int, directory: int) -> str:
    told = bytearray(4096)
    struct.pack_into("=QQ", told, 0, directory, child)
    _ask(fd, _INO_LOOKUP_USER, told)
    name, path = (os.fsdecode(bytes(part).partition(b"\0")[0]) for part in (told[16:272], told[272:]))
    return os.path.join(path, name)


def default_subvolume(fd: int) -> int:
    """The id of the subvolume that a mount without subvol= shows. Needs root."""
    told = bytearray(4096)
    # The root tree's directory (6) holds one entry called "default" (DIR_ITEM 84, the name's hash); see btrfs-progs.
    key = (1, 6, 6, 2378154706, 2378154706, 0, 2**64 - 1, 84, 84, 1, 0, 0, 0, 0, 0)
    struct.pack_into("=7Q4I4Q", told, 0, *key)
    _ask(fd, _TREE_SEARCH, told)
    found: int = struct.unpack_from("=I", told, 64)[0]
    return int(struct.unpack_from("=Q", told, 104 + 32)[0]) if found else TOP_LEVEL


def snapshot_order(source: int, name: str, *, read_only: bool) -> bytearray:
    """Write the order for a snapshot, so that giving it later is one system call.

    Raises:
        ValueError: the name is no single path component.
    """
    order = bytearray(4096)
    struct.pack_into("=qQQ4Q4040s", order, 0, source, 0, _READ_ONLY if read_only else 0, 0, 0, 0, 0, _component(name))
    return order


def snapshot(directory: int, order: bytearray) -> None:
    """Take the snapshot in `directory`. When this returns it is committed to the disk."""
    # A bytearray, since fcntl copies an immutable argument into a buffer of 1024 bytes.
    fcntl.ioctl(directory, _SNAP_CREATE_V2, order)


def create(directory: int, name: str) -> None:
    """Make a new, empty subvolume in `directory`."""
    order = bytearray(4096)
    struct.pack_into("=qQQ4Q4040s", order, 0, 0, 0, 0, 0, 0, 0, 0, _component(name))
    fcntl.ioctl(directory, _SUBVOL_CREATE_V2, order)


def delete(directory: int, name: str) -> None:
    """Delete a subvolume. It is out of sight at once; its room comes back later, by the kernel's cleaner.

    Raises:
        OSError: ENOTEMPTY when it holds further subvolumes, EPERM for the default one.
    """
    order = bytearray(4096)
    struct.pack_into("=q4088s", order, 0, 0, _component(name))
    fcntl.ioctl(directory, _SNAP_DESTROY, order)


def set_read_only(fd: int, *, read_only: bool) -> None:
    """Turn a subvolume read-only or writable. Idempotent. It keeps accidents off, not root."""
    flags: int = struct.unpack("=Q", _ask(fd, _GET_FLAGS, bytearray(8)))[0]
    wanted = flags | _READ_ONLY if read_only else flags & ~_READ_ONLY
    if wanted != flags:
        fcntl.ioctl(fd, _SET_FLAGS, bytearray(struct.pack("=Q", wanted)))


def commit(fd: int) -> None:
    """Wait until everything that was changed up to now is on the disk but file contents not yet written back."""
    transaction = _ask(fd, _START_SYNC, bytearray(8))
    fcntl.ioctl(fd, _WAIT_SYNC, transaction)


def allocation(fd: int) -> Allocation:
    """How the filesystem's devices are given out, and how full what was given out is."""
    highest, count = struct.unpack_from("=QQ", _ask(fd, _FS_INFO, bytearray(1024)))
    devices: list[tuple[int, int]] = []
    number = 0
    while len(devices) < count and number <= highest:
        told = bytearray(4096)
        struct.pack_into("=Q", told, 0, number)
        number += 1
        try:
            _ask(fd, _DEV_INFO, told)
        except OSError as e:
            if e.errno != errno.ENODEV:  # numbers of removed devices are not used again
                raise
            continue
        used, total = struct.unpack_from("=QQ", told, 24)
        devices.append((total, used))
    return Allocation(tuple(devices), _spaces(fd))


def _spaces(fd: int) -> tuple[Space, ...]:
    count = struct.unpack_from("=QQ", _ask(fd, _SPACE_INFO, bytearray(16)))[1]
    told = bytearray(16 + 24 * count)
    struct.pack_into("=Q", told, 0, count)
    _ask(fd, _SPACE_INFO, told)
    count = struct.unpack_from("=QQ", told)[1]
    return tuple(Space(*struct.unpack_from("=QQQ", told, 16 + 24 * i)) for i in range(count))


def _component(name: str) -> bytes:
    if not name or name in (".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise ValueError(f"{name!r} is no single path component")
    return os.fsencode(name)


def _ask(fd: int, request: int, argument: bytearray) -> bytearray:
    fcntl.ioctl(fd, request, argument)
    return argument
