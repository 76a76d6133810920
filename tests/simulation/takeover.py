# SPDX-License-Identifier: Apache-2.0
"""A process that stands still (SIGSTOP, a debugger, a host that swaps), and somebody who does something about it.

It stands still between two of its blocking calls; whatever it had in the kernel comes back all the same. Somebody lets
it go on, kills it, asks it to end, or has `session abort --kill` take its session over. Drawn apart from all else, so
that a world in which nobody stands still is the one that it was.
"""

import asyncio
import random
import signal
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import anyio

from slackwater.sessions.abort import abort
from slackwater.system.processes import pid_of
from tests.simulation.world import Process, now

if TYPE_CHECKING:
    from tests.simulation.worlds import Living

_LATER_S = (0.5, 3.0, 20.0, 200.0)
_TICK_S = 0.25


async def somebody(living: "Living", process: Process) -> None:
    """What becomes of a process that stands still; in the end it goes on, or is dead."""
    apart = random.Random(f"{living.world.seed} stopped {living.loop.time()}")
    await asyncio.sleep(apart.choice(_LATER_S))
    what = apart.choice(("go on", "kill", "ask", "abort", "abort", "abort"))
    living.world.tell(f"somebody to {process.identity}: {what}")
    try:
        if process.dead:
            return
        if what == "kill":
            living.world.slay(process, guards=False)
        elif what != "go on":
            for each in living.catalog.sessions.running():
                if each.process == process.identity:
                    act = partial(abort, living.cell(""), each.id, kill=what == "abort")
                    await living.beside(f"abort of {each.id}", act)
    finally:
        process.still = False


def _process(number: int) -> Process | None:
    return next((each for name, each in now().processes.items() if pid_of(name) == number), None)


def open_pidfd(identity: str) -> int:
    """In place of `system.processes.open_pidfd`: the process's number is its descriptor."""
    if identity not in now().processes:
        raise ProcessLookupError
    return pid_of(identity)


def stopped(identity: str) -> bool:
    """In place of `system.processes.stopped`."""
    process = now().processes.get(identity)
    return process is not None and process.still


def _kill(pidfd: int, _signal: int) -> None:
    """SIGKILL."""
    now().point("abort.kill:before")
    process = _process(pidfd)
    if process is not None and not process.dead:
        now().slay(process, guards=False)
    now().point("abort.kill:after")


def _ask(number: int, _signal: int) -> None:
    """SIGTERM; one that stands still hears of it when it goes on, if ever."""
    process = _process(number)
    if process is not None and not process.still:
        now().faults.cancelling = True
        for handler in list(process.handlers.values())[:1]:
            handler()


async def _gone(pidfd: int) -> None:
    """The process is gone when nothing of it is in the kernel any more, and its locks with it."""
    while any(pid_of(name) == pidfd for name in (*now().processes, *now().holders)):  # noqa: ASYNC110
        await anyio.sleep(_TICK_S)


async def stand(process: Process) -> None:
    """Stand still until somebody lets it go on, or kills it."""
    with anyio.CancelScope(shield=True):
        while process.still and not process.dead:  # noqa: ASYNC110  # there is no event for either
            await asyncio.sleep(_TICK_S)


#: What `sessions/abort.py` asks the kernel.
OS = SimpleNamespace(kill=_ask, close=lambda pidfd: None)
SIGNAL = SimpleNamespace(SIGTERM=signal.SIGTERM, SIGKILL=signal.SIGKILL, pidfd_send_signal=_kill)
ANYIO = SimpleNamespace(sleep=anyio.sleep, move_on_after=anyio.move_on_after, wait_readable=_gone)
