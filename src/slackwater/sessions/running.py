# SPDX-License-Identifier: Apache-2.0
"""What all sessions share: one at a time, a story, an end that is always recorded, and Ctrl-C at any moment."""

import math
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel

from slackwater.errors import AbortedError, BusyError, PartialError, SlackwaterError
from slackwater.hosts.local import require_root
from slackwater.model.session import Outcome, Session, SessionKind
from slackwater.sessions.cell import Cell
from slackwater.sessions.reconcile import mend
from slackwater.system.locks import SessionLock
from slackwater.system.processes import identity
from slackwater.system.story import Listener, Story


@dataclass
class Abort:
    """A request to stop, and what stopping means for the data at this moment."""

    signal: str = ""
    meaning: str = "Nothing had been begun."


@dataclass
class Run:
    """A session while it runs."""

    id: str
    story: Story
    abort: Abort
    save: Callable[["Run"], None]
    """Put what is known so far into the catalog."""
    document: dict[str, Any] = field(default_factory=dict)
    """What the catalog keeps of it."""
    kept: bool = False
    outcome: Outcome = Outcome.COMPLETED

    def keep(self, meaning: str) -> None:
        """What it made is good from now on, and is not undone whatever fails afterwards."""
        self.kept = True
        self.abort.meaning = meaning


@asynccontextmanager
async def running(
    cell: Cell, kind: SessionKind, specification: str, *, wait_s: float, listener: Listener | None
) -> AsyncIterator[Run]:
    """Run a session: take the lock, put right what others left, and record how it ends.

    When the block raises, everything it made is undone by the journal unless it said `kept`; SIGINT and SIGTERM
    cancel it, with the same effect.

    Raises:
        BusyError: another session runs, and did not end within `wait_s`.
        AbortedError: it was stopped on request.
    """
    require_root()
    cell.places.ensure()
    story = Story(cell.clock, listener)
    async with _abortable() as abort, _alone(cell, wait_s, story) as lock:
        for each in await mend(cell):
            story.say("note", each)
        process = identity(os.getpid())
        session = cell.catalog.sessions.begin(kind, specification, process, taken=await _taken(cell))
        cell.host.begin(session.id, kind, process)
        lock.note(f"session {session.id} ({kind} of {specification}), process {os.getpid()}")
        abort.meaning = "What had been begun was undone; the application goes on."
        run = Run(session.id, story, abort, save=lambda so_far: _save(cell, session, so_far))
        story.began(session.id)
        try:
            yield run
        except BaseException as e:
            with anyio.CancelScope(shield=True):
                await _fail(cell, session, run, e)
            raise
        cell.host.settle(run.id)
        _end(cell, session, run, run.outcome)


async def _taken(cell: Cell) -> list[str]:
    """Ids on the storage and in the journal that an empty catalog does not know: it may be a new one over old ones."""
    if cell.catalog.sessions.list(limit=1):
        return []
    return [*cell.host.pending(), *(each.session for each in await cell.host.found())]


async def _fail(cell: Cell, session: Session, run: Run, error: BaseException) -> None:
    """Undo what was made, and record how it ended; the first error is what the user sees."""
    aborted = not isinstance(error, Exception)
    if not run.kept:
        for each in await cell.host.undo(run.id):
            if each.error:
                run.story.say("error", f"Not undone yet: {each.effect}: {each.error}")
                run.abort.meaning = f"This could not be undone yet, and what comes before it waits: {each.effect}."
                if isinstance(error, SlackwaterError):
                    error.data = run.abort.meaning
                    error.hint = f"Remove what stands against it ({each.error}), then: slackwater reconcile"
    if isinstance(error, SlackwaterError):
        error.data = error.data or run.abort.meaning
        error.hint = error.hint or f"slackwater session show {run.id}"
    run.document["error"] = (
        {"code": error.reason, "sentence": error.sentence, "data": error.data, "hint": error.hint}
        if isinstance(error, SlackwaterError)
        else {"code": "aborted" if aborted else "internal", "sentence": str(error) or type(error).__name__}
    )
    failed = Outcome.COMPLETED_WITH_FAILURES if isinstance(error, PartialError) else Outcome.FAILED
    try:
        _end(cell, session, run, Outcome.ABORTED if aborted else failed)
    except SlackwaterError as e:
        run.story.say("error", e.sentence)


def _with_story(session: Session, run: Run) -> Session:
    return replace(session, phases=run.story.phases, messages=run.story.messages, document=run.document)


def _save(cell: Cell, session: Session, run: Run) -> None:
    cell.catalog.sessions.update(_with_story(session, run))


def _end(cell: Cell, session: Session, run: Run, outcome: Outcome) -> None:
    cell.catalog.sessions.finish(_with_story(session, run), outcome)


@asynccontextmanager
async def _alone(cell: Cell, wait_s: float, story: Story) -> AsyncIterator[SessionLock]:
    """One session at a time on a host, as VSS serialises the making of shadow copies."""
    with SessionLock(cell.places.session_lock) as lock:
        deadline_s = cell.clock.boot_s() + wait_s
        told = False
        while not lock.acquire(f"process {os.getpid()}"):
            left_s = deadline_s - cell.clock.boot_s()
            if left_s <= 0:
                raise BusyError(
                    f"Another session runs: {lock.holder() or 'it has just begun'}.",
                    data="Nothing was changed.",
                    hint="Wait for it with --wait 10m, or see `slackwater session list`.",
                )
            if not told:
                story.say("note", f"Waiting up to {math.ceil(left_s)} s for {lock.holder() or 'another session'}.")
                told = True
            await anyio.sleep(min(0.2, left_s))
        yield lock


@asynccontextmanager
async def _abortable() -> AsyncIterator[Abort]:
    """Cancel the block on SIGINT, SIGTERM or SIGHUP, and say afterwards that this is why it ended.

    Raises:
        AbortedError: a signal came.
    """
    failure: Exception | None = None
    abort = Abort()

    async def watch(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async for each in signals:
                abort.signal = each.name
                scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(watch, group.cancel_scope)
        await anyio.lowlevel.checkpoint()
        try:
            yield abort
        except Exception as e:  # noqa: BLE001  # raised again below, outside the group, which would wrap it
            failure = e
        group.cancel_scope.cancel()
    if abort.signal:
        raise AbortedError(
            f"Stopped on request ({abort.signal}).",
            data=abort.meaning,
            hint="`slackwater status` shows where you stand.",
        ) from failure
    if failure is not None:
        raise failure
