# SPDX-License-Identifier: Apache-2.0
"""What is mounted, for whom, and mounting: mountinfo of every namespace, mount, unmount, detached mounts.

Mountinfo is the only list that is trusted (proc_pid_mountinfo(5)): it knows bind mounts, the path inside the
filesystem, and one `major:minor` for all subvolumes of a Btrfs, where `st_dev` shows one for each.
"""

import ctypes
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from slackwater.system import command

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
#: fsopen, fsconfig and fsmount bear the same numbers on every architecture (Linux 5.2 and later).
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC, _SET_FLAG, _SET_STRING, _CREATE, _MOUNT_ATTR_RDONLY = 1, 0, 1, 6, 1
_ESCAPE = re.compile(r"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    id: int
    parent: int
    superblock: str
    """`major:minor` of the filesystem."""
    root: str
    """The path inside the filesystem that is shown; follows a rename of it."""
    target: str
    options: tuple[str, ...]
    """Of this mount: ro, noatime and their like."""
    peers: frozenset[int]
    """Peer groups it belongs to or receives from (mount_namespaces(7)); empty for a private mount."""
    fstype: str
    source: str
    super_options: tuple[str, ...]
    """Of the filesystem, the same for all mounts of it; Btrfs adds subvol= and subvolid=."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A mount namespace: who lives in it, and what is mounted there."""

    inode: int
    pids: frozenset[int]
    mounts: tuple[Mount, ...]


def unescape(text: str) -> str:
    r"""Resolve the octal escapes of mountinfo and fstab (`\040` is a blank; the bytes make up UTF-8)."""
    raw = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text.encode(errors="surrogateescape").decode("latin-1"))
    return raw.encode("latin-1").decode(errors="surrogateescape")


def parse(text: str) -> tuple[Mount, ...]:
    """Read a mountinfo table. Lines that are not of its form are left out."""
    return tuple(mount for line in text.split("\n") if (mount := _parse_line(line)))


def _parse_line(line: str) -> Mount | None:
    before, dash, after = line.partition(" - ")
    head, tail = before.split(" "), after.split(" ")
    if not dash or len(head) < 6 or len(tail) < 3 or not (head[0].isdecimal() and head[1].isdecimal()):
        return None
    tags = (tag.partition(":") for tag in head[6:])
    return Mount(
        id=int(head[0]),
        parent=int(head[1]),
        superblock=head[2],
        root=unescape(head[3]),
        target=unescape(head[4]),
        options=tuple(head[5].split(",")),
        peers=frozenset(int(number) for name, _, number in tags if name in ("shared", "master") and number.isdecimal()),
        fstype=tail[0],
        source=unescape(tail[1]),
        super_options=tuple(unescape(tail[2]).split(",")),
    )


def read(pid: int | str = "self") -> tuple[Mount, ...]:
    """What is mounted in the namespace of a process, bottom first where several share a target.

    Raises:
        OSError: there is no such process, or it is a stranger's and we are not root.
    """
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        return parse(f.read())


def mount_of(path: str) -> Mount | None:
    """The mount that carries a path, as the kernel resolves it; no guessing by the length of names.

    Returns: None when our root directory does not let us see it (chroot).

    Raises:
        OSError: there is no such path.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as f:
            number = next(int(line.split()[1]) for line in f if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
    return next((mount for mount in read() if mount.id == number), None)


def at(target: str, mounts: Iterable[Mount] | None = None) -> Mount | None:
    """The topmost mount at a target; None when it is no mount point."""
    return next((m for m in reversed(tuple(read() if mounts is None else mounts)) if m.target == target), None)


def inside(path: str, parent: str) -> bool:
    """Whether a path lies below another or is it, by their names alone; both absolute."""
    return path == parent or path.startswith(parent.rstrip("/") + "/")


def innermost(path: str, among: Iterable[T], at: Callable[[T], str]) -> T | None:
    """Which of some that lie at a path each is the closest around another path, by names alone; None for none."""
    return max((each for each in among if inside(path, at(each))), key=lambda each: len(at(each)), default=None)


def swap_files() -> list[str]:
    """The files and devices that are swapped to now (proc_swaps(5))."""
    with open("/proc/swaps", encoding="utf-8", errors="surrogateescape") as f:
        return [unescape(line.split()[0]) for line in f.readlines()[1:]]


def namespaces() -> tuple[Namespace, ...]:
    """Every mount namespace in which a process lives, ours included.

    A table shows only what its reader's root directory can reach (chroot), so the tables of all different roots of a
    namespace are joined. Namespaces kept by a file alone, with no process inside, cannot be seen from here.
    """
    pids: dict[int, set[int]] = {}
    tables: dict[int, dict[int, Mount]] = {}
    seen: set[tuple[int, str]] = set()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            inode = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            view = (inode, os.readlink(f"/proc/{pid}/root"))
            pids.setdefault(inode, set()).add(pid)
            if view not in seen:
                tables.setdefault(inode, {}).update((m.id, m) for m in read(pid))
                seen.add(view)
        except OSError:
            continue  # it has ended
    return tuple(Namespace(n, frozenset(pids[n]), tuple(table.values())) for n, table in tables.items())


def own_namespace() -> int:
    """The inode by which our mount namespace is known."""
    return os.stat("/proc/self/ns/mnt").st_ino


def follows(theirs: Mount, their_table: Iterable[Mount], ours: Mount, our_table: Iterable[Mount]) -> bool:
    """Whether a mount in another namespace goes and comes with one of ours.

    Mounting and unmounting are passed on from what a mount lies on to the peers and receivers of that
    (mount_namespaces(7)): the usual case of a service that systemd gave a namespace of its own.
    """
    upper = next((m.peers for m in their_table if m.id == theirs.parent), frozenset[int]())
    lower = next((m.peers for m in our_table if m.id == ours.parent), frozenset[int]())
    return (theirs.root, theirs.target) == (ours.root, ours.target) and bool(upper & lower)


def mount(fstype: str, source: str, target: str, options: Iterable[str]) -> None:
    """Put a filesystem in its place, past fstab, by the command of the same name.

    Args:
        fstype: type of the filesystem.
        source: the device, or a file that mount(8) then sets up as a loop device.
        target: an existing directory.
        options: as `-o` takes them.

    Raises:
        CommandError: mount(8) refused.
    """
    loop = ["loop"] if os.path.isfile(source) else []
    command.run("mount", "-t", fstype, "-o", ",".join([*options, *loop]), "--", source, target)


def unmount(target: str) -> None:
    """Take the topmost mount off a target with umount2(2); never lazily.

    Raises:
        OSError: EBUSY when somebody holds it, EINVAL when nothing is mounted there.
    """
    if _libc.umount2(os.fsencode(target), 8) < 0:  # UMOUNT_NOFOLLOW
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


@contextmanager
def detached(
    fstype: str,
    source: str,
    options: Mapping[str, str],
    *,
    read_only: bool,
    superblock_read_only: bool | None = None,
) -> Iterator[int]:
    """Mount a filesystem for this process alone, with no place in any tree, and give a descriptor of its root.

    Nobody else sees it, and it ends with the context or with the process, however that ends (fsopen(2), fsmount(2)).
    With `read_only` the filesystem itself stays as it is: a plain mount of a Btrfs that is mounted read-only would
    turn it writable for everybody. Other filesystems refuse to be mounted once more but as they are: what they are is
    `superblock_read_only`; left out, it is as `read_only`.

    Raises:
        OSError: no such device, not such a filesystem, or not root.
    """
    context = _call(_FSOPEN, fstype.encode(), _CLOEXEC)
    try:
        for name, value in {"source": source, **options}.items():
            _call(_FSCONFIG, context, _SET_STRING, name.encode(), os.fsencode(value), 0)
        if read_only if superblock_read_only is None else superblock_read_only:
            _call(_FSCONFIG, context, _SET_FLAG, b"ro", None, 0)
        _call(_FSCONFIG, context, _CREATE, None, None, 0)
        handle = _call(_FSMOUNT, context, _CLOEXEC, _MOUNT_ATTR_RDONLY if read_only else 0)
    finally:
        os.close(context)
    try:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
        try:
            yield root
        finally:
            os.close(root)
    finally:
        os.close(handle)  # the mount lives as long as this one, so it goes last


def _call(number: int, *arguments: object) -> int:
    # A bare int would be passed as 32 bits where the system call reads 64.
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *wide))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
