# SPDX-License-Identifier: Apache-2.0
"""Building a world from its seed, and living through it: some tens of sessions, each with faults of its own.

Begin with `live`.
"""

import asyncio
import os
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, cast

from slackwater.config.places import Places
from slackwater.config.settings import Settings
from slackwater.config.specification import Specification
from slackwater.errors import SlackwaterError
from slackwater.hosts.local import LocalHost
from slackwater.hosts.plugins import Plugins
from slackwater.journal.effects import Effect, EffectKinds
from slackwater.model.hold import Hold
from slackwater.model.plan import Limits
from slackwater.sessions.cell import Cell
from slackwater.sessions.reconcile import reconcile
from tests.simulation import acts
from tests.simulation.applications import Application
from tests.simulation.faults import Faults
from tests.simulation.guards import SimGuard
from tests.simulation.kernel import EFFECTS
from tests.simulation.oracle import Oracle
from tests.simulation.provider import OtherProvider, SimProvider
from tests.simulation.records import SimJournal, TwinCatalog, real_catalog
from tests.simulation.storage import Storage
from tests.simulation.takeover import somebody
from tests.simulation.trees import EFFECTS as TREES
from tests.simulation.virtual import VirtualClock, VirtualLoop
from tests.simulation.world import OWNER, PROCESS, Process, World, enter
from tests.simulation.writer import SimWriter

SESSIONS = 50
"""In each world."""
_BARE = SimWriter()
_PLUGINS = Plugins({"app": cast("Any", _BARE)}, {"sim": SimProvider(OWNER), "simb": OtherProvider(OWNER)})
_REAL_EVERY = 50
"""One world of so many has the real catalog."""


@dataclass(frozen=True)
class Lived:
    """What became of a world."""

    seed: int
    sessions: int
    ended: Counter[str]
    faults: Counter[str]
    violations: tuple[str, ...]
    trace: tuple[tuple[float, str], ...]


class Living:
    """A world with everything above it that is real."""

    def __init__(self, seed: int, folder: str, *, real: bool | None = None) -> None:
        self.world = World(seed)
        enter(self.world)
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.world.time_s = self.loop.time
        self.clock = VirtualClock(self.world)
        self.places = Places(os.path.join(folder, "etc"), os.path.join(folder, "state"), os.path.join(folder, "run"))
        kinds: list[type[Effect]] = [*EFFECTS, *TREES, *SimWriter.effects]
        self.journal = SimJournal(EffectKinds(kinds))
        real = seed % _REAL_EVERY == 0 if real is None else real
        self.catalog: Any = real_catalog(self.clock) if real else TwinCatalog(self.clock)
        self.world.storage = Storage()
        self.world.faults = Faults(self.world)
        self.world.oracle = Oracle(self.world, self.journal, self.catalog)
        self.ended: Counter[str] = Counter()
        self.settings = Settings()
        self._somebody: list[asyncio.Future[None]] = []
        self.world.stopped = self._stopped
        _furnish(self.world, folder)

    def close(self) -> None:
        self.journal.close()
        if hasattr(self.catalog, "close"):
            self.catalog.close()
        self.loop.close()

    def cell(self, specification: str) -> Cell:
        """What a new process of ours would open."""
        host = LocalHost(
            owner=OWNER, journal_file=self.places.journal_file, guard_dir=self.places.guard_dir, clock=self.clock,
            plugins=_PLUGINS, arm=cast("Any", SimGuard.arm),
        )  # fmt: skip
        host._opened = self.journal.of_another()
        cell = Cell(self.places, self.clock, writing=True, speaking_for=specification)
        specifications = list(self.world.specifications.values())
        cell.__dict__ |= {
            "host": host, "catalog": self.catalog, "settings": self.settings, "specifications": (specifications, []),
        }  # fmt: skip
        return cell

    def run(self, what: str, *acts: Callable[[], Awaitable[object]]) -> str:
        """Run commands at once, each in a process of its own; how the first ended: done, killed, or the error's code.

        Args:
            what: the line of the trace; its first word is counted.
            acts: one for each process.
        """
        processes = [self.world.spawn() for _ in acts]
        self.world.tell(f"=== {what} by {', '.join(each.identity for each in processes)}")
        commands = [self._command(*each) for each in zip(processes, acts, strict=True)]
        ends = self.loop.run_until_complete(self._together(commands))
        self.world.tell(f"=== {what}: {', '.join(end for end, _ in ends)}")
        self.ended.update(f"{what.partition(' ')[0]} {end}" for end, _ in ends)
        for process, (_, killed) in zip(processes, ends, strict=True):
            self.world.oracle.after(process, killed=killed)
        return ends[0][0]

    async def _together(self, commands: Sequence[Coroutine[Any, Any, tuple[str, bool]]]) -> list[tuple[str, bool]]:
        """How they ended; whoever does something about one that stands still is done, too."""
        ends = await asyncio.gather(*commands)
        while self._somebody:
            await self._somebody.pop()
        return ends

    def _stopped(self, process: Process) -> None:
        """A process begins to stand still."""
        self._somebody.append(asyncio.ensure_future(somebody(self, process)))

    async def beside(self, what: str, act: Callable[[], Awaitable[object]]) -> None:
        """Run a command in a process of its own while others run."""
        process = self.world.spawn()
        self.world.tell(f"=== {what} by {process.identity}")
        end, killed = await self._command(process, act)
        self.world.tell(f"=== {what}: {end}")
        self.ended[f"{what.partition(' ')[0]} {end}"] += 1
        self.world.oracle.after(process, killed=killed)

    async def _command(self, process: Process, act: Callable[[], Awaitable[object]]) -> tuple[str, bool]:
        """One command: how it ended, and whether it was killed."""
        PROCESS.set(process)
        self.world.holders.add(process.identity)
        end = "done"
        try:
            await act()
        except SlackwaterError as e:
            end = e.reason
            self.world.tell(f"error: {e.sentence} {e.data}")
        except Exception as e:  # noqa: BLE001  # a defect of ours, if no plug-in had one
            end = "internal"
            if not process.dead:
                self.world.tell(f"internal: {''.join(traceback.format_exception(e)[-4:])}")
        except BaseException:
            if not process.dead:
                raise
        killed = process.dead
        self.world.holders.discard(process.identity)
        self.world.end(process)
        return "killed" if killed else end, killed

    def mend(self) -> None:
        """A reconcile that meets no fault, and all that has to hold after it."""
        self.world.faults.none()
        self.loop.pass_time(2000.0)  # whatever hangs has come back

        async def explained() -> None:
            for sentence in (await reconcile(self.cell(""))).unmended:
                self.world.tell(f"not put right: {sentence}")

        end = self.run("reconcile", explained)
        if end != "done":
            self.world.violate(f"7: a reconcile without any fault ends as {end}")
        self.world.oracle.released()
        self.world.oracle.nothing_lost()
        self.world.oracle.agreed()


def live(seed: int, folder: str, *, sessions: int = SESSIONS, real: bool | None = None) -> Lived:
    """Live through the world of a seed. Deterministic: the same seed has the same trace."""
    living = Living(seed, folder, real=real)
    world = living.world
    try:
        while len(world.begun) < sessions and not world.violations:
            acts.step(living)
        if not world.violations:
            living.mend()
    finally:
        living.close()
    return Lived(seed, len(world.begun), living.ended, world.counts, tuple(world.violations), tuple(world.trace))


def _furnish(world: World, folder: str) -> None:
    """Volumes, applications, specifications, and what belongs to others."""
    rng = world.rng
    for name in ("one", "two"):
        layout = rng.choice((("fs-a",), ("fs-a", "fs-a"), ("fs-a", "fs-b"), ("fs-a", "fs-a", "fs-b")))
        paths = []
        for number, filesystem in enumerate(layout):
            path = os.path.join(folder, "volumes", f"{name}-{number}")
            os.makedirs(path, exist_ok=True)
            world.storage.add_volume(path, filesystem)
            paths.append(path)
        survives = rng.random() < 0.8
        offers = rng.choice(((), (), (Hold.APPLICATION_LOCK,))) if survives else rng.choice(((), (Hold.COLD,)))
        app = Application(world, name, tuple(paths), survives, offers, alone=rng.random() < 0.5)
        app.states.add(())
        world.applications[name] = app
        world.at_work.append(app)
        if rng.random() < 0.9:
            app.start()
    for name, names in (("one", ["one"]), ("two", ["two"]), ("both", ["one", "two"])):
        world.specifications[name] = _specification(world, name, names)
    world.oracle.limits = Limits()
    for filesystem in ("fs-a", "fs-b"):
        for number in (1, 2, 3):
            world.storage.add_stranger(filesystem, f"2030-01-01-{number}", "one-0")


def _specification(world: World, name: str, names: list[str]) -> Specification:
    rng = world.rng
    able = all(world.applications[each].offers == (Hold.COLD,) for each in names)
    hook = {"command": ["/bin/true"]}
    return Specification.model_validate(
        {
            "name": name,
            "component": [{"writer": "app", "instance": each} for each in names],
            "replica": {
                "keep": rng.choice((1, 1, 2, 3)),
                "min_redundancy": rng.choice((1, 1, 2)),
                "verify": rng.choice(("never", "never", "always", "daily")),
            },
            "options": {
                "hold": rng.choice(("auto", "cold")) if able else "auto",
                "on_writer_failure": rng.choice(("fail", "crash")),
                "retries": rng.choice((0, 0, 2)),
            },
            "recovery": {"undo_keep": "100y"},  # no clock here is put forward so far: none goes by itself
            "hooks": {"pre_freeze": hook, "post_thaw": hook, "pre_stop": hook} if rng.random() < 0.2 else {},
        }
    )
