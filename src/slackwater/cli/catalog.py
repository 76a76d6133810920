# SPDX-License-Identifier: Apache-2.0
"""`slackwater catalog`: check."""

from functools import partial

import typer

from slackwater.cli.app import new_app, verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.options import Json
from slackwater.cli.values import CatalogCheck
from slackwater.errors import RightsError

catalog = new_app("Compare the catalog with the storage.")


def join(app: typer.Typer) -> None:
    """Add the noun to the application."""
    app.add_typer(catalog, name="catalog")


@verb(catalog, "check", "slackwater catalog check", "slackwater catalog check --json", fails=(RightsError,))
def check(json: Json = False) -> CatalogCheck:
    """Compare catalog and storage, both ways.

    Each difference is named, and the exit status is 1 when there is one. Reads only.
    """
    cell = open_cell()
    from slackwater.sessions import check as sessions

    damage = cell.catalog.check()
    return CatalogCheck(() if damage else do(partial(sessions.check, cell)), damage)
