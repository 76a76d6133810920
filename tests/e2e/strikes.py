# SPDX-License-Identifier: Apache-2.0
"""Moments in the life of a command, as anybody can see them from outside.

Its phases are told on its standard error; what it has frozen stands in its guard's record on tmpfs, and in the kernel;
how far its effects came stands in the journal. Nothing in the program helps with this.
"""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from glob import escape, glob
from typing import Any, Self

from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.processes import pid_of
from tests.e2e.spawner import Command
from tests.e2e.support import World

LOOK_S = 0.0002
RANKS = ("intent", "done", "undone")
Moment = Callable[[World, Command], bool]
"""Waits for a moment in the life of a command; False when the command ended before."""


def told(phase: str) -> Moment:
    """The command has told that a phase began."""
    return lambda _, command: _until(command, lambda: bool(command.told("phase", phase)))


def freezing(world: World, command: Command) -> bool:
    """The guard has written down what it is about to freeze."""
    return _until(command, lambda: record_of(world) is not None)


def standing(world: World, command: Command) -> bool:
    """The kernel says that everything stands still."""
    return _until(command, lambda: _frozen(record_of(world)))


def thawing(world: World, command: Command) -> bool:
    """The kernel says that everything moves again."""
    if not standing(world, command):
        return False
    record = record_of(world)
    return _until(command, lambda: not _frozen(record))


def rotating(world: World, command: Command) -> bool:
    """The catalog says that a replica is being deleted."""

    path = f"{world.lab.state_dir}/catalog.sqlite"

    def deleting() -> bool:
        with contextlib.suppress(sqlite3.OperationalError), contextlib.closing(_read(path)) as catalog:
            return bool(catalog.execute("SELECT 1 FROM replicas WHERE state = 'deleting'").fetchall())
        return False

    return _until(command, deleting)


def record_of(world: World) -> dict[str, Any] | None:
    """The record of the guard that holds something, or is about to."""
    for path in glob(f"{escape(world.lab.run_dir)}/guard/guard.*.json"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as f:
            found: dict[str, Any] = json.load(f)
            return found
    return None


def understudies_of(world: World) -> list[int]:
    """The pids of those who release when both others are dead."""
    folder = f"{world.lab.run_dir}/guard/"
    found = []
    for pid in (int(each) for each in os.listdir("/proc") if each.isdecimal()):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f:
            words = f.read().decode(errors="replace").split("\0")
            if any(each.endswith("/understudy.py") for each in words) and any(
                each.startswith(folder) for each in words
            ):
                found.append(pid)
    return found


def guard_of(record: dict[str, Any]) -> int:
    """The guard's pid."""
    return pid_of(record["guard"])


def _frozen(record: dict[str, Any] | None) -> bool:
    return record is not None and all(map(is_frozen, record["cgroups"]))


def is_frozen(cgroup: str) -> bool:
    """The kernel's word, not that of the switch; a cgroup that is gone holds nobody."""
    with contextlib.suppress(OSError), open(f"{cgroup}/cgroup.events", encoding="ascii") as f:
        return "frozen 1" in f.read()
    return False


def _until(command: Command, there: Callable[[], bool]) -> bool:
    while not there():
        if command.poll() is not None:
            return False
        time.sleep(LOOK_S)
    return command.poll() is None


# -- the journal ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the open session has come: kind and state of each effect, in the order of their intents."""

    effects: tuple[tuple[str, str], ...] = ()
    decided: bool = False
    settled: bool = False

    def reached(self, target: "Target") -> bool:
        """Whether it is there, or beyond."""
        if target.entry < 0:
            return self.settled or (self.decided and target.state == "decided")
        states = [state for _, state in self.effects]
        return len(states) > target.entry and RANKS.index(states[target.entry]) >= RANKS.index(target.state)


@dataclass(frozen=True, slots=True)
class Target:
    """A moment in the journal."""

    entry: int
    """Which effect, from 0 on; -1 for the session itself."""
    state: str
    """intent, done or undone; decided or settled for the session."""
    kind: str
    lasts_s: float = 0.0
    """How long the session stayed there when it was watched."""

    def __str__(self) -> str:
        return f"{self.entry}:{self.kind}:{self.state}"


@dataclass
class JournalWatch:
    """The journal, read from outside. A context: while it is open, SQLite keeps its files beside the database."""

    path: str
    _db: sqlite3.Connection | None = field(default=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._db is not None:
            self._db.close()

    def progress(self, *, begun: bool) -> Progress:
        """What it says now; `begun`: a session had been seen before, so that none means a settled one."""
        with contextlib.suppress(sqlite3.Error):
            self._db = self._db or _read(self.path)
            rows = self._db.execute(
                "SELECT decision, effect.kind, state FROM session LEFT JOIN effect ON session = session.id"
                " ORDER BY effect.id"
            ).fetchall()
            if not rows:
                return Progress(settled=begun)
            effects = tuple((kind, state) for _, kind, state in rows if kind)
            return Progress(effects, rows[0][0] == "finish")
        return Progress()


def at(target: Target, delay_s: float = 0.0) -> Moment:
    """The journal shows that the command has come so far; and a while later."""

    def wait(world: World, command: Command) -> bool:
        begun = False
        with JournalWatch(f"{world.lab.state_dir}/journal.sqlite") as journal:
            while not (progress := journal.progress(begun=begun)).reached(target):
                begun = begun or bool(progress.effects)
                if command.poll() is not None:
                    return False
                time.sleep(LOOK_S)
        time.sleep(delay_s)
        return command.poll() is None

    return wait


def targets(world: World, command: Command) -> list[Target]:
    """Watch a command to its end, and give every moment of its journal that a strike can be timed by."""
    seen: list[tuple[float, Progress]] = []
    with JournalWatch(f"{world.lab.state_dir}/journal.sqlite") as journal:
        while command.poll() is None:
            progress = journal.progress(begun=bool(seen))
            if (progress.effects or progress.settled) and (not seen or seen[-1][1] != progress):
                seen.append((SYSTEM_CLOCK.boot_s(), progress))
            time.sleep(LOOK_S)
    assert command.poll() == 0, command.complaint()
    last = max((each for _, each in seen), key=lambda each: len(each.effects))
    found = [Target(-1, "decided", "session"), Target(-1, "settled", "session")]
    for entry, (kind, _) in enumerate(last.effects):
        final = max(RANKS.index(each.effects[entry][1]) for _, each in seen if len(each.effects) > entry)
        together = any(_intended_at_once(each, entry) for _, each in seen)
        found += [Target(entry, state, kind) for state in RANKS[together : max(final, 1) + 1]]
    return [_timed(each, seen) for each in found]


def _intended_at_once(progress: Progress, entry: int) -> bool:
    """Whether an effect was intended together with the one before, so that both intents are one moment."""
    states = [state for _, state in progress.effects[: entry + 1]]
    return entry > 0 and states[entry - 1 :] == ["intent", "intent"]


def _timed(target: Target, seen: list[tuple[float, Progress]]) -> Target:
    begin = next((at_s for at_s, each in seen if each.reached(target)), None)
    end = next((at_s for at_s, _ in seen if begin is not None and at_s > begin), begin)
    lasts_s = 0.0 if begin is None or end is None else end - begin
    return Target(target.entry, target.state, target.kind, lasts_s)


def _read(path: str) -> sqlite3.Connection:
    """Open one of Slackwater's databases for reading only."""
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0, isolation_level=None)


def exists(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        return f.read().rpartition(")")[2].split()[0] not in "ZX"
    return False
