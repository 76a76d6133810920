# SPDX-License-Identifier: Apache-2.0
"""`slackwater reconcile`."""

from functools import partial
from typing import Annotated

import typer

from slackwater.cli.app import verb
from slackwater.cli.frame import confirm, do, open_cell
from slackwater.cli.options import Json, Yes
from slackwater.cli.waiting import MENDING, waiting
from slackwater.errors import BusyError, NotFoundError, PartialError, RightsError

_Forget = Annotated[
    str,
    typer.Option(
        "--forget", metavar="SESSION", help="First give up on a session that was cut off and cannot be put right."
    ),
]


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "reconcile",
        "slackwater reconcile",
        "slackwater reconcile --json",
        "slackwater reconcile --forget 2026-11-22-3        when it cannot be put right",
        fails=(BusyError, NotFoundError, RightsError, PartialError),
    )(reconcile)


def reconcile(forget: _Forget = "", yes: Yes = False, json: Json = False) -> object:
    """Put right what was cut off; make catalog and storage agree.

    Every session does this before its own work, too.
    """
    cell = open_cell(writing=True, preview=True)  # the session itself releases what is frozen, and reports it
    from slackwater.sessions import reconcile as sessions

    if forget:
        if not yes:
            confirm([f"What session {forget} left stays as it is, and is yours to put right."], "Give up on it?")
        sessions.forget(cell, forget)
    with waiting(MENDING, unless=json):
        return do(partial(sessions.reconcile, cell))
