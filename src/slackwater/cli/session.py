# SPDX-License-Identifier: Apache-2.0
"""`slackwater session`: list, show, abort."""

from functools import partial
from typing import Annotated

import typer

from slackwater.cli.app import new_app, verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.options import Json, MaybeSpec, SessionId
from slackwater.cli.values import Sessions, SessionShown
from slackwater.cli.waiting import STOPPING, waiting
from slackwater.errors import BusyError, NotFoundError, RightsError
from slackwater.model.session import Outcome, Session

_Kill = Annotated[
    bool, typer.Option("--kill", help="Do not ask: kill its process, stopped or hung, and put right what it left.")
]

sessions = new_app("List, show and stop sessions.")


def join(app: typer.Typer) -> None:
    """Add the noun to the application."""
    app.add_typer(sessions, name="session")


@verb(sessions, "list", "slackwater session list", "slackwater session list orders --json", fails=(RightsError,))
def list_sessions(spec: MaybeSpec = "", json: Json = False) -> Sessions:
    """List what was run, the newest first."""
    found = open_cell().catalog.sessions.list(spec or None)
    return Sessions(tuple(_shown(each) for each in found))


@verb(
    sessions,
    "show",
    "slackwater session show latest",
    "slackwater session show 2026-11-22-1 --json",
    fails=(NotFoundError, RightsError),
)
def show(session: SessionId, json: Json = False) -> SessionShown:
    """Show one session.

    Its phases, what it said, and how it ended.
    """
    return _shown(open_cell().catalog.sessions.find(session))


@verb(
    sessions,
    "abort",
    "slackwater session abort latest",
    "slackwater session abort 2026-11-22-1 --kill      when its process is stopped or hangs",
    fails=(BusyError, NotFoundError, RightsError),
)
def abort(session: SessionId, kill: _Kill = False, json: Json = False) -> SessionShown:
    """Stop a session that runs.

    It undoes what it began; the application goes on. A recovery that failed and stays where it is (`recover --stay`) is
    taken back.
    """
    cell = open_cell()
    from slackwater.sessions import abort as sessions_abort

    found = cell.catalog.sessions.find(session)
    with waiting(STOPPING, unless=json):
        return _shown(do(partial(sessions_abort.abort, cell, found.id, kill=kill)))


def _shown(session: Session) -> SessionShown:
    from slackwater.system.processes import alive

    underway = session.outcome in (Outcome.RUNNING, Outcome.WAITING)
    return SessionShown(session, underway and bool(session.process) and not alive(session.process))
