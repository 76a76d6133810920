# SPDX-License-Identifier: Apache-2.0
"""Who is there, who stems from whom, and who holds what: the processes of this host as /proc shows them, see proc(5).

A process may end between any two lines here; one that has ended is simply not there. Without root the processes of
other users show their name and their parent, but not what they hold.
"""

import os
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_WRITING = os.O_WRONLY | os.O_RDWR
#: How often the processes are counted again before a tree that never stands still is taken as it is.
_COUNTS = 10
_PASSING_S = 0.3


@dataclass(frozen=True, slots=True)
class Stat:
    """What is needed of /proc/PID/stat."""

    command: str
    state: str
    parent: int
    threads: int
    start: int
    """Clock ticks after boot at which it began; never changes, and with the pid names it for the time of a boot."""

    @property
    def dead(self) -> bool:
        """Only its exit status waits to be read. A first thread that ended before the others also shows as Z."""
        return self.state in "ZXx" and self.threads <= 1


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds something on a filesystem."""

    pid: int
    command: str
    path: str
    """As the process reaches it, in its own mount namespace; ends in ` (deleted)` where nobody else can."""
    how: str
    """`open file`, `mapped file`, `working directory`, `root directory` or `program`."""
    writing: bool
    inode: int = 0
    """Its number on the filesystem, which tells what `path` may not: where it lies in our own namespace."""


def stat_of(pid: int) -> Stat | None:
    """Read /proc/PID/stat; None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            line = f.read().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command is in parentheses and may itself hold parentheses and blanks: the last one ends it.
    head, _, tail = line.rpartition(")")
    fields = tail.split()  # fields[0] is field 3 of proc(5)
    return Stat(head.partition("(")[2], fields[0], int(fields[1]), int(fields[17]), int(fields[19]))


def identity(pid: int) -> str:
    """Name a process so that no other ever bears the same name: `pid:start time:boot id`.

    Raises:
        ProcessLookupError: there is no such process.
    """
    stat = stat_of(pid)
    if stat is None:
        raise ProcessLookupError(f"there is no process {pid}")
    return f"{pid}:{stat.start}:{_boot_id()}"


def alive(identity: str) -> bool:
    """Say whether the process named by `identity` still runs; a dead one that nobody waited for does not.

    What is no identity names nobody who runs.
    """
    try:
        pid, start, boot = _parts(identity)
    except ValueError:
        return False
    stat = stat_of(pid)
    return stat is not None and not stat.dead and stat.start == start and boot == _boot_id()


def of_this_boot(identity: str) -> bool:
    """Say whether a process was started since the machine was; what is no identity was not."""
    try:
        return _parts(identity)[2] == _boot_id()
    except ValueError:
        return False


def stopped(identity: str) -> bool:
    """Say whether the process named by `identity` stands still by a signal (SIGSTOP, Ctrl-Z) or a debugger."""
    stat = stat_of(_parts(identity)[0])
    return alive(identity) and stat is not None and stat.state in "Tt"


def open_pidfd(identity: str) -> int:
    """Open a descriptor that means the process named by `identity` and no other, see pidfd_open(2). Close it.

    Raises:
        ProcessLookupError: it does not run any more.
    """
    fd = os.pidfd_open(pid_of(identity))
    if alive(identity):  # asked after: what the descriptor means cannot change any more
        return fd
    os.close(fd)
    raise ProcessLookupError(f"the process {identity} has ended")


def begun_s(identity: str) -> float | None:
    """Seconds from this boot to the start of the process of that name; None for one of another boot, or no identity."""
    try:
        _, start, boot = _parts(identity)
    except ValueError:
        return None
    return start / os.sysconf("SC_CLK_TCK") if boot == _boot_id() else None


def pid_of(identity: str) -> int:
    """Give the pid in an identity. It says nothing about who bears that number now: ask `alive`."""
    return _parts(identity)[0]


def command_of(pid: int) -> str:
    """Give the short name of a process (15 characters, as ps shows it); empty when it is gone."""
    stat = stat_of(pid)
    return stat.command if stat else ""


def ancestors(pid: int) -> frozenset[int]:
    """Give the pid, its parent, and so on up to the first process of the pid namespace."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        stat = stat_of(pid)
        if stat is None:
            break
        found.add(pid)
        pid = stat.parent
    return frozenset(found)


def descendants(pid: int) -> frozenset[int]:
    """Give the pid and all its children and theirs, counted again until two counts agree; empty when it is gone.

    One whose parent ends between two counts stays in, one whose parent had ended before is not seen (proc(5): it then
    belongs to init or a subreaper).
    """
    found: set[int] = {pid}
    before: frozenset[int] | None = None
    for _ in range(_COUNTS):
        living = _parents()
        while more := {child for child, parent in living.items() if parent in found} - found:
            found |= more
        now = frozenset(found & living.keys())
        if now == before:
            break
        before = now
    return before or frozenset()


def holders(device: int, exclude: frozenset[int] = frozenset()) -> tuple[Holder, ...]:
    """Find every process but this one that holds something on the filesystem whose `st_dev` is `device`.

    On Btrfs each subvolume has an `st_dev` of its own, so this answers for one subvolume. Processes in other mount
    namespaces are found too. Not to be seen from here: what the kernel itself holds (loop devices, swap files, NFS
    exports, mounts), files registered with io_uring whose descriptor was closed, and the descriptors of a thread that
    does not share its process's.

    Args:
        device: `os.stat(path).st_dev` of something on the filesystem.
        exclude: processes that are expected to hold something, as the application's own; those that stem from them are
            too, since a server starts new ones while it is looked at.
    """
    skip = exclude | {os.getpid()}
    found: dict[Holder, None] = {}
    for pid in _pids():
        if pid not in skip and (command := command_of(pid)):
            for path, how, writing, inode in _held(pid, device):
                line = ancestors(pid)
                if line and not line & exclude:  # no line: it has ended meanwhile, and holds nothing any more
                    found[Holder(pid, command, path, how, writing, inode)] = None
    return tuple(found)


def lasting_holders(
    device: int, exclude: frozenset[int] = frozenset(), among: Callable[[Holder], bool] = lambda _: True
) -> tuple[Holder, ...]:
    """Find the holders, as `holders` does, that do not let go within a third of a second.

    Who only looks in passing, as a monitor or a `slackwater discover` that reads a server's lock file, is none.

    Args:
        device: as for `holders`.
        exclude: as for `holders`.
        among: which of them count.
    """
    found = tuple(each for each in holders(device, exclude) if among(each))
    ends_s = time.monotonic() + _PASSING_S
    while found and time.monotonic() < ends_s:
        time.sleep(_PASSING_S / 10)
        staying = {each.pid for each in holders(device, exclude) if among(each)}
        found = tuple(each for each in found if each.pid in staying)
    return found


def passing_holders(devices: Collection[int]) -> tuple[Holder, ...]:
    """Find the holders, as `holders` does, of every moment of a third of a second: also who opens and closes again.

    Args:
        devices: of all the filesystems, which are watched together; for none of them nothing is waited for.
    """
    found: dict[Holder, None] = {}
    ends_s = time.monotonic() + _PASSING_S
    while devices:
        for each in devices:
            found |= dict.fromkeys(holders(each))
        if time.monotonic() >= ends_s:
            break
        time.sleep(_PASSING_S / 10)
    return tuple(found)


def _held(pid: int, device: int) -> Iterator[tuple[str, str, bool, int]]:
    process = f"/proc/{pid}"
    for thread in _names(f"{process}/task"):
        # Threads share one descriptor table but may have working directories of their own (unshare(2), CLONE_FS).
        for name, how in (("cwd", "working directory"), ("root", "root directory")):
            yield from _if_on(device, f"{process}/task/{thread}/{name}", how, writing=False)
    yield from _if_on(device, f"{process}/exe", "program", writing=False)
    # When the first thread has ended before the others only they still show the descriptors.
    tables = (f"{process}/task/{thread}" for thread in (str(pid), *_names(f"{process}/task")))
    table = next((each for each in tables if _names(f"{each}/fd")), process)
    for fd in _names(f"{table}/fd"):
        for held in _if_on(device, f"{table}/fd/{fd}", "open file", writing=False):
            yield held[0], held[1], _writes(f"{table}/fdinfo/{fd}"), held[3]
    yield from _mapped(table, process, device)


def _mapped(table: str, process: str, device: int) -> Iterator[tuple[str, str, bool, int]]:
    """Every file mapped, once for each way.

    maps alone does not tell: on Btrfs it shows the device of the whole filesystem where stat(2) shows the subvolume's,
    and two subvolumes number their files alike.
    """
    ways: dict[tuple[str, str, str, bool], str] = {}
    try:
        with open(f"{table}/maps", encoding="utf-8", errors="replace") as f:
            for line in f:
                span, rights, _, file_device, inode, *path = line.split(maxsplit=5)
                if inode != "0":
                    ways.setdefault((file_device, inode, "".join(path), "w" in rights and "s" in rights), span)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return
    for (*_, writing), span in ways.items():
        start, end = (int(edge, 16) for edge in span.split("-"))
        yield from _if_on(device, f"{process}/map_files/{start:x}-{end:x}", "mapped file", writing=writing)


def _if_on(device: int, link: str, how: str, *, writing: bool) -> Iterator[tuple[str, str, bool, int]]:
    """What a link of /proc leads to, if it lies on the device. The link is followed by the kernel, not by its text."""
    try:
        found = os.stat(link)
        if found.st_dev == device:
            yield os.readlink(link), how, writing, found.st_ino
    except OSError:
        return  # the process has ended, closed it, or is a kernel thread


def _writes(fdinfo: str) -> bool:
    try:
        with open(fdinfo, encoding="ascii", errors="replace") as f:
            flags = next((line.split()[1] for line in f if line.startswith("flags:")), "0")
    except OSError:
        return False
    return bool(int(flags, 8) & _WRITING)


def _parents() -> dict[int, int]:
    """The parent of every living process."""
    stats = ((pid, stat_of(pid)) for pid in _pids())
    return {pid: stat.parent for pid, stat in stats if stat and not stat.dead}


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _parts(identity: str) -> tuple[int, int, str]:
    pid, start, boot = identity.split(":")
    return int(pid), int(start), boot


def _boot_id() -> str:
    with open(_BOOT_ID, encoding="ascii") as f:
        return f.read().strip()
