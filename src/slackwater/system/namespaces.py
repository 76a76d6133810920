# SPDX-License-Identifier: Apache-2.0
"""Enclosures: namespaces in which an engine can run on clones without being able to reach the original.

An enclosure has mount, process, IPC, network and UTS namespaces of its own. Clones are mounted there over the original
paths, so that absolute links lead into them; everything else of the host can be read and not written; there is no
network. It is held by one process (`keeper.py`) and found again by that process's name, which holds the owner and the
session. It ends with it: its mounts are in no other namespace, so killing it leaves nothing.

unshare(1), nsenter(1) and setsid(1) are of util-linux, which every distribution has.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import SlackwaterError
from slackwater.model.facts import Facts
from slackwater.model.storage import MountOrder
from slackwater.system import mounts, processes, services
from slackwater.system.command import CommandError, run

_KEEPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "keeper.py")
#: How the keeper of any installation is called.
_NAME = "/slackwater/system/keeper.py"
_START_S, _END_S, _POLL_S = 30.0, 30.0, 0.01


def mark_of(owner: str, session: str) -> str:
    """The name by which an enclosure is found."""
    return f"slackwater-clone:{owner}:{session}"


def keeper_of(mark: str) -> int | None:
    """The pid of the first process of an enclosure, as this host numbers it; None when there is none."""
    return next((pid for pid, found in _keepers() if found == mark), None)


def enclosed(pid: int) -> bool:
    """Whether a process lives in an enclosure, of whatever installation: it is nobody's application.

    Who went in by nsenter(1) does not stem from its first process, but shares its mounts.
    """
    line = processes.ancestors(pid)
    return any(keeper in line or pid in _members(keeper) for keeper, _ in _keepers())


@dataclass(frozen=True, slots=True)
class Cover:
    """An enclosure in which a clone lies over a path of the host's."""

    keeper: int
    session: str
    path: str
    members: frozenset[int]
    """Everybody who lives in it, as this host numbers them; also who only waits for its end."""


def covers(paths: Iterable[str]) -> tuple[Cover, ...]:
    """The enclosures that lie over one of the paths: once a volume is exchanged there, their links lead into it."""
    found = []
    for keeper, mark in _keepers():
        try:
            table, own = mounts.read(keeper), mounts.read()
        except OSError:
            continue  # it has ended
        path = next((each for each in paths if _covered(each, table, own)), "")
        if path:
            found.append(Cover(keeper, mark.rpartition(":")[2], path, _members(keeper)))
    return tuple(found)


def end_over(paths: Iterable[str]) -> None:
    """End the enclosures that lie over one of the paths. None does: nothing.

    Raises:
        SlackwaterError: somebody inside does not end.
    """
    for each in covers(paths):
        _kill(each.keeper)


def no_hindrance(paths: Iterable[str]) -> frozenset[int]:
    """Everybody in an enclosure that a recovery at these paths ends (`end_over`), or takes its mount from (`let_go`).

    Not in one where somebody uses what is mounted there: as long as he does, it cannot be taken away.
    """
    paths = tuple(paths)
    found = frozenset[int]().union(*(each.members for each in covers(paths)))
    for keeper in _showing(paths):
        members = _members(keeper)
        if not any(_used(path, members) for path in paths):
            found |= members
    return found


def let_go(paths: Iterable[str]) -> None:
    """Unmount, in enclosures that lie elsewhere, what the host has mounted at the paths. None shows it: nothing.

    An enclosure begins with a copy of all of the host's mounts, and its own go and come with nobody's: unmounting there
    is not seen on the host. Never lazily: what is used stays, and the checks that follow say by whom.
    """
    for keeper, targets in _showing(paths).items():
        for target in targets:
            with suppress(CommandError):
                run("nsenter", "--target", str(keeper), "--mount", "--", "umount", "-n", target)


def _showing(paths: Iterable[str]) -> dict[int, list[str]]:
    """The keepers of enclosures that show what the host has at one of the paths; where, innermost first."""
    live = {_root(path) for path in paths} - {None}
    found = {}
    for keeper, _ in _keepers():
        with suppress(OSError):  # it has ended
            table = mounts.read(keeper)
            shown = [m for m in reversed(table) if (m.superblock, m.root) in live]
            targets = [m.target for m in shown if mounts.at(m.target, table) is m]
            if targets:
                found[keeper] = targets
    return found


def _root(path: str) -> tuple[str, str] | None:
    """What of which filesystem is at a path, as mountinfo has it: also where a mount of more than that leads to it."""
    with suppress(OSError):
        if mount := mounts.mount_of(path):
            within = os.path.relpath(os.path.realpath(path), mount.target)
            return mount.superblock, os.path.normpath(os.path.join(mount.root, within))
    return None


def _used(path: str, members: frozenset[int]) -> bool:
    with suppress(OSError):
        return bool(processes.lasting_holders(os.stat(path).st_dev, among=lambda each: each.pid in members))
    return False


def _covered(path: str, table: Sequence[mounts.Mount], own: Sequence[mounts.Mount]) -> bool:
    theirs, ours = mounts.at(path, table), mounts.at(path, own)
    if theirs is None:
        return False
    return ours is None or (theirs.superblock, theirs.root) != (ours.superblock, ours.root)


def _members(keeper: int) -> frozenset[int]:
    """Everybody in the mount namespace of an enclosure's first process."""
    found = set()
    with suppress(OSError):
        space = os.stat(f"/proc/{keeper}/ns/mnt").st_ino
        for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal() and space != mounts.own_namespace()):
            with suppress(OSError):
                if os.stat(f"/proc/{pid}/ns/mnt").st_ino == space:
                    found.add(pid)
    return frozenset(found)


def inside(mark: str) -> tuple[str, ...]:
    """The words before a command that run it inside an enclosure, as root.

    Raises:
        SlackwaterError: there is no such enclosure.
    """
    pid = keeper_of(mark)
    if pid is None:
        raise SlackwaterError(
            "The namespaces of the clone are gone: it was stopped, or the system was started anew.",
            data="The application was not touched.",
            code="no-enclosure",
        )
    return ("nsenter", "--target", str(pid), "--mount", "--pid", "--ipc", "--net", "--uts", "--")


def impossible() -> str:
    """Why no enclosure can be had here; empty when one can."""
    for program in ("unshare", "nsenter", "setsid", "mount"):
        if shutil.which(program) is None:
            return f"{program} is not installed (util-linux)"
    words = ("unshare", "--mount", "--pid", "--ipc", "--net", "--uts", "--fork", "true")
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/")
    return "" if done.returncode == 0 else done.stderr.decode(errors="replace").strip() or "unshare failed"


@dataclass(frozen=True, slots=True)
class Enclose:
    """An enclosure with clones over the original paths. The tuples belong together, one item for each mount."""

    kind: ClassVar[str] = "namespace.enclose"
    owner: str
    session: str
    folder: str
    """For sockets and logs: the one place of the host that can be written to from inside."""
    fstypes: tuple[str, ...]
    sources: tuple[str, ...]
    options: tuple[str, ...]
    """Of each mount, with commas between them."""
    targets: tuple[str, ...]

    @property
    def mark(self) -> str:
        """What it is found by."""
        return mark_of(self.owner, self.session)

    def describe(self) -> str:
        """Say what making it does."""
        return f"make namespaces in which clones lie at {', '.join(self.targets)} and nothing else can be written to"

    def make(self) -> Facts:
        """Start it and wait until all is mounted. Runs already: that one.

        Raises:
            SlackwaterError: the kernel or mount(8) refused.
        """
        pid = keeper_of(self.mark)
        if pid is None:
            make_passable(self.folder)
            self._start()
            pid = keeper_of(self.mark)
        return {"mark": self.mark, "pid": pid}

    def undo(self) -> None:
        """End everybody inside; the mounts end with the last of them. Then remove the folder.

        Raises:
            SlackwaterError: somebody inside does not end.
        """
        for pid, found in _keepers():
            if found == self.mark:
                _kill(pid)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        rows = zip(self.fstypes, self.sources, self.options, self.targets, strict=True)
        shown = [{"fstype": f, "source": s, "options": o.split(","), "target": t} for f, s, o, t in rows]
        words = (
            *services.own_scope(), "setsid", "--fork", "unshare", "--mount", "--pid", "--ipc", "--net", "--uts",
            "--fork", "--mount-proc", "--", sys.executable, "-I", "-S", "-B", _KEEPER, self.mark,
        )  # fmt: skip
        plan = json.dumps({"mounts": shown, "folder": self.folder}).encode()
        said = _answer(words, plan)
        if said != "ready":
            raise SlackwaterError(
                f"The namespaces for the clone could not be made: {said.removeprefix('failed: ') or 'no answer'}.",
                data="The application was not touched.",
                code="no-enclosure",
            )


def _answer(words: Sequence[str], plan: bytes) -> str:
    """Start the keeper and give its first line. unshare(1) stays its parent, with our pipe open: no end is awaited."""
    answer, theirs = os.pipe()
    try:
        started = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, cwd="/")
        os.close(theirs)
        started.communicate(plan)  # setsid(1) ends at once
        said, ends_s = b"", time.monotonic() + _START_S
        while not said.endswith(b"\n") and (left_s := ends_s - time.monotonic()) > 0:
            if select.select([answer], [], [], left_s)[0]:
                more = os.read(answer, 4096)
                if not more:
                    break
                said += more
    except OSError as e:
        return str(e)
    finally:
        os.close(answer)
    return said.decode(errors="replace").strip()


def enclose(owner: str, session: str, folder: str, shown: Sequence[tuple[MountOrder, str]]) -> Enclose:
    """Plan an enclosure.

    Args:
        owner: the installation's id.
        session: whose it is.
        folder: for sockets and logs.
        shown: what is mounted, and where.
    """
    return Enclose(
        owner, session, folder,
        fstypes=tuple(order.fstype for order, _ in shown),
        sources=tuple(order.source for order, _ in shown),
        options=tuple(",".join(order.options) for order, _ in shown),
        targets=tuple(target for _, target in shown),
    )  # fmt: skip


def make_passable(folder: str) -> None:
    """Make a folder and the one that holds it, whatever our umask is: the engine's user has to reach its socket."""
    for path in (os.path.dirname(folder), folder):
        os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o755)  # noqa: S103


def _keepers() -> list[tuple[int, str]]:
    """Pid and mark of every enclosure. A user could call a process the same, so only ours and root's count."""
    found = []
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().decode(errors="replace").split("\0")[:-1]
            ours = len(words) > 1 and words[-2].endswith(_NAME) and os.stat(f"/proc/{pid}").st_uid in (0, os.geteuid())
            if ours and _is_first(pid):
                found.append((pid, words[-1]))
        except OSError:
            continue
    return found


def _is_first(pid: int) -> bool:
    """Whether it is process 1 of a namespace below ours; the waiting unshare(1) bears the same words."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
        numbers = next((line.split()[1:] for line in f if line.startswith("NSpid:")), [])
    return len(numbers) > 1 and numbers[-1] == "1"


def _kill(pid: int) -> None:
    """Kill the first process of an enclosure, and wait until nobody is left in its mount namespace."""
    members = _members(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    everybody = []
    for each in {pid, *members}:
        with suppress(ProcessLookupError):
            everybody.append(processes.identity(each))
    ends_s = time.monotonic() + _END_S
    while any(processes.alive(who) for who in everybody):
        if time.monotonic() > ends_s:
            raise SlackwaterError(
                f"The clone's processes have not ended (pid {pid} is their first).",
                data="The application was not touched.",
                hint="Something keeps them in the kernel: dmesg. Then: slackwater reconcile",
                code="not-stopped",
            )
        time.sleep(_POLL_S)
