# SPDX-License-Identifier: Apache-2.0
"""The coordinator's side of the guard: starts it, gives it orders, and releases in its place when it fails.

A hold was good only when `Guard.release` returns. Whoever of the two is left releases: the guard sees our death, a
thread of ours sees the guard's, the understudy sees both, and the next command all three (`leftovers.py`).
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from slackwater.errors import DeadlineError, RefusedError, SlackwaterError
from slackwater.guard import understudy
from slackwater.guard.keepers import RunningKeeper
from slackwater.guard.leftovers import HOME, RECORD
from slackwater.guard.third import Third
from slackwater.model.hold import Keeper
from slackwater.model.storage import Filesystem
from slackwater.system import cgroups as kernel
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.processes import command_of, identity, stat_of

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guard.py")
_ARM_S = 5.0
_ANSWER_S = 1.0
#: How long a keeper may try, before the window, whether its lock can be had.
_READY_S = 60.0
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
    """One hold, guarded by a process of its own. May be used from several threads; holds once."""

    def __init__(
        self, session: str, cgroups: Sequence[str], freeze_s: float, hold_s: float, run_dir: str,
        keepers: Sequence[RunningKeeper] = (), filesystems: Sequence[Filesystem] = (),
    ) -> None:  # fmt: skip
        """Start the process; `arm` also waits until it is ready."""
        self._session, self._cgroups, self._keepers = session, tuple(dict.fromkeys(cgroups)), tuple(keepers)
        self._filesystems = [asdict(each) for each in sorted(filesystems, key=lambda each: each.rank)]
        self._third: Third | None = None
        self._answer_s = _ANSWER_S + (understudy.THAW_S if filesystems else 0.0)
        self._freeze_s, self._hold_s = freeze_s, hold_s
        self._record = os.path.join(run_dir, f"{RECORD}{session}.json")
        self._home = f"{kernel.root()}/{HOME}{session}.{os.getpid()}"
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
    def arm(
        cls, session: str, cgroups: Sequence[str], *, freeze_s: float, hold_s: float, run_dir: str,
        keepers: Sequence[Keeper] = (), filesystems: Sequence[Filesystem] = (),
    ) -> Self:  # fmt: skip
        """Start a guard that is ready to freeze all this and to have these locks held; takes some 50 ms.

        Args:
            session: the session's id.
            cgroups: folders; each exists, is not frozen, and does not contain us.
            freeze_s: from the order to freeze to the latest release.
            hold_s: from the moment everything stands still to the latest release.
            run_dir: a folder on tmpfs that later commands find again.
            keepers: who keeps the applications' locks, in the order in which they take them.
            filesystems: what is frozen when the cgroups stand still, by rank.

        Raises:
            RefusedError: one of the cgroups or filesystems cannot be guarded or one of the locks not be had; the
                sentence says why.
            SlackwaterError: the guard, its understudy or a keeper did not start in time.
        """
        started = _start_keepers(keepers)
        try:
            guard = cls(session, cgroups, freeze_s, hold_s, run_dir, started, filesystems)
        except BaseException:
            _close_keepers(started)
            raise
        try:
            guard._greet()
        except BaseException:
            guard.close()
            raise
        return guard

    def _greet(self) -> None:
        self._third = Third(self._session, self._record, identity(os.getpid()), identity(self._process.pid))
        answer = self._ask(
            _ARM_S,
            session=self._session,
            guard=identity(self._process.pid),
            coordinator=identity(os.getpid()),
            coordinator_fd=self._coordinator_fd,
            cgroups=self._cgroups,
            filesystems=self._filesystems,
            freezer=understudy.FREEZER,
            keepers=[{"process": each.process, "after": each.keeper.after} for each in self._keepers],
            home=self._home,
            record=self._record,
            freeze_s=self._freeze_s,
            hold_s=self._hold_s,
        )
        if answer.get("event") == "refused":
            raise RefusedError(f"Nothing can be frozen: {answer['why']}.", data="Nothing was changed.", code="guard")
        if answer.get("event") != "armed":
            raise SlackwaterError(
                f"The guard did not start within {_ARM_S:g} s.",
                data="Nothing was frozen.",
                code="guard",
                retryable=True,
            )
        self._third.await_ready()

    def freeze(self) -> Frozen:
        """Have the locks taken, one after the other, then freeze; wait for all of it, at most until the deadline.

        Raises:
            DeadlineError: a lock was not to be had, somebody did not stand still in time, or the guard failed;
                everything was released.
        """
        with self._talk:
            if self._state != "armed":
                raise self._fail("A guard holds only once.")
            self._state, self._overdue_s = "frozen", SYSTEM_CLOCK.boot_s() + self._freeze_s + _GRACE_S
            self._watcher.start()
            if self._keepers:
                self._take_locks()
            answer = self._ask(max(0.0, self._overdue_s - SYSTEM_CLOCK.boot_s()), order="freeze")
            if answer.get("event") != "frozen":
                raise self._fail(_why_not_frozen(answer, self._cgroups, self._freeze_s))
            self._overdue_s = min(self._overdue_s, float(answer["at"]) + self._hold_s + _GRACE_S)
            return Frozen(float(answer["at"]), float(answer["took_ms"]))

    def _take_locks(self) -> None:
        if (answer := self._ask(_ANSWER_S, order="begin")).get("event") != "begun":
            raise self._fail(why_broken(answer))
        for keeper in self._keepers:
            word, why = keeper.order("hold", max(0.0, self._overdue_s - SYSTEM_CLOCK.boot_s()))
            if word != "held":
                raise self._fail(f"The application's lock was not to be had: {why or 'its keeper does not answer'}.")

    def _return_locks(self) -> Mapping[str, Any]:
        """Have each keeper prove that its lock was in force until now, and give it back, the last one first."""
        for keeper in reversed(self._keepers):
            word, why = keeper.order("release", max(0.0, self._overdue_s - SYSTEM_CLOCK.boot_s()))
            if word != "released":
                raise self._fail(f"The application's lock was lost: {why or 'its keeper is gone or does not answer'}.")
        return self._good(self._ask(_ANSWER_S, order="end"))

    def _good(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        if problem := self._failure or why_broken(answer):
            raise self._fail(problem)
        return answer

    def release(self) -> Released:
        """Thaw and give the locks back, and learn whether everything had been held until now.

        Raises:
            DeadlineError: it had not: released before our order, disturbed by somebody else, or the guard is dead or
                does not answer. Everything was thawed; what was made meanwhile must not be kept.
        """
        with self._talk:
            if self._state != "frozen":
                raise self._fail("Nothing is held.")
            answer = self._good(self._ask(self._answer_s, order="release"))
            if self._keepers:
                answer = self._return_locks()
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
            _close_keepers(self._keepers)
            if not held or not self._thaw():
                understudy.forget(self._record, self._home)
            if self._third:
                self._third.close()

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
            hint=" && ".join(self._by_hand()) if problems else "",
        )

    def _by_hand(self) -> list[str]:
        thaws = [f"fsfreeze --unfreeze {each['mount']}" for each in reversed(self._filesystems)]
        return thaws + [f"echo 0 > {each}/cgroup.freeze" for each in self._cgroups]

    def _thaw(self) -> list[str]:
        for keeper in self._keepers:
            keeper.end()
        problems = [problem for each in self._cgroups if (problem := kernel.thaw(each))]
        return problems + understudy.thaw_all(self._filesystems)[1]

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
        if "stuck" in answer:  # the others are thawed, and what is frozen there from now on is not ours
            self._filesystems = [each for each in self._filesystems if each["mount"] in answer["stuck"]]
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
        return "The hold was broken: meanwhile somebody thawed it, or moved or ended a process of the application."
    if answer.get("stuck") != []:
        return f"Not everything moves again: {', '.join(answer.get('stuck', ()))}."
    return "" if answer.get("event") == "released" else "The guard gave an answer that makes no sense."


def _start_keepers(keepers: Sequence[Keeper]) -> list[RunningKeeper]:
    """Start them side by side, and wait until each has everything loaded and has seen that its lock can be had."""
    started: list[RunningKeeper] = []
    try:
        started.extend(RunningKeeper(keeper) for keeper in keepers)
        for each in started:
            word, why = each.answer(_READY_S)
            if word == "busy":
                raise RefusedError(
                    f"The application's lock is not to be had: {why}.",
                    data="Nothing was changed.",
                    hint='Have its processes frozen instead: hold = "process-freeze" in the specification.',
                    code="locked",
                    retryable=True,
                )
            if word != "ready":
                raise SlackwaterError(
                    f"The keeper of the application's lock did not start: {why or 'it said nothing'}.",
                    data="Nothing was changed.",
                    code="keeper",
                )
    except BaseException:
        _close_keepers(started)
        raise
    return started


def _close_keepers(keepers: Sequence[RunningKeeper]) -> None:
    for each in keepers:
        each.close()


def _why_not_frozen(answer: Mapping[str, Any], cgroups: Sequence[str], freeze_s: float) -> str:
    if answer.get("by") != "deadline":
        return why_broken(answer) or "Nothing was frozen."
    waiting: list[int] = []
    for _ in range(10):  # the thaw wakes everybody; who waits for a disk waits again a moment later
        members = [pid for each in cgroups for pid in kernel.members(each)]
        waiting = [pid for pid in members if (stat := stat_of(pid)) and stat.state == "D"]
        if waiting:
            break
        time.sleep(0.01)
    named = ", ".join(f"{command_of(pid)} ({pid})" for pid in waiting[:5])
    tail = f": {named} waits for a disk" if named else ""
    return f"The application did not stand still within {freeze_s:g} s{tail}."


def _readable(fd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout_s) * 1000))
