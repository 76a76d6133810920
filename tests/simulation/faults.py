# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, and when: drawn for each session from the world's seed, and aimed at points of it.

A fault is aimed at the n-th point that a session passes, whichever that is, or at the n-th point of one name, or at one
while somebody stands still; a delay at the n-th blocking call, or at the n-th of one name.
"""

import random
from dataclasses import dataclass

from slackwater.errors import SlackwaterError
from tests.simulation.world import Process, World

#: What may happen at a point, and how often in comparison.
AT_A_POINT = (
    ("crash", 24), ("crash-with-guard", 5), ("power-cut", 12), ("error", 30), ("defect", 6), ("clock", 6),
    ("application-restart", 8), ("strange-thaw", 4), ("guard-death", 5), ("signal", 8), ("duplicate", 6),
    ("disk-full", 6), ("application-start", 4), ("application-death", 4),
)  # fmt: skip
#: Those that need somebody to stand still, and are aimed at the points where that is so.
_TO_A_HOLD = ("strange-thaw", "guard-death")
_HELD = "while somebody stands still"
#: What may happen to a blocking call.
TO_A_CALL = (("delay-before", 1), ("delay-after", 1))
LATE_S = (0.3, 2.0, 8.0, 11.5, 30.0, 75.0, 900.0)

#: Points at which something is decided: they are aimed at more often than by chance.
_CRITICAL = (
    "commit:before", "commit:after", "guard.freeze:before", "guard.freeze:after", "guard.freeze:locked",
    "guard.release:before", "guard.release:after", "writer.prepare:after", "writer.freeze:before",
    "writer.freeze:after", "writer.thaw:before", "document:before", "document:made", "document:after",
    "journal.intend:before", "journal.intend:after", "journal.done:before", "journal.done:after",
    "journal.decide:before", "journal.decide:after", "journal.settle:before", "journal.settle:after",
    "journal.undone:before", "journal.begin:after", "catalog:before", "catalog:after", "sim.place:after",
    "sim.snapshot:before", "sim.clone:made", "sim.clone:after", "sim.exchange:before", "sim.exchange:made",
    "sim.exchange:after", "sim.exchange.undo:before", "sim.exchange.undo:made", "sim.clone.keep:before",
    "sim.bar:after", "sim.unbar:before", "sim.seal:before", "sim.seal:after", "sim.delete:before", "sim.delete:made",
    "sim.delete:after", "app.stop:before", "app.stop:after", "app.start:before", "app.start:after",
    "app.stop.undo:before", "app.start.undo:before", "writer.confirm:before", "writer.confirm:after",
    "writer.rewrite:before", "writer.start_clone:before", "provider.altered:before", "provider.open:before",
    "provider.find:before", "cgroup.gather:after", "hook:before", "hook:after", "present:after",
    "enclose:after", "pin:after", "writer.check_clone:before",
)  # fmt: skip
_CALLS = (
    "The snapshot", "The snapshot", "The freeze", "The thaw", "freeze", "freeze", "release", "release",
    "_prepare_hold", "_open_commits",
    "Preparing app:one", "confirm", "make", "run", "undo", "mend", "complete", "_start", "check", "_make_places",
)  # fmt: skip
_MOST_POINTS = 260
_MOST_CALLS = 50


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong."""

    kind: str
    name: str
    """Of the point or the call; empty for any."""
    left: int
    """Points or calls of it to pass before it strikes."""
    late_s: float = 0.0


class Faults:
    """The faults of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._points: list[Fault] = []
        self._calls: list[Fault] = []
        self._twice = False
        self.cancelling = False
        """Whether anything may be cancelled in this session, because it is late or a signal came."""
        self._full = 0
        """Writes of journal and catalog that still fail for want of room."""

    def draw(self) -> None:
        """Draw those of the next session; what was left of the last one's is forgotten."""
        rng = self._world.rng
        self.none()
        if rng.random() < 0.3:
            return
        for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
            if rng.random() < 0.25:
                (kind,) = rng.choices(*_weighted(TO_A_CALL))
                name = rng.choice(_CALLS) if rng.random() < 0.7 else ""
                left = rng.choice((0, 0, 1, 2)) if name else rng.randrange(_MOST_CALLS)
                self._calls.append(Fault(kind, name, left, rng.choice(LATE_S)))
            else:
                (kind,) = rng.choices(*_weighted(AT_A_POINT))
                name = rng.choice(_CRITICAL) if rng.random() < 0.6 else ""
                if kind in _TO_A_HOLD or (kind == "application-restart" and rng.random() < 0.6):
                    self._points.append(Fault(kind, _HELD, rng.randrange(5)))
                    continue
                left = rng.choice((0, 0, 0, 1, 1, 2, 3)) if name else rng.randrange(_MOST_POINTS)
                self._points.append(Fault(kind, name, left))

    def stop(self, apart: random.Random) -> None:
        """The process of the next session stands still somewhere."""
        name = apart.choice(_CRITICAL) if apart.random() < 0.5 else ""
        left = apart.choice((0, 0, 0, 1, 2)) if name else apart.randrange(_MOST_POINTS)
        self._points.append(Fault("stop", name, left))

    def none(self) -> None:
        """Nothing goes wrong from now on."""
        self._points, self._calls, self._twice, self._full = [], [], False, 0
        self.cancelling = False

    @property
    def armed(self) -> bool:
        """Whether anything may strike at a point."""
        return bool(self._points or self._full)

    # -- at points ---------------------------------------------------------------------------------------------------

    def strike(self, name: str, errors: str, process: Process) -> None:
        """Whatever happens at a point.

        Raises:
            Killed: our process.
            SlackwaterError, OSError, RuntimeError: the call fails.
        """
        if self._full and name in ("journal:before", "catalog:before", "document:before"):
            self._full -= 1
            raise _error(name, "no space is left on the device", retryable=True)
        for fault in self._points:
            if self._world.frozen if fault.name == _HELD else fault.name in ("", name):
                fault.left -= 1
                if fault.left < 0 and self._happens(fault, name, errors, process):
                    return

    def _happens(self, fault: Fault, name: str, errors: str, process: Process) -> bool:
        """Let it happen, if it can happen here; else at the next point that it is aimed at."""
        world = self._world
        if fault.kind in ("error", "defect") and (not errors or (fault.kind == "defect" and errors == "plain")):
            return False
        self._points.remove(fault)
        world.counts[fault.kind] += 1
        world.tell(f"FAULT {fault.kind} at {name}")
        getattr(self, f"_{fault.kind.replace('-', '_')}")(name, errors, process)
        return True

    def _crash(self, name: str, errors: str, process: Process) -> None:
        self._world.kill(process, guards=False)

    def _crash_with_guard(self, name: str, errors: str, process: Process) -> None:
        self._world.kill(process, guards=True)

    def _stop(self, name: str, errors: str, process: Process) -> None:
        if not process.still:
            process.still = True
            self._world.stopped(process)

    def _power_cut(self, name: str, errors: str, process: Process) -> None:
        self._world.reboot()
        self._world.kill(process, guards=True)

    def _error(self, name: str, errors: str, process: Process) -> None:
        raise (
            OSError(28, "simulated")
            if errors == "os" and self._world.rng.random() < 0.5
            else _error(name, "simulated", retryable=self._world.rng.random() < 0.5)
        )

    def _defect(self, name: str, errors: str, process: Process) -> None:
        if errors == "os":
            raise OSError(5, "simulated")
        raise self._world.rng.choice((RuntimeError, KeyError, ValueError))("a plug-in's defect")

    def _clock(self, name: str, errors: str, process: Process) -> None:
        self._world.wall_offset_s += self._world.rng.choice((-90000.0, -3600.0, -1.0, 5.0, 3600.0, 400000.0))

    def _application_restart(self, name: str, errors: str, process: Process) -> None:
        for each in self._world.applications.values():
            if self._world.rng.random() < 0.7:
                each.restart()

    def _application_death(self, name: str, errors: str, process: Process) -> None:
        self._world.rng.choice(list(self._world.applications.values())).die()

    def _application_start(self, name: str, errors: str, process: Process) -> None:
        for each in self._world.applications.values():
            each.start_by_itself()

    def _strange_thaw(self, name: str, errors: str, process: Process) -> None:
        cgroup, guard = next(iter(self._world.frozen.items()))
        guard.broken = True
        del self._world.frozen[cgroup]

    def _guard_death(self, name: str, errors: str, process: Process) -> None:
        next(iter(self._world.frozen.values())).die()

    def _signal(self, name: str, errors: str, process: Process) -> None:
        self.cancelling = True
        if process.handlers:
            next(iter(process.handlers.values()))()

    def _duplicate(self, name: str, errors: str, process: Process) -> None:
        self._twice = True

    def _disk_full(self, name: str, errors: str, process: Process) -> None:
        self._full = self._world.rng.choice((1, 2, 5, 100))

    def twice(self, kind: str) -> bool:
        """Whether the effect that was just made is made a second time."""
        found, self._twice = self._twice, False
        if found:
            self._world.tell(f"FAULT {kind} is made twice")
        return found

    # -- to calls ----------------------------------------------------------------------------------------------------

    def delays(self, name: str) -> tuple[float, float]:
        """How late a blocking call is, in seconds: before it does anything, and after."""
        for fault in self._calls:
            if not fault.name or name.startswith(fault.name):
                fault.left -= 1
                if fault.left < 0:
                    self._calls.remove(fault)
                    self.cancelling = True
                    self._world.counts[fault.kind] += 1
                    self._world.tell(f"FAULT {fault.kind} of {name}: {fault.late_s:g} s")
                    return (fault.late_s, 0.0) if fault.kind == "delay-before" else (0.0, fault.late_s)
        return 0.0, 0.0


def _weighted(choices: tuple[tuple[str, int], ...]) -> tuple[list[str], list[int]]:
    return [kind for kind, _ in choices], [weight for _, weight in choices]


def _error(name: str, why: str, *, retryable: bool) -> SlackwaterError:
    return SlackwaterError(f"{name.partition(':')[0]} failed: {why}.", code="simulated", retryable=retryable)
