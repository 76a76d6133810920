# SPDX-License-Identifier: Apache-2.0
"""The coordinator's side of the guard: starts it, gives it orders, and releases in its place when it fails.

A hold was good only when `Guard.release` returns. Whoever of the two is left releases: the guard sees our death, a
thread of ours sees the guard's, and `release_leftovers` of the next command sees that both are dead.
"""

import glob
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from slackwater.errors import DeadlineError, RefusedError, SlackwaterError
from slackwater.system import cgroups as kernel
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.processes import alive, command_of, identity, stat_of

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard.py")
_RECORD, _HOME = "guard.", "slackwater-guard."
_ARM_S = 5.0
_ANSWER_S = 1.0
#: How late the guard may be before it counts as hung, and how often that is looked at.
_GRACE_S, _ROUND_S = 0.5, 0.1


@dataclass(frozen=True, slots=True)
class Frozen:
    """Every process stands still."""

    at_s: float
    """Seconds since boot (CLOCK_BOOTTIME) at which the last one did."""
    took_ms: float
    """From the order to that moment."""


@dataclass(frozen=True, slots=True)
class Released:
    """Every process moves again: by our order, not before it, and undisturbed."""

    held_ms: float
    """From the moment the last process stood still to the order to release."""
    frozen_ms: float
    """From the order to freeze until everything moved again."""


class Guard:
    """One hold of some cgroups, guarded by a process of its own. May be used from several threads; holds once."""

    def __init__(self, session: str, cgroups: Sequence[str], freeze_s: float, hold_s: float, run_dir: str) -> None:
        """Start the process; `arm` also waits until it is ready."""
        self._session, self._cgroups = session, tuple(dict.fromkeys(cgroups))
        self._freeze_s, self._hold_s = freeze_s, hold_s
        self._record = os.path.join(run_dir, f"{_RECORD}{session}.json")
        self._home = f"{kernel.root()}/{_HOME}{session}.{os.getpid()}"
        self._state, self._failure, self._overdue_s, self._input = "armed", "", 0.0, b""
        self._talk = threading.Lock()
        self._watcher = threading.Thread(target=self._watch, name="slackwater-guard", daemon=True)
        self._coordinator_fd = os.pidfd_open(os.getpid())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-B", PROGRAM],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                pass_fds=(self._coordinator_fd,), start_new_session=True, cwd="/",
                env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
            )  # fmt: skip
        finally:
            os.close(self._coordinator_fd)
        self.died: int = os.pidfd_open(self._process.pid)
        """A descriptor that becomes readable when the guard has died; valid until `close`."""

    @classmethod
    def arm(cls, session: str, cgroups: Sequence[str], *, freeze_s: float, hold_s: float, run_dir: str) -> Self:
        """Start a guard that is ready to freeze these cgroups; takes some 30 ms.

        Args:
            session: the session's id.
            cgroups: folders; each exists, is not frozen, and does not contain us.
            freeze_s: from the order to freeze to the latest release.
            hold_s: from the moment everything stands still to the latest release.
            run_dir: a folder on tmpfs that later commands find again.

        Raises:
            RefusedError: one of the cgroups cannot be guarded; the sentence says why.
            SlackwaterError: the guard did not start within 5 s.
        """
        guard = cls(session, cgroups, freeze_s, hold_s, run_dir)
        try:
            guard._greet()
        except BaseException:
            guard.close()
            raise
        return guard

    def _greet(self) -> None:
        answer = self._ask(
            _ARM_S,
            session=self._session,
            guard=identity(self._process.pid),
            coordinator=identity(os.getpid()),
            coordinator_fd=self._coordinator_fd,
            cgroups=self._cgroups,
            home=self._home,
            record=self._record,
            freeze_s=self._freeze_s,
            hold_s=self._hold_s,
        )
        if answer.get("event") == "refused":
            raise RefusedError(f"Nothing can be frozen: {answer['why']}.", data="Nothing was changed.", code="guard")
        if answer.get("event") != "armed":
            raise SlackwaterError(
                f"The guard did not start within {_ARM_S:g} s.", data="Nothing was frozen.", code="guard"
            )

    def freeze(self) -> Frozen:
        """Freeze, and wait until every process stands still, at most until the deadline.

        Raises:
            DeadlineError: somebody did not stand still in time, or the guard failed; everything was thawed.
        """
        with self._talk:
            if self._state != "armed":
                raise self._fail("A guard holds only once.")
            self._state, self._overdue_s = "frozen", SYSTEM_CLOCK.boot_s() + self._freeze_s + _GRACE_S
            self._watcher.start()
            answer = self._ask(self._freeze_s + _GRACE_S, order="freeze")
            if answer.get("event") != "frozen":
                raise self._fail(_why_not_frozen(answer, self._cgroups, self._freeze_s))
            self._overdue_s = min(self._overdue_s, float(answer["at"]) + self._hold_s + _GRACE_S)
            return Frozen(float(answer["at"]), float(answer["took_ms"]))

    def release(self) -> Released:
        """Thaw, and learn whether everything had stood still until now.

        Raises:
            DeadlineError: it had not: released before our order, disturbed by somebody else, or the guard is dead or
                does not answer. Everything was thawed; what was made meanwhile must not be kept.
        """
        with self._talk:
            if self._state != "frozen":
                raise self._fail("Nothing is held.")
            answer = self._ask(_ANSWER_S, order="release")
            if problem := self._failure or why_broken(answer):
                raise self._fail(problem)
            self._state = "over"
            return Released(float(answer["held_ms"]), float(answer["frozen_ms"]))

    def wait_died(self, timeout_s: float) -> bool:
        """Wait for the guard's death; say whether it has died."""
        return _readable(self.died, timeout_s)

    def close(self) -> None:
        """End the guard; what may be frozen is thawed first. Idempotent."""
        if self._state == "frozen":
            self._fail("The hold was given up.")
        with self._talk:
            if self._state == "closed":
                return
            held, self._state = self._state == "failed", "closed"
            with suppress(OSError):
                self._tell(order="release")
            self._end_process()
            if not held or not self._thaw():
                _forget(self._record, self._home)

    def _end_process(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._watcher.ident and self._watcher is not threading.current_thread():
            self._watcher.join()
        os.close(self.died)

    def _watch(self) -> None:
        """Release in the guard's place when it dies, or hangs beyond the deadline."""
        while not (died := self.wait_died(_ROUND_S)) and SYSTEM_CLOCK.boot_s() < self._overdue_s:
            if self._state != "frozen":
                return
        if self._state == "frozen":
            self._fail("The guard was killed." if died else "The guard did not release at the deadline.")

    def _fail(self, sentence: str) -> DeadlineError:
        """Thaw at once, whatever the guard does, and say what happened first."""
        self._failure = self._failure or sentence
        frozen, self._state = self._state in ("frozen", "failed"), "closed" if self._state == "closed" else "failed"
        problems = self._thaw() if frozen else []
        return DeadlineError(
            self._failure,
            data=" ".join(problems) or "The application goes on; nothing of this moment may be kept.",
            hint=" && ".join(f"echo 0 > {each}/cgroup.freeze" for each in self._cgroups) if problems else "",
        )

    def _thaw(self) -> list[str]:
        return [problem for each in self._cgroups if (problem := kernel.thaw(each))]

    def _ask(self, timeout_s: float, **order: object) -> dict[str, Any]:
        """Give an order and return the next answer; an empty one when the guard is dead or silent."""
        pipe, end_s = self._process.stdout, SYSTEM_CLOCK.boot_s() + timeout_s
        try:
            self._tell(**order)
            while pipe and b"\n" not in self._input:
                if not _readable(pipe.fileno(), end_s - SYSTEM_CLOCK.boot_s()):
                    return {}
                if not (text := os.read(pipe.fileno(), 65536)):
                    return {}
                self._input += text
        except OSError:
            return {}
        line, _, self._input = self._input.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _tell(self, **order: object) -> None:
        if self._process.stdin and not self._process.stdin.closed:
            os.write(self._process.stdin.fileno(), json.dumps(order).encode() + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def why_broken(answer: Mapping[str, Any]) -> str:
    """Say why a guard's answer to `release` does not make the hold a good one; empty when it does."""
    if not answer:
        return f"The guard is dead or did not answer within {_ANSWER_S:g} s."
    if answer.get("by") == "deadline":
        return "The deadline had passed: the application was released before the snapshot was done."
    if answer.get("by") != "order":
        return f"The application was released before its time ({answer.get('by', answer.get('why'))})."
    if answer.get("broken") is not False:
        return "The hold was broken: meanwhile somebody thawed, moved or ended a process of the application."
    if answer.get("stuck") != []:
        return f"Not everything moves again: {', '.join(answer.get('stuck', ()))}."
    return "" if answer.get("event") == "released" else "The guard gave an answer that makes no sense."


def release_leftovers(run_dir: str) -> list[str]:
    """Thaw what dead or hung guards have left frozen; costs well under 1 ms when there is nothing.

    Returns: what was done, one sentence each.
    """
    said: list[str] = []
    for record in glob.glob(f"{glob.escape(run_dir)}/{_RECORD}*.json"):
        try:
            with open(record, encoding="utf-8") as f:
                said += _release_left(record, json.load(f))
        except FileNotFoundError:
            continue  # its guard has just finished
        except (OSError, ValueError, LookupError, TypeError):
            said.append(f"{record} is not a guard's record and was left alone.")
    with suppress(SlackwaterError):
        for home in glob.glob(f"{glob.escape(kernel.root())}/{_HOME}*"):
            coordinator = home.rpartition(".")[2]
            if coordinator.isdecimal() and _ended(int(coordinator)):  # so no guard is about to move in
                _remove_home(home)
    return said


def _ended(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is None or stat.dead


def _remove_home(home: str) -> None:
    """Remove the cgroup of a guard whose coordinator is dead; the guard itself may be about to see that and to end."""
    ends_s = SYSTEM_CLOCK.boot_s() + _GRACE_S
    _forget("", home)
    while os.path.isdir(home) and SYSTEM_CLOCK.boot_s() < ends_s:
        time.sleep(0.01)
        _forget("", home)


def _release_left(record: str, left: Mapping[str, Any]) -> list[str]:
    here = left["guard"].rpartition(":")[2] == identity(os.getpid()).rpartition(":")[2]
    guarded = alive(left["guard"]) and SYSTEM_CLOCK.boot_s() < left["deadline_s"] + _GRACE_S
    if here and guarded:
        return []
    frozen = [each for each in left["cgroups"] if kernel.is_frozen(each)] if here else []
    problems = [problem for each in frozen if (problem := kernel.thaw(each))]
    if problems:
        return problems
    _forget(record)
    return [
        f"The guard of session {left['session']} did not release {each}; it was still frozen and moves again."
        for each in frozen
    ]


def _why_not_frozen(answer: Mapping[str, Any], cgroups: Sequence[str], freeze_s: float) -> str:
    if answer.get("by") != "deadline":
        return why_broken(answer) or "Nothing was frozen."
    waiting = [pid for each in cgroups for pid in kernel.members(each) if (stat := stat_of(pid)) and stat.state == "D"]
    named = ", ".join(f"{command_of(pid)} ({pid})" for pid in waiting[:5])
    tail = f": {named} waits for a disk" if named else ""
    return f"The application did not stand still within {freeze_s:g} s{tail}."


def _forget(record: str, home: str = "") -> None:
    with suppress(OSError):
        os.unlink(record)
    with suppress(OSError):
        os.rmdir(home)


def _readable(fd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))
