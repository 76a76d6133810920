# SPDX-License-Identifier: Apache-2.0
"""One simulated host: its processes, its time, its luck, and what has been seen to go wrong.

Everything that is simulated passes `World.point` before and after whatever it does. There the applications go on, there
faults strike, and there a process that was killed finds out that it is dead.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slackwater.config.specification import Specification
    from tests.simulation.applications import Application
    from tests.simulation.faults import Faults
    from tests.simulation.guards import SimGuard
    from tests.simulation.oracle import Oracle
    from tests.simulation.storage import Storage

OWNER = "11111111-2222-3333-4444-555555555555"


class Killed(BaseException):
    """The process is dead: whatever it still runs has no effect."""


@dataclass(eq=False)
class Process:
    """A process of ours: one command."""

    identity: str
    dead: bool = False
    """Killed, or ended."""
    still: bool = False
    """Stopped: it begins nothing until it goes on."""
    late: int = 0
    """Calls that have not come back from the kernel: until they do, the process is there."""
    in_kernel: bool = False
    """Such a call comes to its end just now, in a dead process."""
    handlers: dict[int, Callable[[], object]] = field(default_factory=dict)
    guards: list[SimGuard] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    """Applications whose writer was asked to freeze, and not yet to thaw."""
    failed: set[str] = field(default_factory=set)
    """Applications whose writer failed."""
    marks: dict[str, int] = field(default_factory=dict)
    """By application, the last write that it had acknowledged when its window began."""


#: How often somebody writes between two points.
_WRITES = 0.2

PROCESS: ContextVar[Process] = ContextVar("process")


class World:
    """A host, below which nothing is real and above which everything is."""

    faults: Faults
    storage: Storage
    oracle: Oracle

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.random = self.rng.random
        self.time_s: Callable[[], float] = lambda: 0.0
        self.stopped: Callable[[Process], None] = lambda process: None
        """Told of a process that begins to stand still."""
        self.wall_offset_s = 0.0
        self.trace: list[tuple[float, str]] = []
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.processes: dict[str, Process] = {}
        """Those that are there, by identity."""
        self.holders: set[str] = set()
        """Those whose locks are still held; a real kernel drops them with the process, here it has to unwind first."""
        self.applications: dict[str, Application] = {}
        self.at_work: list[Application] = []
        """The same, in order."""
        self.specifications: dict[str, Specification] = {}
        self.turned_to = ""
        """The replica that the last recovery was planned from."""
        self.cgroups: dict[str, set[int]] = {}
        self.frozen: dict[str, SimGuard] = {}
        """By cgroup, who froze it."""
        self.leftovers: list[SimGuard] = []
        """Guards that died together with their coordinator, and left their record."""
        self.mounts: dict[str, tuple[str, str, str]] = {}
        """Target → filesystem, session and name of the tree that is shown there."""
        self.enclosures: set[str] = set()
        self.boot = 1
        self.begun: set[str] = set()
        """The sessions."""
        self._numbers = 0

    def number(self) -> int:
        """A number that was not given before."""
        self._numbers += 1
        return self._numbers

    def tell(self, text: str) -> None:
        """Remember what happened."""
        self.trace.append((self.time_s(), text))

    def violate(self, text: str) -> None:
        """Remember what must never happen."""
        self.tell(f"VIOLATION {text}")
        self.violations.append(text)

    # -- processes -------------------------------------------------------------------------------------------------

    def spawn(self) -> Process:
        """A new process of ours."""
        process = Process(f"{self.number() + 1000}:{int(self.time_s() * 100)}:{self.boot}")
        self.processes[process.identity] = process
        return process

    def point(self, name: str, errors: str = "") -> None:
        """Between two things that the running process does.

        Args:
            name: of the point; traced, and what faults aim at.
            errors: what may be raised here: `plain` (SlackwaterError), `os` (OSError as well), `any` (anything).

        Raises:
            Killed: the process is dead.
        """
        process = PROCESS.get()
        if process.dead:
            if process.in_kernel:
                return
            raise Killed(name)
        self.trace.append((self.time_s(), name))
        luck = self.random()
        if luck < _WRITES:
            self.at_work[int(luck * len(self.at_work) / _WRITES)].go_on()
        if self.faults.armed:
            self.faults.strike(name, errors, process)

    def kill(self, process: Process, *, guards: bool) -> None:
        """The running process dies at once; `guards`: its guards die with it."""
        self.slay(process, guards=guards)
        raise Killed

    def slay(self, process: Process, *, guards: bool) -> None:
        """The same to another."""
        process.dead = True
        self.tell(f"killed: process {process.identity}{' and its guard' if guards else ''}")
        for guard in process.guards:
            guard.coordinator_died(killed=guards)
        self.reap(process)

    def end(self, process: Process) -> None:
        """The process has come to its end, however."""
        if not process.dead:
            process.dead = True
            for guard in process.guards:
                guard.coordinator_died(killed=False)
        self.reap(process)

    def reap(self, process: Process) -> None:
        """A dead process is gone when nothing of it is in the kernel any more."""
        if process.dead and not process.late:
            self.processes.pop(process.identity, None)
            for each in self.applications.values():
                each.rested_by.discard(process.identity)

    def reboot(self) -> None:
        """Everything that was not on the disk is gone, and so are all processes."""
        self.tell("reboot")
        self.boot += 1
        for process in list(self.processes.values()):
            process.dead, process.late = True, 0
            for guard in process.guards:
                guard.vanish()
            self.reap(process)
        self.frozen.clear()
        self.leftovers.clear()
        self.mounts.clear()
        self.enclosures.clear()
        for application in self.applications.values():
            application.die(power=True)
        lost = self.storage.lose_unsynced(self.rng)
        for application in self.applications.values():
            if not application.survives:
                application.owed -= lost
        for application in self.applications.values():
            if self.rng.random() < 0.7:
                application.start_by_itself()


_WORLD: list[World] = []


def now() -> World:
    """The world that is simulated just now."""
    return _WORLD[-1]


def enter(world: World) -> None:
    """Simulate this one from now on."""
    _WORLD[:] = [world]


def plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as they are when they come back from JSON."""
    return {key: str(value) for key, value in facts.items()}
