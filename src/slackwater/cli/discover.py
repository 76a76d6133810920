# SPDX-License-Identifier: Apache-2.0
"""`slackwater discover`."""

from functools import partial

import typer

from slackwater.cli.app import verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.options import Json
from slackwater.cli.waiting import ASKING, waiting


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(app, "discover", "slackwater discover", "slackwater discover --json")(discover)


def discover(json: Json = False) -> object:
    """Show every application here, and whether it could be recovered.

    For each component: its volumes, their provider, the hold that a backup would use, and why it is enough; or why it
    cannot be backed up or recovered.
    """
    cell = open_cell()
    from slackwater.sessions import discover as sessions

    with waiting(ASKING, unless=json):
        return do(partial(sessions.discover, cell))
