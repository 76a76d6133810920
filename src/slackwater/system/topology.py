# SPDX-License-Identifier: Apache-2.0
"""What lies on what: which filesystems may be frozen, and in which order. Reads only.

A filesystem is known by its superblock, `major:minor` of mountinfo: the number of its block device, but for Btrfs,
whose devices the kernel lists in /sys/fs/btrfs. Devices are followed in /sys/dev/block: `slaves` of dm and md, the disk
of a partition, the file behind a loop device. A frozen filesystem takes no write of one that lies on it, so that one is
frozen before.
"""

import graphlib
import os
import stat
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from uuid import UUID

from slackwater.errors import RefusedError
from slackwater.model.storage import Filesystem
from slackwater.system import btrfs, loops, mounts, xfs
from slackwater.system.mounts import Mount

_BLOCK = "/sys/dev/block"
#: Those that know FIFREEZE (fs/ioctl.c: freeze_fs or freeze_super among their super_operations) and lie on devices.
_FREEZABLE = ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "gfs2", "jfs", "nilfs2", "reiserfs", "xfs")
#: Devices of a filesystem that only its mount options name (xfs(5)).
_MORE_DEVICES = ("logdev=", "rtdev=")
_LOGS = ("/var/log", "/run/log")


def find(path: str) -> Filesystem:
    """The filesystem that carries a path.

    Raises:
        RefusedError: it is none that can be frozen.
        OSError: there is no such path.
    """
    mount = mounts.mount_of(path)
    if mount is None or mount.fstype not in _FREEZABLE:
        raise _refused(f"{path} lies on {mount.fstype if mount else 'nothing that can be seen'}, which has no freeze")
    fd = os.open(mount.target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return Filesystem(mount.superblock, _fsid(fd, mount.fstype), mount.target)
    finally:
        os.close(fd)


def _fsid(fd: int, fstype: str) -> str:
    """What the freezer tells it by; the kernel's own fsid is a subvolume's (Btrfs) or the device's (XFS)."""
    if fstype == "btrfs":
        return UUID(btrfs.filesystem_of(fd)).hex
    if fstype == "xfs":
        return UUID(xfs.geometry(fd).uuid).hex
    return f"{os.fstatvfs(fd).f_fsid:x}"


def below(path: str) -> frozenset[str]:
    """The superblocks that carry a path: the one it lies on, and all that lie below that."""
    found: set[str] = set()
    waiting = _of(path)
    while new := waiting - found:
        found |= new
        waiting = {under for superblock in new for under in _carriers(superblock)}
    return frozenset(found)


def order(filesystems: Iterable[Filesystem], carried_by: Mapping[str, Collection[str]]) -> tuple[Filesystem, ...]:
    """Rank filesystems in the order in which they are to be frozen, each superblock once.

    Args:
        filesystems: those to be frozen.
        carried_by: for each superblock, those below it, itself left out.

    Raises:
        RefusedError: one of them lies on itself, so that no order is right.
    """
    chosen = {each.superblock: each for each in filesystems}
    before = {one: {each for each in chosen if one in carried_by.get(each, ())} for one in chosen}
    sorter = graphlib.TopologicalSorter(before)
    try:
        sorter.prepare()
    except graphlib.CycleError as e:
        raise _refused(f"{' lies on '.join(chosen[each].mount for each in e.args[1])}: that is a circle") from e
    ranked: list[Filesystem] = []
    rank = 0
    while sorter.is_active():
        ready = sorter.get_ready()
        ranked += [Filesystem(each.superblock, each.fsid, each.mount, rank) for each in map(chosen.get, ready) if each]
        sorter.done(*ready)
        rank += 1
    return tuple(ranked)


def ranked(filesystems: Iterable[Filesystem]) -> tuple[Filesystem, ...]:
    """Rank filesystems as they lie on each other on this host now.

    Raises:
        RefusedError: as `order`.
    """
    chosen = {each.superblock: each for each in filesystems}
    return order(chosen.values(), {each.superblock: _strictly_below(each.superblock) for each in chosen.values()})


def needed(own: Mapping[str, str]) -> dict[str, str]:
    """The superblocks that must never be frozen, and why: whoever holds and releases would wait for himself.

    Args:
        own: further paths of ours, with what they are.
    """
    paths = {
        "/": "the root filesystem",
        os.path.realpath(sys.executable): "the interpreter",
        os.path.realpath(os.__file__): "the standard library",
        os.path.realpath(__file__): "Slackwater's code",
        tempfile.gettempdir(): "temporary files",
        **dict.fromkeys(_LOGS, "the system's logs"),
        **{f"/proc/self/fd/{number}": "what this command is redirected to" for number in (0, 1, 2)},
        **dict.fromkeys(mounts.swap_files(), "swap space"),
        **own,
    }
    found: dict[str, str] = {}
    for path, what in paths.items():
        for superblock in _below_existing(path):
            found.setdefault(superblock, what)
    return found


def _below_existing(path: str) -> frozenset[str]:
    """As `below`; what is not there yet will be where its folder is, and what cannot be looked at is nowhere."""
    while path.startswith("/") and path != "/" and not path.startswith("/proc/") and not os.path.exists(path):
        path = os.path.dirname(path)
    with suppress(OSError):
        return below(path)
    return frozenset()


def _strictly_below(superblock: str) -> frozenset[str]:
    found: set[str] = set()
    waiting = set(_carriers(superblock))
    while new := waiting - found:
        found |= new
        waiting = {under for each in new for under in _carriers(each)}
    return frozenset(found)


def _of(path: str) -> set[str]:
    """The superblock on which a file lies; those on which a block device does."""
    mode = os.stat(path)
    if stat.S_ISBLK(mode.st_mode):
        return _below_device(_number(mode.st_rdev))
    mount = mounts.mount_of(path)
    return {mount.superblock} if mount else set()


def _carriers(superblock: str) -> set[str]:
    """The superblocks on which the devices of a filesystem lie."""
    found: set[str] = set()
    for device in _devices(superblock):
        found |= _below_device(device)
    return found


def _devices(superblock: str) -> set[str]:
    """The numbers of the block devices that a filesystem lies on."""
    mine = [mount for mount in mounts.read() if mount.superblock == superblock]
    found = {superblock} if os.path.exists(f"{_BLOCK}/{superblock}") else set()
    for mount in mine[:1]:
        for path in _named(mount):
            with suppress(OSError):
                found.add(_number(os.stat(path).st_rdev))
    return found


def _named(mount: Mount) -> list[str]:
    """Devices that are named by their paths."""
    named = [option.removeprefix(each) for option in mount.super_options for each in _MORE_DEVICES
             if option.startswith(each)]  # fmt: skip
    if mount.fstype == "btrfs":
        with suppress(OSError):
            fd = os.open(mount.target, os.O_RDONLY | os.O_CLOEXEC)
            try:
                named += btrfs.devices_of(btrfs.filesystem_of(fd))
            finally:
                os.close(fd)
    return named


def _below_device(number: str) -> set[str]:
    """The superblocks that carry the files behind a block device and all that it is made of."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = {number}
    while waiting:
        number = waiting.pop()
        seen.add(number)
        waiting |= _parts(number) - seen
        if file := loops.backing_file(os.path.realpath(f"{_BLOCK}/{number}")):
            found |= _behind(number, file)
    return found


def _parts(number: str) -> set[str]:
    """The devices a device is made of: slaves of dm and md, and the disk of a partition."""
    folder = os.path.realpath(f"{_BLOCK}/{number}")
    paths = [f"{folder}/slaves/{each}" for each in _names(f"{folder}/slaves")]
    if os.path.exists(f"{folder}/partition"):
        paths.append(os.path.dirname(folder))
    found = set()
    for path in paths:
        with suppress(OSError), open(f"{path}/dev", encoding="ascii") as f:
            found.add(f.read().strip())
    return found


def _behind(number: str, file: str) -> set[str]:
    """The superblock of the file behind a loop device; where its path leads nowhere from here, by its device number."""
    with suppress(OSError):
        mount = mounts.mount_of(file)
        if mount:
            return {mount.superblock}
    device = loops.backing_device(number)
    table = mounts.read()
    return {each.superblock for each in table if each.superblock == device or _device_at(each.target) == device}


def _device_at(path: str) -> str:
    try:
        return _number(os.stat(path).st_dev)
    except OSError:
        return ""


def _number(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _refused(sentence: str) -> RefusedError:
    return RefusedError(f"{sentence}.", data="Nothing was changed.", code="not-freezable")
