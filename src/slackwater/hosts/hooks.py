# SPDX-License-Identifier: Apache-2.0
"""A pair of hooks around something that a session does: the second runs whatever becomes of it, also after a crash."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.lowlevel

from slackwater.journal.journal import Journal
from slackwater.system.crew import in_thread
from slackwater.system.hooks import HookError, Pair, Ran
from slackwater.system.story import Story


@asynccontextmanager
async def hooked(pair: Pair | None, journal: Journal, story: Story, *, undone: bool = False) -> AsyncIterator[None]:
    """Run the first hook, then the block, then the second hook. A session that is stopped kills the first at once.

    A second one that fails is told as an error, and changes nothing of what was done.

    Args:
        pair: the hooks; None for none.
        journal: of the session, which is open.
        story: is told what they say.
        undone: leave the second one to the undo of a session that fails, so that it comes when all else is back.

    Raises:
        HookError: the first one failed.
    """
    if pair is None:
        yield
        return
    (entry,) = journal.intend(pair.session, [pair])
    try:
        ran = await _begin(pair)
        if ran.failure:
            raise HookError(pair.sentence(pair.names[0], ran), hint="See what the hook does, and run it by hand.")
        _tell(pair, pair.names[0], ran, story)
        journal.done(entry, {})
        yield
    except BaseException:
        if not undone:
            await _end(pair, journal, story)
        raise
    await _end(pair, journal, story)


async def _begin(pair: Pair) -> Ran:
    stop = threading.Event()

    async def watch() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        ran: Ran = await in_thread(pair.begin, stop)
        group.cancel_scope.cancel()
    await anyio.lowlevel.checkpoint()  # a session that is stopped ends here, and not by its hook's failure
    return ran


async def _end(pair: Pair, journal: Journal, story: Story) -> None:
    with anyio.CancelScope(shield=True):
        await in_thread(partial(journal.check, pair.session, strictly=False))
        _tell(pair, pair.names[1], await in_thread(pair.end), story)
        await in_thread(partial(journal.revert, pair.session, pair, undo=False))


def _tell(pair: Pair, name: str, ran: Ran, story: Story) -> None:
    if ran.failure or ran.said:
        story.say("error" if ran.failure else "note", pair.sentence(name, ran))
