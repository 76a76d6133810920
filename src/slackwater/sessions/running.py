# SPDX-License-Identifier: Apache-2.0
"""What all sessions share: one at a time, a story, an end that is always recorded, and Ctrl-C at any moment."""

import math
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel

from slackwater.errors import AbortedError, BusyError, FencedError, PartialError, SlackwaterError
from slackwater.hosts.rights import require_rights
from slackwater.journal.journal import Decision, Mended
from slackwater.model.replica import BackupComponents, Replica
from slackwater.model.session import Outcome, Session, SessionKind
from slackwater.sessions.cell import Cell
from slackwater.sessions.reconcile import mend
from slackwater.system.companions import StopService
from slackwater.system.locks import GRACE_S, SessionLock
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
    kind: SessionKind
    process: str
    """Identity of ours."""
    story: Story
    abort: Abort
    save: Callable[["Run"], None]
    """Put what is known so far into the catalog."""
    document: dict[str, Any] = field(default_factory=dict)
    """What the catalog keeps of it."""
    kept: bool = False
    outcome: Outcome = Outcome.COMPLETED

    def count_errors(self) -> None:
        """What has failed beside its purpose (a hook after it) makes it one that is completed with failures."""
        if any(each.severity == "error" for each in self.story.messages):
            self.outcome = Outcome.COMPLETED_WITH_FAILURES

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
    require_rights(cell.places.state_dir)
    cell.places.ensure()
    story = Story(cell.clock, listener, specification)
    async with _abortable() as abort, _alone(cell, wait_s, story) as lock:
        for each in await mend(cell):
            story.say("note", each)
        process = identity(os.getpid())
        session = cell.catalog.sessions.begin(kind, specification, process, taken=await _taken(cell))
        cell.host.begin(session.id, kind, process)
        lock.note(f"session {session.id} ({kind} of {specification}), process {os.getpid()}")
        abort.meaning = "What had been begun was undone; the application goes on."
        run = Run(session.id, kind, process, story, abort, save=lambda so_far: _save(cell, session, so_far))
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
    """Ids on the storage and in the journal, which a catalog that is new or was put back does not know."""
    return [*cell.host.pending(), *(each.session for each in await cell.host.found())]


async def _fail(cell: Cell, session: Session, run: Run, error: BaseException) -> None:
    """Undo what was made, and record how it ended; the first error is what the user sees."""
    aborted = not isinstance(error, Exception)
    if not run.kept:
        await _undo(cell, run, error)
    elif run.kind is not SessionKind.RECOVERY:  # of a recovery something may be left to make
        with suppress(SlackwaterError):
            cell.host.settle(run.id)
    if isinstance(error, SlackwaterError):
        error.data = f"{run.abort.meaning} {error.data}".strip() if run.kept else error.data or run.abort.meaning
        error.hint = error.hint or f"slackwater session show {run.id}"
    run.document["error"] = said(error, run)
    failed = Outcome.COMPLETED_WITH_FAILURES if isinstance(error, PartialError) else Outcome.FAILED
    try:
        _end(cell, session, run, Outcome.ABORTED if aborted else failed)
    except SlackwaterError as e:
        run.story.say("error", e.sentence)


async def _undo(cell: Cell, run: Run, error: BaseException) -> None:
    """Put everything back, and say of what could not be what it means."""
    try:
        undone = await cell.host.undo(run.id)
    except FencedError as e:
        run.abort.meaning = e.data
        if isinstance(error, SlackwaterError):
            error.data, error.hint = e.data, e.hint
        run.story.say("error", e.sentence)
    else:
        if undone.found is Decision.STAY:
            _stays(run, error)
        if undone.document is not None:
            _keep(cell, undone.document, run, error)
        for each in undone.mended:
            if each.error and each.kind == StopService.kind:
                _tell_unstarted(run, each, error)
            elif each.error:
                run.story.say("error", f"Not undone yet: {each.effect}: {each.error}")
                run.abort.meaning = (
                    "The volumes are as they were; the application could not be started on them again."
                    if each.unstarted
                    else f"This could not be undone yet, and what comes before it waits: {each.effect}."
                )
                if isinstance(error, SlackwaterError):
                    error.data = run.abort.meaning
                    error.hint = f"Remove what stands against it ({each.error}), then: slackwater reconcile"


def _stays(run: Run, error: BaseException) -> None:
    """Say of a recovery that was told to stay where it fails what there is now, and the two ways on."""
    run.abort.meaning = (
        "As it was told, it stays where it is: the replica is in place, and the application does not run on it, or not"
        " as it should. What it had before is set aside beside it, whole."
    )
    if isinstance(error, SlackwaterError):
        error.data = run.abort.meaning
        error.hint = (
            f"Put right what keeps it, then: slackwater reconcile. Or go back: slackwater session abort {run.id}"
        )


def _tell_unstarted(run: Run, service: Mended, error: BaseException) -> None:
    """Say which service did not start again. The rest is back, and nobody tries it another time."""
    run.story.say("error", service.error)
    run.abort.meaning = f"{run.abort.meaning} {service.error}"
    if isinstance(error, SlackwaterError) and error.data:
        error.data = f"{error.data} {service.error}"


def said(error: BaseException, run: Run) -> dict[str, str | bool]:
    """An error as the catalog keeps it."""
    if isinstance(error, SlackwaterError):
        told = {"code": error.reason, "sentence": error.sentence, "data": error.data, "hint": error.hint}
        return {**told, "retryable": error.retryable}
    if isinstance(error, Exception):
        return {"code": "internal", "sentence": str(error) or type(error).__name__}
    return {"code": "aborted", "sentence": f"Stopped on request ({run.abort.signal or type(error).__name__})."}


def _keep(cell: Cell, document: BackupComponents, run: Run, error: BaseException) -> None:
    """Take into the catalog what is kept of a recovery that was taken back, and say so."""
    kept = f"What the application wrote until then is kept as the undo replica {document.session}."
    run.abort.meaning = f"What had been begun was undone; the application goes on. {kept}"
    run.document["kept"] = document.session
    run.story.say("warning", kept)
    if isinstance(error, SlackwaterError):
        error.data = f"{error.data} {kept}".strip()
    try:
        cell.catalog.replicas.add(Replica(document))
    except SlackwaterError as e:  # it is whole on the storage, and found there
        run.story.say("error", e.sentence)


def _with_story(session: Session, run: Run) -> Session:
    return replace(session, phases=run.story.phases, messages=run.story.messages, document=run.document)


def _save(cell: Cell, session: Session, run: Run) -> None:
    cell.catalog.sessions.update(_with_story(session, run))


def _end(cell: Cell, session: Session, run: Run, outcome: Outcome) -> None:
    cell.catalog.sessions.finish(_with_story(session, run), outcome)
    failure = run.document.get("error")
    run.story.ended(f"{outcome}: {failure['sentence']}" if failure else outcome.value)


@asynccontextmanager
async def _alone(cell: Cell, wait_s: float, story: Story) -> AsyncIterator[SessionLock]:
    """One session at a time on a host, as VSS serialises the making of shadow copies."""
    with SessionLock(cell.places.session_lock) as lock:
        deadline_s = cell.clock.boot_s() + max(wait_s, GRACE_S)
        told = False
        while not lock.acquire(f"process {os.getpid()}", within_s=0.0):
            left_s = deadline_s - cell.clock.boot_s()
            if left_s <= 0:
                raise BusyError(
                    f"Another session runs: {lock.holder() or 'it has just begun'}.",
                    data="Nothing was changed.",
                    hint="Wait for it with --wait 10m, or see `slackwater session list`.",
                )
            if wait_s and not told:
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
