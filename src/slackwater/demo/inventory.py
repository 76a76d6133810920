# SPDX-License-Identifier: Apache-2.0
"""What a lab has on this machine, as lines that can be compared: to show that nothing was left behind."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from glob import glob
from typing import Self

from slackwater.system.command import run

MARK = "SLACKWATER_LAB"
"""The environment variable that carries a lab's name, or that of a cluster of it, into every process it starts."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything found, one line each: the kind, then what it is; without numbers that change by themselves."""

    lines: frozenset[str]

    def diff(self, later: Self) -> tuple[str, ...]:
        """What came (`+`) and went (`-`) since; empty when nothing did."""
        came = [f"+ {line}" for line in later.lines - self.lines]
        went = [f"- {line}" for line in self.lines - later.lines]
        return (*sorted(went), *sorted(came))


def take(name: str, *, disks: tuple[str, ...] = (), folders: tuple[str, ...] = ()) -> Inventory:
    """List what belongs to the lab `name`, and the cgroups of ours on the machine unless strangers live in them.

    Args:
        name: the lab's name.
        disks: where the top levels of its Btrfs filesystems are mounted.
        folders: folders of which every file is listed by its name.
    """
    own, living = os.readlink("/proc/self/ns/mnt"), processes(name)
    lines = {f"loop {loop.file}" for loop in loops(name)}
    lines |= {f"mount {'' if m.namespace == own else 'elsewhere '}{m.root} on {m.target}" for m in mounts(name)}
    lines |= {f"process {p.command}" for p in living if not p.is_backend}
    lines |= {f"process {command}" for command in orphans()}
    lines |= {f"cgroup {path}" for path in cgroups({p.pid for p in living})}
    lines |= {f"subvolume {path}" for disk in disks for path in subvolumes(disk)}
    lines |= {f"file {path}" for folder in folders for path in _files(folder)}
    return Inventory(frozenset(lines))


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of a mountinfo, see proc(5)."""

    device: str
    root: str
    target: str
    kind: str
    source: str
    namespace: str


def mounts(name: str) -> list[Mount]:
    """The mounts of the lab in every mount namespace that a process lives in, oldest first."""
    devices = {loop.device for loop in loops(name)}
    return [m for m in all_mounts() if name in m.target or m.source in devices]


def all_mounts() -> Iterator[Mount]:
    """Every mount of every mount namespace; namespaces without a process cannot be seen."""
    seen: set[str] = set()
    for pid in ("self", *_pids()):
        try:
            namespace = os.readlink(f"/proc/{pid}/ns/mnt")
            if namespace in seen:
                continue
            with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
                lines = f.readlines()
        except OSError:
            continue
        seen.add(namespace)
        for line in lines:
            mount, _, filesystem = line.partition(" - ")
            fields, (kind, source, *_rest) = mount.split(), filesystem.split()
            yield Mount(fields[2], _plain(fields[3]), _plain(fields[4]), kind, _plain(source), namespace)


def _plain(text: str) -> str:
    """Undo mountinfo's octal escapes of blank, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device and the file behind it."""

    device: str
    file: str


def loops(name: str) -> list[Loop]:
    """The loop devices whose file carries the lab's name, as the kernel lists them below /sys, see losetup(8)."""
    found = []
    for path in glob("/sys/block/loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # it was let go this very moment
            found.append(Loop(f"/dev/{path.split('/')[3]}", _read(path).rstrip("\n")))
    return [loop for loop in found if name in loop.file]


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a lab."""

    pid: int
    parent: int
    arguments: tuple[str, ...]
    is_server: bool
    """It runs the `postgres` program."""
    is_backend: bool
    """It is the child of a server: these come and go by themselves."""
    cgroup: str
    """Its path below the root of the version 2 hierarchy."""
    namespace: str
    """Its mount namespace."""

    @property
    def command(self) -> str:
        """Its command line, or its title."""
        return " ".join(self.arguments).strip()


def processes(name: str) -> list[Process]:
    """Those that carry the lab's mark, and the servers that name the lab; never ourselves or our ancestors.

    A server overwrites its environment with its title, but the title of every one of its processes bears
    `cluster_name`, and its command line its data directory.
    """
    above = _ancestors()
    return [found for pid in _pids() if pid not in above and (found := _process(pid, name)) is not None]


def _process(pid: int, name: str) -> Process | None:
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
        line = _read(f"/proc/{pid}/cmdline")
        is_server = program == "postgres"
        if is_server:
            ours = name in line or name in os.readlink(f"/proc/{pid}/cwd")
        else:
            ours = f"{MARK}={name}" in _read(f"/proc/{pid}/environ")
        if not ours:
            return None
        is_backend = is_server and line.startswith("postgres: ")
        namespace = os.readlink(f"/proc/{pid}/ns/mnt")
        arguments = tuple(line.rstrip("\0").split("\0"))
        return Process(pid, _parent(pid), arguments, is_server, is_backend, _cgroup(pid), namespace)
    except OSError:
        return None


def _cgroup(pid: int) -> str:
    lines = _read(f"/proc/{pid}/cgroup").splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")


def memory_files(pids: Iterable[int]) -> set[str]:
    """The files of POSIX shared memory that the servers among the processes made and have mapped."""
    found: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found |= set(re.findall(r"/dev/shm/PostgreSQL\.\d+", _read(f"/proc/{pid}/maps")))  # noqa: S108
    return found


def cgroup_root() -> str:
    """Where the version 2 hierarchy is mounted; empty where it is not."""
    own = os.readlink("/proc/self/ns/mnt")
    return next((m.target for m in all_mounts() if m.kind == "cgroup2" and m.namespace == own), "")


def cgroups(pids: AbstractSet[int]) -> list[str]:
    """The cgroups named as Slackwater's, relative to the root, but for those in which strangers live."""
    root = cgroup_root()
    named = (path for path, _, _ in os.walk(root) if "slackwater" in os.path.relpath(path, root)) if root else ()
    return [os.path.relpath(path, root) for path in named if not any(map(_is_strange, _members(path) - pids))]


def orphans() -> list[str]:
    """The guards whose coordinator is dead, whosesoever: they carry no mark, and should have ended with it."""
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):
            command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
            if command.endswith("/guard/guard.py") and _parent(pid) == 1:
                found.append(command)
    return found


def _is_strange(pid: int) -> bool:
    """Whether somebody else answers for a process that is not the lab's: a living parent, or a server of his own."""
    try:
        return _parent(pid) != 1 or "postgres" in os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False


def _members(cgroup: str) -> set[int]:
    try:
        return set(map(int, _read(f"{cgroup}/cgroup.procs").split()))
    except OSError:
        return set()


def subvolumes(disk: str) -> list[str]:
    """The subvolumes of a Btrfs filesystem by their path below its top level."""
    listed = run("btrfs", "subvolume", "list", disk).output
    return [line.partition(" path ")[2] for line in listed.splitlines()]


def _files(folder: str) -> Iterator[str]:
    for where, _, names in os.walk(folder):
        yield from (os.path.join(where, each) for each in names)


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _ancestors() -> set[int]:
    pids, pid = set(), os.getpid()
    while pid > 0:
        pids.add(pid)
        pid = _parent(pid)
    return pids


def _parent(pid: int) -> int:
    return int(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[1])


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as f:
        return f.read()
