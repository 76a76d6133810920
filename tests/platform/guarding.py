# SPDX-License-Identifier: Apache-2.0
"""Coordinators that hold a crowd: in this process, and as a command of its own that can be killed."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from slackwater.guard import client
from slackwater.guard.client import Guard
from slackwater.system import processes
from tests.platform.crowd import Crowd, end

#: A command that holds: arms, freezes and releases, each when it reads a line.
COORDINATOR = """
import sys
from slackwater.errors import DeadlineError
from slackwater.guard import client
program, run_dir, freeze_s, hold_s, *groups = sys.argv[1:]
client.PROGRAM = program
with client.Guard.arm("s1", groups, freeze_s=float(freeze_s), hold_s=float(hold_s), run_dir=run_dir) as guard:
    print(guard._process.pid, flush=True)
    sys.stdin.readline()
    print("frozen", guard.freeze().took_ms, flush=True)
    sys.stdin.readline()
    try:
        print("released", guard.release().held_ms, flush=True)
    except DeadlineError as e:
        print("DeadlineError", e.sentence, flush=True)
"""


class Command:
    """A coordinator in a process of its own, and its guard."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.guard = int(self.line())

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
def command(
    crowd: Crowd, run_dir: str, *, freeze_s: float = 20, hold_s: float = 20, program: str = client.PROGRAM
) -> Iterator[Command]:
    process = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, program, run_dir, str(freeze_s), str(hold_s), crowd.cgroup],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Command(process)
    finally:
        end(process)


def arm(crowd: Crowd, run_dir: str, freeze_s: float = 20, hold_s: float = 20) -> Guard:
    return Guard.arm("s1", [crowd.cgroup], freeze_s=freeze_s, hold_s=hold_s, run_dir=run_dir)


def gone(pid: int) -> bool:
    stat = processes.stat_of(pid)
    return stat is None or stat.dead
