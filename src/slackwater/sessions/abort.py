# SPDX-License-Identifier: Apache-2.0
"""Stopping a session that runs: it undoes what it began; one that cannot answer is killed, and mended by us."""

import os
import signal
from contextlib import suppress

import anyio

from slackwater.errors import BusyError, NotFoundError, SlackwaterError
from slackwater.hosts.rights import require_rights
from slackwater.model.session import Outcome, Session
from slackwater.sessions.cell import Cell
from slackwater.sessions.reconcile import reconcile
from slackwater.system.processes import alive, open_pidfd, pid_of, stopped

_POLL_S = 0.05
_STILL_S = 5.0
"""How long a process has to be stopped to count as one that nobody is about to continue."""


async def abort(cell: Cell, session_id: str, *, timeout_s: float = 60.0, kill: bool = False) -> Session:
    """Ask the session's process to stop, and wait until it has put everything back; or `kill` it, and do that.

    A recovery that failed, and stays where it is since that was asked, is taken back.

    Raises:
        BusyError: to take it back, and another session runs.
        NotFoundError: no such session, or it does not run any more.
        SlackwaterError: it did not end in time, or cannot answer.
    """
    require_rights(cell.places.state_dir)
    session = cell.catalog.sessions.get(session_id)
    if not alive(session.process) and session_id in cell.host.pending():
        writing = cell.for_writing()
        if writing.host.go_back(session_id):
            await reconcile(writing)
            return cell.catalog.sessions.get(session_id)
    if session.outcome not in (Outcome.RUNNING, Outcome.WAITING):
        raise NotFoundError(
            f"The session {session_id} has ended: {session.outcome}.",
            data="Nothing was changed.",
            hint="`slackwater session list` shows which run.",
        )
    if not alive(session.process):
        raise NotFoundError(
            f"The process of session {session_id} is dead.",
            data="What it left is put right by a reconcile.",
            hint="slackwater reconcile",
        )
    if kill:
        await _kill(cell, session, timeout_s)
    else:
        await _ask(session, timeout_s)
    return cell.catalog.sessions.get(session_id)


async def _ask(session: Session, timeout_s: float) -> None:
    os.kill(pid_of(session.process), signal.SIGTERM)
    still_s = 0.0
    for _ in range(int(timeout_s / _POLL_S)):
        if not alive(session.process):
            return
        still_s = still_s + _POLL_S if stopped(session.process) else 0.0
        if still_s > _STILL_S:
            raise SlackwaterError(
                f"The process {pid_of(session.process)} of session {session.id} is stopped and cannot answer.",
                data="It ends when it is continued. Whatever it holds is released at its deadline.",
                hint=f"slackwater session abort {session.id} --kill",
                code="stopped",
            )
        await anyio.sleep(_POLL_S)
    if alive(session.process):
        raise SlackwaterError(
            f"The session {session.id} has not ended within {timeout_s:g} s.",
            data="Whatever it holds is released at its deadline.",
            hint=f"slackwater session show {session.id}; if it hangs: slackwater session abort {session.id} --kill",
        )


async def _kill(cell: Cell, session: Session, timeout_s: float) -> None:
    """Fence it off, kill it, wait for its death, mend: in this order, so that nothing is made beside the mending.

    The fence alone is not enough: between its last look at the journal and an effect it may have stood still, too. Nor
    is the kill: one that waits for a disk dies only when that answers, and must not write until then. Only where the
    journal is locked by the session itself the kill comes without the fence.
    """
    cell = cell.for_writing()
    with suppress(ProcessLookupError):  # it has just ended by itself
        process = open_pidfd(session.process)
        try:
            with suppress(SlackwaterError):  # it stands still while it writes there: its death alone lets go of that
                cell.host.take_over(session.id)
            signal.pidfd_send_signal(process, signal.SIGKILL)
            with anyio.move_on_after(timeout_s):
                await anyio.wait_readable(process)  # when its last thread is gone, see pidfd_open(2)
        finally:
            os.close(process)
    if alive(session.process):
        raise SlackwaterError(
            f"The process {pid_of(session.process)} of session {session.id} was killed, and has not gone within"
            f" {timeout_s:g} s: it waits in the kernel, probably for a disk.",
            data="It begins nothing more. What it had begun is put right when it is gone.",
            hint="See what the disk waits for (dmesg), then: slackwater reconcile",
            code="unkillable",
        )
    with suppress(BusyError):  # whoever came first mends it before its own work
        await reconcile(cell)
