# SPDX-License-Identifier: Apache-2.0
"""`slackwater reconcile`."""

from functools import partial

import typer

from slackwater.cli.app import verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.options import Json
from slackwater.errors import BusyError, PartialError, RightsError


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "reconcile",
        "slackwater reconcile",
        "slackwater reconcile --json",
        fails=(BusyError, RightsError, PartialError),
    )(reconcile)


def reconcile(json: Json = False) -> object:
    """Put right what was cut off; make catalog and storage agree.

    Every session does this before its own work, too.
    """
    cell = open_cell(writing=True, preview=True)  # the session itself releases what is frozen, and reports it
    from slackwater.sessions import reconcile as sessions

    return do(partial(sessions.reconcile, cell))
