# SPDX-License-Identifier: Apache-2.0
"""Time that jumps: an event loop which never waits, a clock that reads it, and blocking calls that take its time.

Nothing here is random: what is late, and by how much, the world says.
"""

import asyncio
import functools
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from tests.simulation.takeover import stand
from tests.simulation.world import PROCESS, Killed, World, now

T = TypeVar("T")
_EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class StuckError(Exception):
    """Nobody is ready and nobody waits for a moment: in real life this hangs for ever."""


class _Jump(selectors.SelectSelector):
    """A selector that lets virtual time pass instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.time_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StuckError
        self.time_s += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when nothing is ready, and whose signals are given by us."""

    def __init__(self) -> None:
        self._jump = _Jump()
        self._handlers: dict[int, Callable[[], object]] = {}
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.time_s

    def pass_time(self, seconds: float) -> None:
        """Between two sessions: nobody waits, but those who come back late."""
        self.run_until_complete(asyncio.sleep(seconds))

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        PROCESS.get().handlers[sig] = functools.partial(callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        return PROCESS.get().handlers.pop(sig, None) is not None


class VirtualClock:
    """`system.clock.Clock` on virtual time; the wall clock can be put forward and back."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._world.time_s() + self._world.wall_offset_s)

    def boot_s(self) -> float:
        return self._world.time_s()


async def run_blocking(call: Callable[..., T], *arguments: object, abandon_on_cancel: bool = False) -> T:
    """In place of a thread (`system.crew.runner`): the call is made in one go, before or after a while."""
    world = now()
    if world.faults.cancelling:
        await anyio.lowlevel.checkpoint_if_cancelled()
    name = name_of(call)
    if name.startswith("The thaw of app:"):  # asked, whenever it answers
        PROCESS.get().asked[name.removeprefix("The thaw of app:")] = 0
    process = PROCESS.get()
    if process.still:
        await stand(process)
    if process.dead:  # what it had in the kernel comes to its end, see below; it begins nothing more
        raise Killed(name)
    before_s, after_s = world.faults.delays(name)
    if not before_s and not after_s:
        return call(*arguments)
    world.tell(f"{name} takes {before_s:g} s before and {after_s:g} s after")
    if not abandon_on_cancel:
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(before_s)
            try:
                return call(*arguments)
            finally:
                await asyncio.sleep(after_s)
    process.late += 1
    task = asyncio.ensure_future(_late(call, arguments, name, before_s, after_s))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_heed)
        raise


async def _late(call: Callable[..., T], arguments: tuple[object, ...], name: str, before_s: float, after_s: float) -> T:
    """A call in the kernel: it comes to its end also when nobody waits for it, and its process cannot end before."""
    process = PROCESS.get()
    try:
        await asyncio.sleep(before_s)
        booted = int(process.identity.rpartition(":")[2])
        if process.dead and ("snapshot" not in name.lower() or booted != now().boot):
            raise Killed(name)  # it waited for something else than a disk, and died with its process; or all did
        process.in_kernel = process.dead
        try:
            return call(*arguments)
        finally:
            process.in_kernel = False
            await asyncio.sleep(after_s)
    finally:
        process.late -= 1
        now().reap(process)


def _heed(task: "asyncio.Future[Any]") -> None:
    if not task.cancelled():
        task.exception()


@functools.cache
def _plain(code: Any) -> str:
    return str(code.co_qualname if hasattr(code, "co_qualname") else code.co_name)


def name_of(call: Callable[..., object]) -> str:
    """What a blocking call is for: of what `coordinator.calls.plainly` made, what it was told."""
    while isinstance(call, functools.partial):
        call = call.func
    code = getattr(call, "__code__", None)
    if code is None:
        return getattr(call, "__qualname__", type(call).__name__)
    if "what" in code.co_freevars:
        cells: tuple[Any, ...] = getattr(call, "__closure__", ())
        return str(cells[code.co_freevars.index("what")].cell_contents)
    return _plain(code)
