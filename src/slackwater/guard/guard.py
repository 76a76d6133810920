# SPDX-License-Identifier: Apache-2.0
"""The thaw process: what it froze is released when ordered, at the deadline, or when the coordinator dies.

A program of its own: `python -I -S -B guard.py`, standard library only, nothing of ours. One JSON object per line on
standard input: first what to guard, then `{"order": "freeze"}` and `{"order": "release"}`; one answer each on standard
output. Where processes keep locks of applications, `begin` comes before the locks are taken and `end` after they were
given back. It never calls anything that can wait for a disk: cgroup files, a record on tmpfs, pipes and signals are
all; filesystems are frozen by programs of their own (`freezer.py`), started before it is armed. Times are seconds of
CLOCK_BOOTTIME, which goes on while the machine sleeps.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import select
import signal
import sys
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # importing it would double the time to start

IN_MODIFY, MCL_CURRENT = 2, 1  # inotify(7), mlockall(2)
#: How long a freezer may take to open its mount, a thaw to take effect, and our children to end.
READY_S, THAW_S, END_S = 4.0, 2.0, 0.5
RECORDED = ("session", "guard", "coordinator", "home", "cgroups", "filesystems", "keepers")
#: The longest sleep in each state: a poll's timeout stands still while the machine sleeps, the deadline does not.
ROUND_MS = {"armed": None, "begun": 50.0, "freezing": 1.0, "held": 50.0, "parting": 50.0, "over": None}


def now() -> float:
    """Give the time that deadlines are measured in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Cgroup:
    """One cgroup, with everything open that freezing, watching and releasing it needs."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.switch = os.open(f"{path}/cgroup.freeze", os.O_RDWR | os.O_CLOEXEC)
        self.events = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        folders = [folder for folder, _, _ in os.walk(path)]
        self.lists = [os.open(f"{each}/cgroup.procs", os.O_RDONLY | os.O_CLOEXEC) for each in folders]

    def turn(self, value: bytes) -> None:
        """Write 1 to freeze it, 0 to thaw it; never waits for it to happen."""
        os.pwrite(self.switch, value, 0)

    def wanted(self) -> bool:
        """Whether its own switch is at 1."""
        return os.pread(self.switch, 8, 0).strip() == b"1"

    def frozen(self) -> bool:
        """Whether every process in it stands still; a removed one (ENODEV) holds nobody."""
        try:
            return b"frozen 1" in os.pread(self.events, 256, 0)
        except OSError:
            return False

    def members(self) -> set[int]:
        """Every process in it and below."""
        found: set[int] = set()
        for each in self.lists:
            with suppress(OSError):  # the processes of a threaded cgroup are listed by the one above it
                os.lseek(each, 0, os.SEEK_SET)
                while text := os.read(each, 65536):
                    found.update(int(pid) for pid in text.split())
        return found


class Keeper:
    """A process that keeps an application's lock, at the head of a process group of its own."""

    def __init__(self, start: dict[str, Any]) -> None:
        self.pid, self.after = int(start["process"].partition(":")[0]), start["after"]
        self.process = os.pidfd_open(self.pid)

    def kill(self) -> None:
        """Kill it, and what it has started; the number of one that is dead may be a stranger's by now."""
        if not select.select([self.process], [], [], 0)[0]:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)

    def end(self, outside: str) -> None:
        """Kill it, and free the application from a lock that outlives it; `outside` is a cgroup that outlives ours."""
        self.kill()
        if self.after:
            with suppress(OSError):
                calm = (os.SCHED_OTHER, os.sched_param(0))
                words = ["/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', outside, *self.after]
                os.posix_spawn(words[0], words, os.environ, setsid=True, scheduler=calm)


class Filesystem:
    """One filesystem, and the freezer that has its mount open."""

    def __init__(self, start: dict[str, Any], freezer: str) -> None:
        self.mount, self.rank, self.state, self.why, self.input = start["mount"], start["rank"], "", "", b""
        orders, self.orders = os.pipe()
        self.answers, answers = os.pipe()
        theirs = (orders, answers, os.pidfd_open(os.getpid()))
        for fd in theirs:
            os.set_inheritable(fd, True)
        os.set_blocking(self.answers, False)
        words = [sys.executable, "-I", "-S", "-B", freezer]
        actions = [(os.POSIX_SPAWN_DUP2, orders, 0), (os.POSIX_SPAWN_DUP2, answers, 1)]
        self.pid = os.posix_spawn(words[0], words, os.environ, file_actions=actions, setsid=True)
        for fd in theirs:
            os.close(fd)
        self.tell({**start, "master_fd": theirs[2]})
        until = now() + READY_S
        while self.hear() != "ready":
            if self.state or now() > until:
                raise OSError(0, self.why or f"{self.mount} is not reached by its freezer")
            select.select([self.answers], [], [], 0.1)

    def tell(self, order: dict[str, Any]) -> None:
        """Give an order; that one who is dead does not get it, his answers show. A few short lines always fit."""
        with suppress(OSError):
            os.write(self.orders, json.dumps(order).encode() + b"\n")

    def hear(self) -> str:
        """Its state, by its last answer; `gone` when it is dead."""
        with suppress(BlockingIOError):
            text = os.read(self.answers, 65536)
            self.state = self.state if text else "gone"
            *lines, self.input = (self.input + text).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                self.state, self.why = answer["event"], answer.get("why", "")
        return self.state


class Guard:
    """One hold: armed, begun where locks are to be taken, freezing, held, parting until locks are back, then over."""

    def __init__(self, start: dict[str, Any]) -> None:
        self.start = start
        self.cgroups = [Cgroup(path) for path in start["cgroups"]]
        self.keepers = [Keeper(each) for each in start["keepers"]]
        self.filesystems: list[Filesystem] = []
        self.state, self.deadline, self.ordered, self.held = "armed", math.inf, 0.0, 0.0
        self.members: list[set[int]] = []
        self.answer: dict[str, Any] = {}
        self.input = b""
        # It has no name before it is whole; so whoever reads it reads all of it, and a kill leaves no half of it.
        self.folder = os.open(os.path.dirname(start["record"]), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.record = os.open(os.path.dirname(start["record"]), os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        self.libc = ctypes.CDLL(None, use_errno=True)
        # cgroup.events tells of changes every 10 ms at most: only a watch on the switches sees each stranger's hand.
        self.watch = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for each in self.cgroups:
            if self.libc.inotify_add_watch(self.watch, f"{each.path}/cgroup.freeze".encode(), IN_MODIFY) < 0:
                raise OSError(ctypes.get_errno(), f"{each.path} cannot be watched (inotify(7))")

    def settle(self) -> None:
        """Become something that no memory pressure, busy machine or death of others holds up."""
        os.chdir("/")
        with suppress(PermissionError):
            os.setsid()
        with suppress(OSError):
            os.makedirs(self.start["home"], exist_ok=True)
        for path, text in ((f"{self.start['home']}/cgroup.procs", "0"), ("/proc/self/oom_score_adj", "-1000")):
            with suppress(OSError), open(path, "w") as f:
                f.write(text)
        for each in self.cgroups:
            if {os.getpid(), os.getppid()} & each.members():
                raise OSError(0, f"{each.path} contains the guard or the coordinator itself")
            if each.wanted() or each.frozen():
                raise OSError(0, f"{each.path} was frozen by somebody else before")
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        for start in self.start.get("filesystems", ()):
            self.filesystems.append(Filesystem(start, self.start["freezer"]))
        # Only what is there now: with MCL_FUTURE and a user's limit the next allocation would kill us.
        locked = os.geteuid() == 0 and self.libc.mlockall(MCL_CURRENT) == 0
        self.say({"event": "armed", "locked": locked, "realtime": os.sched_getscheduler(0) == os.SCHED_FIFO})

    def run(self) -> None:
        """Wait for orders, the deadline, signals and the coordinator's death, until there is nothing left to guard."""
        poll = select.poll()
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(waker)
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(each, lambda *_: None)
        for fd in (0, self.start["coordinator_fd"], woken):
            poll.register(fd, select.POLLIN)
        for cgroup in self.cgroups:
            poll.register(cgroup.events, select.POLLPRI)
        self.settle()
        while True:
            left_ms = max(0.0, self.deadline - now()) * 1000
            longest_ms = ROUND_MS[self.state]
            ready = {fd for fd, _ in poll.poll(longest_ms and min(longest_ms, left_ms))}
            self.look()
            if self.start["coordinator_fd"] in ready:
                return self.release("coordinator's death")
            if woken in ready:
                os.read(woken, 64)
                if self.state == "armed":
                    return None
                self.release("signal")
            if 0 in ready and not self.obey():
                if self.state in ("armed", "over"):
                    return None
                poll.unregister(0)  # the orders have ended, the hold has not

    def look(self) -> None:
        """See what time and the kernel have done."""
        standing = [each.frozen() for each in self.cgroups]  # reading each one also ends its POLLPRI
        if now() >= self.deadline:
            self.release("deadline")
        elif self.state in ("freezing", "held") and (lost := self.lost()):
            self.release(lost)
        elif self.state == "freezing" and self.touched():
            self.release("a stranger")
        elif self.state == "freezing" and all(standing) and self.all_frozen():
            self.state, self.held = "held", now()
            self.deadline = min(self.deadline, self.held + self.start["hold_s"])
            self.members = [each.members() for each in self.cgroups]
            for each in self.filesystems:
                each.tell({"order": "until", "deadline": self.deadline})
            self.say({"event": "frozen", "at": self.held, "took_ms": (self.held - self.ordered) * 1000})

    def all_frozen(self) -> bool:
        """Whether every filesystem is frozen; if not, the next ones are begun: what lies in another one before that."""
        waiting = [each for each in self.filesystems if each.state != "frozen"]
        for each in waiting:
            if each.state == "ready" and each.rank == min(other.rank for other in waiting):
                each.state = "freezing"
                each.tell({"order": "freeze", "deadline": self.deadline})
        return not waiting

    def lost(self) -> str:
        """Why a filesystem cannot be held any more; empty when all is well."""
        states = {"ready": "", "freezing": "", "frozen": "", "disturbed": "a stranger"}
        whys = (states.get(each.hear(), each.why or f"{each.mount}: {each.state}") for each in self.filesystems)
        return next(filter(None, whys), "")

    def obey(self) -> bool:
        """Carry out what lies in the pipe; False at its end."""
        text = os.read(0, 65536)
        *lines, self.input = (self.input + text).split(b"\n")
        for line in lines:
            order = json.loads(line)["order"]
            if self.state == "over":
                self.say(self.answer)
            elif order == "begin" and self.state == "armed":
                self.begin()
                self.say({"event": self.state})
            elif order == "freeze" and self.state in ("armed", "begun"):
                self.freeze()
            elif order == "release" and self.state != "armed":
                self.release("order")
            elif order == "end" and self.state == "parting":
                self.part("order")
            else:
                self.say({"event": "refused", "why": f"{order} makes no sense when {self.state}"})
        return bool(text)

    def begin(self) -> None:
        """Record what is about to be held; from here on there is a deadline."""
        self.state, self.ordered = "begun", now()
        self.deadline = self.ordered + self.start["freeze_s"]
        try:
            record = {key: self.start.get(key, ()) for key in RECORDED}
            os.write(self.record, json.dumps(record | {"deadline_s": self.deadline}).encode())
            name = os.path.basename(self.start["record"])
            os.link(f"/proc/self/fd/{self.record}", name, dst_dir_fd=self.folder, follow_symlinks=True)
        except OSError as e:
            self.release(f"failure: {e}")

    def freeze(self) -> None:
        """Freeze everything; whether it stands still is seen later."""
        if self.state == "armed":
            self.begin()
        if self.state != "begun":
            return
        self.state = "freezing"
        try:
            for each in self.cgroups:
                each.turn(b"1")
        except OSError as e:
            self.release(f"failure: {e}")
        self.touched()

    def release(self, by: str) -> None:
        """Let go of everything, each whatever becomes of the others; then say how it went."""
        if self.state == "armed":
            for keeper in self.keepers:
                keeper.kill()
        if self.state == "parting":
            self.part(by)
        if self.state not in ("begun", "freezing", "held"):
            return
        asked, whole = now(), self.state == "held"
        by = "deadline" if asked >= self.deadline else by
        broken = not (whole and self.stood_still())
        let_go = now()
        for filesystem in reversed(self.filesystems):  # what carries others first: their thaws write to it
            filesystem.tell({"order": "thaw"})
        for each in self.cgroups:
            with suppress(OSError):
                each.turn(b"0")
        stuck = self.await_thaw(asked, by)
        broken |= any(each.state != "thawed" for each in self.filesystems)
        self.answer = {"event": "released" if whole or by != "deadline" else "late", "by": by, "broken": broken}
        self.answer |= {"stuck": stuck, "held_ms": (asked - self.held) * 1000 if whole else 0.0}
        self.answer |= {"asked_at": let_go, "deadline_at": self.deadline, "thaw_ms": (now() - let_go) * 1000}
        if self.start["keepers"] and whole and by == "order":
            self.state = "parting"
            self.say(self.answer)
        else:
            self.part(by)

    def await_thaw(self, asked: float, by: str) -> list[str]:
        """Wait until everything moves again; what does not is left to those who read the record."""
        while True:
            if by != "order" or now() >= self.deadline:
                self.end_keepers()  # a lock does not outlive its deadline, whatever a filesystem does
            stuck = [each.path for each in self.cgroups if each.frozen()]
            gone = [each.mount for each in self.filesystems if each.hear() == "gone"]
            stuck += [each.mount for each in self.filesystems if each.state not in ("thawed", "broken", "idle")]
            if stuck == gone or now() > asked + THAW_S:
                return stuck
            time.sleep(0.0002)

    def part(self, by: str) -> None:
        """End the keepers, which have given their locks back if all went well; then say how it went."""
        by = "deadline" if self.state == "parting" and now() >= self.deadline else by
        if by != "order" or self.answer["broken"]:
            self.end_keepers()
        with suppress(OSError):
            if not self.answer["stuck"]:
                os.unlink(self.start["record"])
        self.state, self.deadline = "over", math.inf
        self.answer |= {"by": by, "frozen_ms": (now() - self.ordered) * 1000}
        self.say(self.answer)

    def end_keepers(self) -> None:
        """End those that were not ended before."""
        while self.keepers:
            self.keepers.pop(0).end(os.path.dirname(self.start["home"]))

    def stood_still(self) -> bool:
        """Nobody thawed, moved or ended one of ours since all of them stood still."""
        try:
            still = all(each.wanted() and each.frozen() for each in self.cgroups)
            still = still and not self.touched() and not self.lost()
            return still and self.members == [each.members() for each in self.cgroups]
        except OSError:
            return False

    def touched(self) -> bool:
        """Whether anybody, ourselves included, wrote to a switch since this was last asked."""
        try:
            return bool(os.read(self.watch, 65536))
        except BlockingIOError:
            return False

    def dismiss(self) -> None:
        """Let the freezers end, so that our cgroup is empty when we have ended; one that hangs ends when it can."""
        until = now() + END_S
        for each in self.filesystems:
            os.close(each.orders)
            while os.waitpid(each.pid, os.WNOHANG) == (0, 0) and now() < until:
                time.sleep(0.001)

    def leave(self) -> None:
        """Remove our own cgroup; whoever looks after a dead coordinator's may have looked before we had one."""
        with suppress(OSError):
            with open(f"{os.path.dirname(self.start['home'])}/cgroup.procs", "w") as f:
                f.write("0")
            os.rmdir(self.start["home"])

    def say(self, answer: dict[str, Any]) -> None:
        """Answer, unless nobody listens any more."""
        with suppress(OSError):
            os.write(1, json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Guard one hold; whatever goes wrong here, nothing stays frozen."""
    os.set_blocking(1, False)
    guard = None
    try:
        with open(0, "rb", buffering=0, closefd=False) as lines:
            guard = Guard(json.loads(lines.readline()))
        guard.run()
    except OSError as e:
        why = ": ".join(str(each) for each in (e.filename, e.strerror) if each)
        os.write(1, json.dumps({"event": "refused", "why": why}).encode() + b"\n")
    finally:
        if guard:
            guard.release("failure")
            guard.dismiss()
            guard.leave()


if __name__ == "__main__":
    main()
