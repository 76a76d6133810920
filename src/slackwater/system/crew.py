# SPDX-License-Identifier: Apache-2.0
"""Running blocking calls side by side, each in a thread, none of them left behind.

A call that changes something outside the process is never abandoned: a cancelled session waits for it to come back
and then undoes what it did. How long it can take is bounded by the call itself, and a freeze by the guard.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import anyio
import anyio.to_thread

T = TypeVar("T")


async def in_thread(call: Callable[..., T], *arguments: object) -> T:
    """Run one blocking call in a thread; a cancellation takes effect when it has come back."""
    return await anyio.to_thread.run_sync(call, *arguments)


async def wait_in_thread(call: Callable[..., T], *arguments: object) -> T:
    """Run a blocking call that only waits and looks; a cancelled session leaves it behind and goes on at once."""
    return await anyio.to_thread.run_sync(call, *arguments, abandon_on_cancel=True)


async def side_by_side(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Run all calls at once, wait for every one of them, and return their results in order.

    Raises:
        Exception: what the first of the failed ones raised, after all have come back.
    """
    results: dict[int, T] = {}
    failures: dict[int, Exception] = {}

    async def one(position: int) -> None:
        try:
            results[position] = await in_thread(calls[position])
        except Exception as e:  # noqa: BLE001  # raised again below, when the others are back
            failures[position] = e

    async with anyio.create_task_group() as group:
        for position in range(len(calls)):
            group.start_soon(one, position)
    if failures:
        raise failures[min(failures)]
    return [results[position] for position in range(len(calls))]


async def warm(threads: int) -> None:
    """Have the threads exist already, so that none is created inside the window."""
    await side_by_side([lambda: None] * threads)
