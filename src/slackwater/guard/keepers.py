# SPDX-License-Identifier: Apache-2.0
"""Processes that keep locks of applications, as the coordinator speaks with them; the guard kills them if need be."""

import os
import select
import subprocess
from contextlib import suppress

from slackwater.guard.understudy import end_keeper
from slackwater.model.hold import Keeper
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.processes import identity

_END_S = 1.0


class RunningKeeper:
    """A keeper that was started, at the head of a process group of its own."""

    def __init__(self, keeper: Keeper) -> None:
        self.keeper, self._input = keeper, b""
        self._process = subprocess.Popen(
            keeper.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            bufsize=0, start_new_session=True, cwd="/",
        )  # fmt: skip
        self.process = identity(self._process.pid)

    def order(self, word: str, timeout_s: float) -> tuple[str, str]:
        """Give an order, and return the answer with what was said about it; two empty texts when none came in time."""
        with suppress(OSError):
            if self._process.stdin and not self._process.stdin.closed:
                os.write(self._process.stdin.fileno(), word.encode() + b"\n")
                return self.answer(timeout_s)
        return "", ""

    def answer(self, timeout_s: float) -> tuple[str, str]:
        """Wait for its next line: a word and what follows it; two empty texts when none came in time."""
        pipe, ends_s = self._process.stdout, SYSTEM_CLOCK.boot_s() + timeout_s
        while pipe and b"\n" not in self._input:
            left_s = max(0.0, ends_s - SYSTEM_CLOCK.boot_s())
            if not select.select([pipe], [], [], left_s)[0] or not (text := os.read(pipe.fileno(), 4096)):
                return "", ""
            self._input += text
        line, _, self._input = self._input.partition(b"\n")
        word, _, more = line.decode(errors="replace").strip().partition(" ")
        return word, more

    def end(self) -> None:
        """Kill it, and free the application where the lock does not end with it."""
        end_keeper(self.process, self.keeper.after)

    def close(self) -> bool:
        """Let it end by itself, which gives the lock back; kill it when it does not, and say so. Idempotent."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.end()
            self._process.wait()
            return False
        return True
