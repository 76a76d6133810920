# SPDX-License-Identifier: Apache-2.0
"""Beginning anew, within one session, what failed by something that may pass; never before all of it is undone."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from slackwater.errors import SlackwaterError
from slackwater.model.quantities import format_duration
from slackwater.sessions.cell import Cell
from slackwater.sessions.running import Run, said

T = TypeVar("T")


async def retried(cell: Cell, run: Run, attempt: Callable[[], Awaitable[T]], *, retries: int, after_s: float) -> T:
    """Make an attempt, and up to `retries` more: each a whole new one, when everything of the last has been undone.

    Not retried is what is not retryable, what is kept already, and what could not be undone whole. A request to stop
    ends the waiting at once. Each attempt's error stays in the session's record.

    Raises:
        SlackwaterError: as the last attempt; it says how many there were.
    """
    failures: list[dict[str, object]] = []
    number = 0
    while True:
        number += 1
        began = cell.clock.now()
        try:
            return await attempt()
        except SlackwaterError as e:
            failures.append({"attempt": number, "began": began.isoformat(), "error": said(e, run)})
            again = number <= retries and e.retryable and not run.kept
            if number > 1 or again:
                run.document["attempts"] = failures
            if not (again and await _put_back(cell, run)):
                if number > 1:
                    _count(e, number)
                raise
            left = retries - number
            run.story.say(
                "warning",
                f"Attempt {number} failed: {e.sentence} Everything of it was undone; the next one begins in"
                f" {format_duration(after_s)}, and {left or 'none'} may follow.",
            )
            run.save(run)
        await anyio.sleep(after_s)


async def _put_back(cell: Cell, run: Run) -> bool:
    """Undo the attempt, and open the session anew; whether all of it could be undone."""
    with anyio.CancelScope(shield=True):
        undone = await cell.host.undo(run.id)
        if undone.whole:
            cell.host.begin(run.id, run.kind, run.process)
    return undone.whole


def _count(error: SlackwaterError, attempts: int) -> None:
    error.sentence = f"{error.sentence.rstrip('.')}, after {attempts} attempts."
    error.args = (error.sentence,)
