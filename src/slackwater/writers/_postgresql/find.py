# SPDX-License-Identifier: Apache-2.0
"""Finding servers by asking the kernel: who runs the program `postgres`, and in which directory.

PostgreSQL changes into its data directory and stays there, backends too; the postmaster writes its pid into the first
line of `postmaster.pid` there (PostgreSQL, "Database File Layout", and the comments of miscadmin.h on the other lines).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from slackwater.system import namespaces
from slackwater.system.processes import descendants, stat_of

_DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class PidFile:
    """What `postmaster.pid` says."""

    pid: int
    """Negative for a server without a postmaster (`postgres --single`, initdb)."""
    port: int = 0
    socket_directory: str = ""
    shared_memory: str = ""
    """Key and id of the System V segment, as two decimal numbers; empty when there is none."""
    status: str = ""
    """`starting`, `stopping`, `ready` or `standby`; empty while it is not yet written."""


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A running server, as far as the kernel and its lock file tell."""

    pid: int
    data_directory: str
    """Without links, as the kernel shows it; the name under which the server changed into it."""
    program: str
    uid: int
    gid: int
    arguments: tuple[str, ...]
    lock: PidFile
    trouble: str = ""
    """Why it cannot be asked: `in-container`, `permission`, `lock-file-gone`; empty when it can."""


def postmasters() -> list[Postmaster]:
    """Find every server of this host, those in other mount namespaces too, but for those on clones of ours."""
    found = [each for pid in _pids() if (each := _postmaster(pid))]
    own = (each for each in found if each.trouble != "in-container" or not namespaces.enclosed(each.pid))
    return sorted(own, key=lambda each: each.data_directory)


def postmaster_enclosed(mark: str) -> Postmaster | None:
    """Find the server that runs in an enclosure, numbered as this host numbers it, if one does."""
    keeper = namespaces.keeper_of(mark)
    found = (_postmaster(pid) for pid in sorted(descendants(keeper)) if pid != keeper) if keeper else ()
    return next((each for each in found if each), None)


def postmaster_on(data_directory: str) -> Postmaster | None:
    """Find the server that runs on this data directory, if one does."""
    own = (each for each in postmasters() if each.data_directory == data_directory)
    return next((each for each in own if each.trouble != "in-container"), None)


def servers_on(data_directory: str) -> frozenset[int]:
    """Every process that runs `postgres` on this data directory, also orphans whose postmaster is dead."""
    return frozenset(pid for pid in _pids() if _works_in(pid, data_directory))


def processes_on(data_directory: str) -> frozenset[int]:
    """Every process of the server on this data directory: those of `servers_on`, and all that stem from them.

    Children that run another program (an archive command) are found as long as their postmaster lives.
    """
    own = servers_on(data_directory)
    eldest = (pid for pid in own if (stat := stat_of(pid)) and stat.parent not in own)
    return own.union(*(descendants(pid) for pid in eldest))


def read_pid_file(text: str) -> PidFile | None:
    """Understand the text of `postmaster.pid`; None when it is not one."""
    lines = text.splitlines()
    if not lines or not lines[0].strip().removeprefix("-").isdecimal():
        return None
    line = dict(enumerate((each.strip() for each in lines), start=1))
    port = line.get(4, "")
    return PidFile(
        pid=int(line[1]),
        port=int(port) if port.isdecimal() else 0,
        socket_directory=line.get(5, ""),
        shared_memory=" ".join(line.get(7, "").split()),
        status=line.get(8, ""),
    )


def pid_file_of(directory: str) -> PidFile | None:
    """Read the lock file of a data directory; None when there is none that can be read."""
    try:
        with open(f"{directory}/postmaster.pid", encoding="utf-8", errors="replace") as f:
            return read_pid_file(f.read())
    except OSError:
        return None


def option(arguments: tuple[str, ...], name: str) -> str:
    """The value of a setting given on a server's command line, as `-c name=value` or `--name=value`; else empty."""
    for here, there in zip(arguments, (*arguments[1:], ""), strict=False):  # a process may have no arguments at all
        setting = there if here == "-c" else here.removeprefix("--") if here.startswith("--") else here[2:]
        if here.startswith(("-c", "--")):
            key, _, value = setting.partition("=")
            if key.strip().replace("-", "_") == name:
                return value.strip()
    return ""


def _postmaster(pid: int) -> Postmaster | None:
    try:
        seen = _look(pid)
        if seen is None or seen.trouble == "permission":
            return seen
        # The number that the server knows itself by; another one than ours inside a container.
        own_pid = int(_status(pid)["NSpid"].split()[-1])
        lock = pid_file_of(f"/proc/{pid}/cwd")
        if lock is not None and lock.pid == own_pid:
            return replace(seen, lock=lock)
        if lock is not None or _is_child(pid) or {"--single", "--boot", "--check", "-C"} & {*seen.arguments}:
            return None
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return None
    return replace(seen, trouble=seen.trouble or "lock-file-gone")


def _look(pid: int) -> Postmaster | None:
    """What the kernel shows of a process that may be a postmaster; None when it is none."""
    program = _program(pid)
    if os.path.basename(program) != "postgres":
        return None
    arguments = _arguments(pid)
    owner = _status(pid)
    uid, gid = int(owner["Uid"].split()[1]), int(owner["Gid"].split()[1])
    try:
        directory = os.readlink(f"/proc/{pid}/cwd").removesuffix(_DELETED)
        trouble = "" if _same_mounts(pid) else "in-container"
    except PermissionError:
        given = arguments[arguments.index("-D") + 1] if "-D" in arguments[:-1] else f"pid {pid}"
        directory, trouble = given, "permission"
    return Postmaster(pid, directory, program, uid, gid, arguments, PidFile(pid), trouble)


def _program(pid: int) -> str:
    """The program's path; after an upgrade of its package the kernel calls the old file deleted."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(_DELETED)
    except PermissionError:
        # Backends show a title ("postgres: checkpointer") where the postmaster shows its command line.
        return (_arguments(pid) or ("",))[0]
    except OSError:
        return ""


def _works_in(pid: int, data_directory: str) -> bool:
    """Whether this is a `postgres` in our mount namespace whose working directory has, or had, this name."""
    try:
        if os.path.basename(os.readlink(f"/proc/{pid}/exe").removesuffix(_DELETED)) != "postgres":
            return False
        return os.readlink(f"/proc/{pid}/cwd").removesuffix(_DELETED) == data_directory and _same_mounts(pid)
    except OSError:
        return False


def _is_child(pid: int) -> bool:
    stat = stat_of(pid)
    if stat is None:  # a backend that has ended since it was seen would be taken for a server without a lock file
        raise ProcessLookupError(pid)
    return os.path.basename(_program(stat.parent)) == "postgres"


def _same_mounts(pid: int) -> bool:
    return os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")


def _arguments(pid: int) -> tuple[str, ...]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return tuple(part.decode(errors="surrogateescape") for part in f.read().split(b"\0")[:-1])
    except OSError:
        return ()


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
        return dict(line.split(":", 1) for line in f if ":" in line)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdecimal())
