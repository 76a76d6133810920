# SPDX-License-Identifier: Apache-2.0
"""Coordinators that hold a crowd: in this process, and as a command of its own that can be killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from slackwater.guard import client, third
from slackwater.guard.client import Guard
from slackwater.model.storage import Filesystem
from slackwater.system import processes
from tests.platform.crowd import Crowd, end, eventually

#: A command that holds: arms, freezes and releases, each when it reads a line. It says first who helps it.
COORDINATOR = """
import json, sys
from slackwater.errors import DeadlineError
from slackwater.guard import client, third
from slackwater.model.storage import Filesystem
program, third.PROGRAM, run_dir, freeze_s, hold_s, filesystems, *groups = sys.argv[1:]
client.PROGRAM = program
filesystems = [Filesystem(**each) for each in json.loads(filesystems)]
with client.Guard.arm(
    "s1", groups, freeze_s=float(freeze_s), hold_s=float(hold_s), run_dir=run_dir, filesystems=filesystems
) as guard:
    third_pid = guard._third._process.pid if guard._third._process else 0  # a unit of systemd's
    print(guard._process.pid, third_pid, guard._process.stdout.fileno(), flush=True)
    sys.stdin.readline()
    print("frozen", guard.freeze().took_ms, flush=True)
    sys.stdin.readline()
    try:
        print("released", guard.release().held_ms, flush=True)
    except DeadlineError as e:
        print("DeadlineError", e.sentence, flush=True)
"""


def words(
    crowd: Crowd | None, run_dir: str, *, freeze_s: float = 20, hold_s: float = 20, program: str = client.PROGRAM,
    understudy: str = third.PROGRAM, filesystems: tuple[Filesystem, ...] = (),
) -> list[str]:  # fmt: skip
    """The arguments of COORDINATOR."""
    texts = json.dumps([asdict(each) for each in filesystems])
    return [program, understudy, run_dir, str(freeze_s), str(hold_s), texts, *([crowd.cgroup] if crowd else [])]


class Command:
    """A coordinator in a process of its own, and its guard."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.guard, self.third, self.answers = (int(each) for each in self.line().split())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def next(self) -> str:
        """Let it go on to its next step, and read what it says about it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()


@contextmanager
def command(crowd: Crowd | None, run_dir: str, **more: Any) -> Iterator[Command]:
    process = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, *words(crowd, run_dir, **more)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Command(process)
    finally:
        end(process)


def stop(*pids: int) -> None:
    """Have processes stopped: only when every thread says so is none of them under way any more."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        # A thread of a freezer waits in the kernel until its filesystem is thawed, and does not stop before.
        assert eventually(lambda pid=pid: not {*states(pid)} & {"R", "S"})  # type: ignore[misc]


def states(pid: int) -> list[str]:
    found = (processes.stat_of(int(thread)) for thread in os.listdir(f"/proc/{pid}/task"))
    return [stat.state for stat in found if stat]


def kill_together(*pids: int) -> None:
    """All of them are stopped before the first one is killed, so that none sees another one die."""
    stop(*pids)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: all(map(gone, pids)))


def arm(crowd: Crowd, run_dir: str, freeze_s: float = 20, hold_s: float = 20) -> Guard:
    return Guard.arm("s1", [crowd.cgroup], freeze_s=freeze_s, hold_s=hold_s, run_dir=run_dir)


def gone(pid: int) -> bool:
    stat = processes.stat_of(pid)
    return stat is None or stat.dead
