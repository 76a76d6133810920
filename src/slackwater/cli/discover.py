# SPDX-License-Identifier: Apache-2.0
"""`slackwater discover`."""

from functools import partial

import typer

from slackwater.cli.app import verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.options import Json


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(app, "discover", "slackwater discover", "slackwater discover --json")(discover)


def discover(json: Json = False) -> object:
    """Show every component of this host, its volumes and hold, and whether it could be recovered, or why not."""
    cell = open_cell()
    from slackwater.sessions import discover as sessions

    return do(partial(sessions.discover, cell))
