# SPDX-License-Identifier: Apache-2.0
"""The third: releases what the guard's record names when coordinator and guard are both gone, and does nothing else.

A program of its own: `python -I -S -B understudy.py RECORD COORDINATOR GUARD CGROUP`, standard library only, nothing of
ours. It waits for both deaths by pidfd, and ends when there is nothing left that could need it. Started again, it
looks again: systemd does so in the unit's ExecStopPost= when it was killed itself. Commands release by the same
functions what all three have left.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

FREEZER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "freezer.py")
MCL_CURRENT = 1
#: How late others may be before they count as hung, how long a filesystem is waited for, and how often is looked.
GRACE_S, THAW_S, ROUND_S = 0.5, 2.0, 0.5
TRIES, RETRY_S = 3, 1.0


def now() -> float:
    """Give the time that deadlines are measured in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """The name of this boot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
        return f.read().strip()


def alive(identity: str) -> bool:
    """Whether the process `pid:start time:boot id` runs; a dead one that nobody waited for does not (proc(5))."""
    pid, start, boot = identity.split(":")
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    dead = fields[0] in b"ZXx" and int(fields[17]) <= 1
    return not dead and fields[19].decode() == start and boot == boot_id()


def is_frozen(cgroup: str) -> bool:
    """Whether a cgroup was told to freeze; one that is gone holds nobody."""
    try:
        with open(f"{cgroup}/cgroup.freeze", encoding="ascii") as f:
            return f.read().strip() == "1"
    except OSError:
        return False


def thaw_cgroup(cgroup: str) -> str:
    """Thaw; returns why it could not be done. Idempotent."""
    try:
        fd = os.open(f"{cgroup}/cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"0")
        finally:
            os.close(fd)
    except OSError as e:
        return f"{cgroup} could not be thawed: {e.strerror}." if os.path.exists(cgroup) else ""
    return ""


def end_keeper(process: str, after: tuple[str, ...]) -> None:
    """Kill the keeper of this identity, with what it started; then run what frees the application. Idempotent."""
    if alive(process):
        with suppress(ProcessLookupError):
            os.killpg(int(process.partition(":")[0]), signal.SIGKILL)
    if after:
        with suppress(OSError):
            subprocess.Popen(after, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             start_new_session=True, cwd="/")  # fmt: skip


class Thaw:
    """The thaw of one filesystem, by a process of its own: it may have to wait for a freeze that is still under way."""

    def __init__(self, filesystem: Mapping[str, Any]) -> None:
        self.mount = filesystem["mount"]
        master = os.pidfd_open(os.getpid())
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", FREEZER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, pass_fds=(master,), start_new_session=True, cwd="/", bufsize=0,
            )  # fmt: skip
        finally:
            os.close(master)
        start = {**filesystem, "anywhere": True, "master_fd": master}
        if self.process.stdin:
            with suppress(OSError):
                os.write(self.process.stdin.fileno(), json.dumps(start).encode() + b'\n{"order": "thaw"}\n')

    def wait(self, until: float) -> tuple[bool, str]:
        """Whether it had been frozen until now, and why it could not be thawed: empty when it is not frozen."""
        try:
            said = self.process.communicate(timeout=max(0.0, until - now()))[0]
        except subprocess.TimeoutExpired:
            return False, f"{self.mount} could not be thawed yet: its freeze has not come back."
        answers = [json.loads(line) for line in said.splitlines()]
        last = answers[-1] if answers else {"event": "refused", "why": "nothing was said"}
        if last["event"] == "refused":
            return False, f"{self.mount} could not be thawed: {last['why']}."
        return last["event"] == "thawed", ""


def thaw_all(filesystems: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Thaw filesystems, what carries others first: those that were frozen, and what stands against the others."""
    thaws = [Thaw(each) for each in reversed(filesystems)]
    until = now() + THAW_S
    ends = [(each.mount, *each.wait(until)) for each in thaws]
    return [mount for mount, frozen, _ in ends if frozen], [problem for *_, problem in ends if problem]


def forget(record: str, home: str) -> None:
    """Remove the record, and the cgroup that the guard was in."""
    with suppress(OSError):
        os.unlink(record)
    with suppress(OSError):
        os.rmdir(home)


def release_left(record: str) -> list[str]:
    """Release what a record names, unless its guard is at work; returns what was done, one sentence each.

    Raises:
        OSError, ValueError, LookupError, TypeError, AttributeError: it is not there, or not a guard's record.
    """
    with open(record, encoding="utf-8") as f:
        left = json.load(f)
    here = left["guard"].rpartition(":")[2] == boot_id()
    if here and alive(left["guard"]) and now() < left["deadline_s"] + GRACE_S:
        return []
    frozen, problems = _let_go(left) if here else ([], [])
    if problems:
        return problems
    forget(record, left.get("home", ""))
    said = [f"did not release {each}; it was still frozen and moves again" for each in frozen]
    if here and left["keepers"]:
        said.append("did not end the lock of an application; its keeper was killed")
    return [f"The guard of session {left['session']} {each}." for each in said]


def _let_go(left: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Everything, each whatever becomes of the others: what was still frozen, and what could not be thawed."""
    for each in left["keepers"]:
        end_keeper(each["process"], tuple(each["after"]))
    frozen = [each for each in left["cgroups"] if is_frozen(each)]
    problems = [problem for each in frozen if (problem := thaw_cgroup(each))]
    thawed, stuck = thaw_all(left.get("filesystems", []))
    return frozen + thawed, problems + stuck


class Watched:
    """A process that is waited for."""

    def __init__(self, identity: str) -> None:
        self.fd = -1
        with suppress(OSError):  # it is gone
            fd = os.pidfd_open(int(identity.partition(":")[0]))
            self.fd = fd if alive(identity) else -1

    def gone(self, within_s: float = 0.0) -> bool:
        """Wait for its death for a while; whether it is dead, waited for or not."""
        return self.fd < 0 or bool(select.select([self.fd], [], [], within_s)[0])


def watch(record: str, coordinator: Watched, guard: Watched) -> None:
    """Wait until the hold is over, or whoever is left does not release it; then release it."""
    while not guard.gone(ROUND_S) and not overdue(record):
        pass  # it sees the coordinator's death, and releases
    until = now() + GRACE_S
    while not coordinator.gone() and os.path.exists(record) and now() < until:
        time.sleep(0.01)  # it releases at once, unless it hangs
    for _ in range(TRIES):
        if not os.path.exists(record):
            return
        for said in release_left(record):
            say(said)
        if os.path.exists(record):
            time.sleep(RETRY_S)


def overdue(record: str) -> bool:
    """Whether the hold's deadline has passed without a release."""
    try:
        with open(record, encoding="utf-8") as f:
            return bool(now() >= json.load(f)["deadline_s"] + GRACE_S)
    except (OSError, ValueError, LookupError):
        return False


def say(text: str) -> None:
    """Tell systemd's journal, or whoever has started us and may be gone."""
    with suppress(OSError):
        os.write(1, f"{text}\n".encode())


def settle(cgroup: str) -> None:
    """Become something that the end of others does not end."""
    os.chdir("/")
    with suppress(PermissionError):
        os.setsid()
    with suppress(OSError):
        if cgroup:
            os.makedirs(cgroup, exist_ok=True)
            with open(f"{cgroup}/cgroup.procs", "w") as f:
                f.write("0")
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as f:
        f.write("-1000")
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    if os.geteuid() == 0:
        ctypes.CDLL(None).mlockall(MCL_CURRENT)


def leave(cgroup: str) -> None:
    """Remove the cgroup of our own; nobody else would."""
    with suppress(OSError):
        if cgroup:
            with open(f"{os.path.dirname(cgroup)}/cgroup.procs", "w") as f:
                f.write("0")
            os.rmdir(cgroup)


def main() -> None:
    """Wait, release, and leave nothing behind."""
    record, coordinator, guard, cgroup = sys.argv[1:]
    settle(cgroup)
    watched = Watched(coordinator), Watched(guard)
    say("ready")
    with suppress(FileNotFoundError):
        watch(record, *watched)
    leave(cgroup)


if __name__ == "__main__":
    main()
