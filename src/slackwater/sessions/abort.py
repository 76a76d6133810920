# SPDX-License-Identifier: Apache-2.0
"""Stopping a session that runs: it undoes what it began and records that it was aborted."""

import os
import signal

import anyio

from slackwater.errors import NotFoundError, SlackwaterError
from slackwater.hosts.local import require_root
from slackwater.model.session import Outcome, Session
from slackwater.sessions.cell import Cell
from slackwater.system.processes import alive, pid_of

_POLL_S = 0.05


async def abort(cell: Cell, session_id: str, *, timeout_s: float = 60.0) -> Session:
    """Ask the session's process to stop, and wait until it has put everything back.

    Raises:
        NotFoundError: no such session, or it does not run any more.
        SlackwaterError: it did not end in time.
    """
    require_root()
    session = cell.catalog.sessions.get(session_id)
    if session.outcome not in (Outcome.RUNNING, Outcome.WAITING):
        raise NotFoundError(f"The session {session_id} has ended: {session.outcome}.", data="Nothing was changed.")
    if not alive(session.process):
        raise NotFoundError(
            f"The process of session {session_id} is dead.",
            data="What it left is put right by a reconcile.",
            hint="slackwater reconcile",
        )
    os.kill(pid_of(session.process), signal.SIGTERM)
    for _ in range(int(timeout_s / _POLL_S)):
        if not alive(session.process):
            break
        await anyio.sleep(_POLL_S)
    if alive(session.process):
        raise SlackwaterError(
            f"The session {session_id} has not ended within {timeout_s:g} s.",
            data="Whatever it holds is released at its deadline.",
            hint=f"slackwater session show {session_id}",
        )
    return cell.catalog.sessions.get(session_id)
