# SPDX-License-Identifier: Apache-2.0
"""Running blocking calls side by side, each in a thread, none of them left behind.

A call that changes something outside the process is not abandoned when the session is cancelled: the session waits for
it to come back and then undoes what it did. With a deadline, one that does not come back is left behind.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

T = TypeVar("T")
_STOPS_S = 0.2


class Runner(Protocol):
    """What runs one blocking call while the others go on."""

    async def __call__(self, call: Callable[..., T], *arguments: object, abandon_on_cancel: bool = False) -> T:
        """Run it to its end; with `abandon_on_cancel` a cancelled caller leaves it behind."""
        ...


async def _in_a_thread(call: Callable[..., T], *arguments: object, abandon_on_cancel: bool = False) -> T:
    return await anyio.to_thread.run_sync(call, *arguments, abandon_on_cancel=abandon_on_cancel)


runner: Runner = _in_a_thread
"""A thread for each call. Replaced where time is simulated: there a blocking call takes virtual time, in one thread."""


async def in_thread(call: Callable[..., T], *arguments: object) -> T:
    """Run one blocking call in a thread; a cancellation takes effect when it has come back."""
    return await runner(call, *arguments)


async def wait_in_thread(call: Callable[..., T], *arguments: object) -> T:
    """Run a blocking call that only waits and looks; a cancelled session leaves it behind and goes on at once."""
    return await runner(call, *arguments, abandon_on_cancel=True)


async def stop_in_thread(call: Callable[..., T], *arguments: object, stop: Callable[[], None]) -> T:
    """Run a long blocking call that changes something; a cancelled session tells it to stop, and waits for it.

    `stop` is called, more than once, until the call has come back; whatever the call then raises is not told.
    """
    results: list[T] = []
    failures: list[Exception] = []
    back = anyio.Event()

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                while not back.is_set():
                    stop()
                    await anyio.sleep(_STOPS_S)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        try:
            results.append(await in_thread(call, *arguments))
        except Exception as e:  # noqa: BLE001  # raised again below, outside of the group, which would wrap it
            failures.append(e)
        finally:
            back.set()
        group.cancel_scope.cancel()
    if failures:
        raise failures[0]
    return results[0]


async def side_by_side(
    calls: Sequence[Callable[[], T]], *, within_s: float = math.inf, stop: Callable[[], None] | None = None
) -> list[T]:
    """Run all calls at once, wait for every one of them, and return their results in order.

    Args:
        calls: each takes nothing.
        within_s: how long they may take; those that are not back by then are left behind, in threads that are lost.
        stop: for calls that may take long, with no deadline: tells them to stop when the session is cancelled.

    Raises:
        TimeoutError: not all of them were back in time; what the others raised is not told then.
        Exception: what the first of the failed ones raised, after all have come back.
    """
    results: dict[int, T] = {}
    failures: dict[int, Exception] = {}
    late = False

    async def one(position: int) -> None:
        nonlocal late
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(within_s, shield=stop is None) as scope:
            try:
                if stop is not None:
                    results[position] = await stop_in_thread(calls[position], stop=stop)
                else:
                    results[position] = await wait_in_thread(calls[position])
            except Exception as e:  # noqa: BLE001  # raised again below, when the others are back
                failures[position] = e
        late = late or scope.cancelled_caught

    async with anyio.create_task_group() as group:
        for position in range(len(calls)):
            group.start_soon(one, position)
    if late:
        raise TimeoutError
    if failures:
        raise failures[min(failures)]
    return [results[position] for position in range(len(calls))]


async def warm(threads: int) -> None:
    """Have the threads exist already, so that none is created inside the window."""
    await side_by_side([lambda: None] * threads)
