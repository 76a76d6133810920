# SPDX-License-Identifier: Apache-2.0
"""How late the guard lets go, over hundreds of kills: against the coordinator's death, and against the deadline.

    .venv/bin/python bench/deadline.py [STRIKES]

As root: real cgroups, guards and coordinators, several side by side. Each coordinator is killed (SIGKILL) or stopped
(SIGSTOP) inside its hold. Measured is the guard's call to thaw, by its own clock; the thaw's return is told apart. A
watch on the cgroup's switch, which is nobody of the guard's, sees most of the calls, and sees none before the guard
says that it made it.
"""

import ctypes
import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from slackwater.system import cgroups
from slackwater.system.clock import SYSTEM_CLOCK

SIDE_BY_SIDE = 4
HOLD_S = 0.1
_PATIENCE_S = 30.0
_IN_MODIFY, _IN_NONBLOCK = 2, 0o4000
#: Forks one coordinator for each line, so that what is waited for is the guard and not our imports.
_FORGE = """
import json, os, signal, sys
from slackwater.guard.client import Guard
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    if os.fork():
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    session, cgroup, hold_s, run_dir = json.loads(line)
    guard = Guard.arm(session, [cgroup], freeze_s=20, hold_s=hold_s, run_dir=run_dir)
    guard.freeze()
    # On a busy machine the deadline may have passed before we read, and both answers were read at once.
    print(json.dumps([os.getpid(), guard._process.stdout.fileno(), guard._input.decode()]), flush=True)
    while True:
        signal.pause()
"""


@dataclass(frozen=True, slots=True)
class Strike:
    """One coordinator that was killed or stopped."""

    killed: bool
    """False: it was stopped, and the deadline let go."""
    by: str
    """What the guard says why it let go."""
    late_ms: float
    """From the death or the deadline to the call that thaws."""
    thaw_ms: float
    """From the call until everything moved again."""
    witness_ms: float | None
    """From the call until the watch saw it; None where it was not looked at in time."""
    moves: bool
    """Whether everything moved again."""


class Bench:
    """Strikes at coordinators, one after the other."""

    def __init__(self, name: str, run_dir: str) -> None:
        self.name, self.run_dir, self.number = name, run_dir, 0
        words = [sys.executable, "-c", _FORGE]
        self.forge = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        """End what makes coordinators."""
        if self.forge.stdin:
            self.forge.stdin.close()
        self.forge.wait()

    def strike(self, *, kill: bool) -> Strike:
        """Hold, strike, and wait until everything moves again."""
        self.number += 1
        with _sleeper(f"{cgroups.root()}/{self.name}.{self.number}") as cgroup, _watch(cgroup) as watch:
            pid, answers, said = self._hold(cgroup, 20.0 if kill else HOLD_S)
            try:
                os.read(watch, 4096)  # the freeze
                time.sleep(random.uniform(0, HOLD_S / 5))
                at_s = SYSTEM_CLOCK.boot_s()
                os.kill(pid, signal.SIGKILL if kill else signal.SIGSTOP)
                answer, witnessed_s = (json.loads(said), None) if said else _answer(answers, watch)
            finally:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                os.close(answers)
            due_s = at_s if kill else float(answer["deadline_at"])
            asked_s = float(answer["asked_at"])
            return Strike(
                killed=kill, by=str(answer["by"]), late_ms=(asked_s - due_s) * 1000, thaw_ms=float(answer["thaw_ms"]),
                witness_ms=None if witnessed_s is None else (witnessed_s - asked_s) * 1000,
                moves=_eventually(lambda: not _frozen(cgroup)),
            )  # fmt: skip

    def _hold(self, cgroup: str, hold_s: float) -> tuple[int, int, str]:
        """A coordinator that holds: its pid, a descriptor of its guard's answers, and the last one if it was read."""
        order = [f"{self.name}.{self.number}", cgroup, hold_s, self.run_dir]
        if self.forge.stdin is None or self.forge.stdout is None:
            raise AssertionError("it was started with pipes")
        self.forge.stdin.write(json.dumps(order) + "\n")
        self.forge.stdin.flush()
        pid, number, said = json.loads(self.forge.stdout.readline())
        return pid, os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), said


@contextmanager
def _sleeper(cgroup: str) -> Iterator[str]:
    """A cgroup with a process in it."""
    os.mkdir(cgroup)
    child = subprocess.Popen(["sleep", "1000"])
    try:
        _write(f"{cgroup}/cgroup.procs", str(child.pid))
        yield cgroup
    finally:
        _write(f"{cgroup}/cgroup.freeze", "0")
        child.kill()
        child.wait()
        _eventually(lambda: _removed(cgroup))


@contextmanager
def _watch(cgroup: str) -> Iterator[int]:
    """Everybody's writes to the cgroup's switch (inotify(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(_IN_NONBLOCK | os.O_CLOEXEC)
    try:
        if libc.inotify_add_watch(watch, f"{cgroup}/cgroup.freeze".encode(), _IN_MODIFY) < 0:
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        yield watch
    finally:
        os.close(watch)


def _answer(fd: int, watch: int) -> tuple[dict[str, Any], float | None]:
    """The guard's last answer, and the moment at which the watch saw the thaw, if it was seen before that."""
    witnessed_s: float | None = None
    while True:
        watched = [watch] if witnessed_s is None else []
        ready = select.select([fd, *watched], [], [], _PATIENCE_S)[0]
        now_s = SYSTEM_CLOCK.boot_s()
        if not ready:
            raise TimeoutError("nobody thawed")
        if watch in ready:
            witnessed_s = now_s
        if fd in ready:
            answer: dict[str, Any] = json.loads(os.read(fd, 65536))
            return answer, witnessed_s


def _eventually(condition: Callable[[], bool]) -> bool:
    ends_s = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > ends_s:
            return False
        time.sleep(0.001)
    return True


def _frozen(cgroup: str) -> bool:
    with open(f"{cgroup}/cgroup.events", encoding="ascii") as f:
        return "frozen 1" in f.read()


def _removed(cgroup: str) -> bool:
    with suppress(OSError):
        os.rmdir(cgroup)
    return not os.path.exists(cgroup)


def _write(path: str, text: str) -> None:
    with open(path, "w") as f:
        f.write(text)


def strikes(count: int, run_dir: str) -> list[Strike]:
    """Strike so often, every other time by a kill, several side by side.

    Args:
        count: how often in all.
        run_dir: a folder on tmpfs for the guards' records.
    """
    found: list[Strike] = []
    failures: list[BaseException] = []

    def work(number: int) -> None:
        bench = Bench(f"sw-{os.getpid()}-{number}", run_dir)
        try:
            for turn in range(number, count, SIDE_BY_SIDE):
                found.append(bench.strike(kill=turn // SIDE_BY_SIDE % 2 == 0))  # noqa: PERF401  # each counts
        except BaseException as e:  # noqa: BLE001  # raised below, when the others are back
            failures.append(e)
        finally:
            bench.close()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(SIDE_BY_SIDE)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    if failures:
        raise failures[0]
    return found


def figures(found: list[Strike]) -> dict[str, object]:
    """What is told of them, for the page on reliability."""
    late = [each.late_ms for each in found]
    return {
        "what": "guard deadline error",
        "kills": len(found),
        "median_ms": round(statistics.median(late), 3),
        "max_ms": round(max(late), 3),
        "thaw_max_ms": round(max(each.thaw_ms for each in found), 3),
    }


def main() -> None:
    """Strike, and print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    run_dir = f"/dev/shm/sw-deadline-{os.getpid()}"  # noqa: S108
    os.mkdir(run_dir)
    began = time.monotonic()
    try:
        found = strikes(count, run_dir)
    finally:
        os.rmdir(run_dir)
    print(f"{count} strikes in {time.monotonic() - began:.1f} s                        median      p99     most")
    for name, values in {
        "death of the coordinator to the thaw's call": [each.late_ms for each in found if each.killed],
        "deadline to the thaw's call": [each.late_ms for each in found if not each.killed],
        "the thaw's call until everything moves": [each.thaw_ms for each in found],
        "the call until a stranger saw it": [each.witness_ms for each in found if each.witness_ms is not None],
    }.items():
        middle, most = statistics.median(values), max(values)
        print(f"{name:<46}{middle:>9.2f}{sorted(values)[int(len(values) * 0.99)]:>9.2f}{most:>9.2f}  ms")
    print(json.dumps(figures(found)))


if __name__ == "__main__":
    main()
