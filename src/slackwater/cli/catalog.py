# SPDX-License-Identifier: Apache-2.0
"""`slackwater catalog`: check, rebuild, export, import."""

from functools import partial
from typing import Annotated

import typer

from slackwater.cli.app import new_app, verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.options import Json
from slackwater.cli.values import CatalogCheck
from slackwater.cli.waiting import COMPARING, waiting
from slackwater.errors import BusyError, NotFoundError, PartialError, RefusedError, RightsError

catalog = new_app("Compare the catalog with the storage, and have it back when it is lost.")

_File = Annotated[str, typer.Argument(metavar="FILE", help="The path of the file.")]


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

    with waiting(COMPARING, unless=json):
        damage = cell.catalog.check()
        return CatalogCheck(() if damage else do(partial(sessions.check, cell)), damage)


@verb(catalog, "rebuild", "slackwater catalog rebuild", fails=(BusyError, RightsError, PartialError))
def rebuild(json: Json = False) -> object:
    """Restore the catalog from what lies beside the replicas.

    What the catalog knows stays as it is. Where its file is damaged, move that away first.
    """
    cell = open_cell(writing=True)
    from slackwater.sessions import rebuild as sessions

    with waiting(COMPARING, unless=json):
        return do(partial(sessions.rebuild, cell))


@verb(
    catalog,
    "export",
    "slackwater catalog export /backup/catalog-2026-11-22.json",
    fails=(RightsError,),
)
def export(file: _File, json: Json = False) -> object:
    """Write all that the catalog knows into a new file.

    The file is for root only, since copies of configuration files are in it.
    """
    cell = open_cell()
    from slackwater.sessions import transfer

    return transfer.export(cell, file)


@verb(
    catalog,
    "import",
    "slackwater catalog import /backup/catalog-2026-11-22.json",
    fails=(BusyError, NotFoundError, RefusedError, RightsError, PartialError),
)
def take_in(file: _File, json: Json = False) -> object:
    """Add what such a file knows and the catalog does not.

    Nothing is deleted or replaced. The file must be of this installation, or this one must be new.
    """
    cell = open_cell(writing=True)
    from slackwater.sessions import transfer

    with waiting(COMPARING, unless=json):
        return do(partial(transfer.take_in, cell, file))
