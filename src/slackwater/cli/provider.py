# SPDX-License-Identifier: Apache-2.0
"""`slackwater provider`: test."""

from functools import partial
from typing import Annotated

import typer

from slackwater.cli.app import new_app, verb
from slackwater.cli.frame import confirm, do, open_cell
from slackwater.cli.options import Json, Yes
from slackwater.cli.values import ExaminedProvider
from slackwater.errors import NotFoundError, RightsError, UsageError

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the provider, as `btrfs`.")]
_On = Annotated[
    list[str],
    typer.Option("--on", metavar="DIRECTORY", help="A scratch volume, empty and nobody's; two see more."),
]

providers = new_app("Check the parts that make snapshots.")


def join(app: typer.Typer) -> None:
    """Add the noun to the application."""
    app.add_typer(providers, name="provider")


@verb(
    providers,
    "test",
    "slackwater provider test btrfs --on /srv/scratch1 --on /srv/scratch2",
    "slackwater provider test reflink --on /srv/scratch --yes",
    fails=(NotFoundError, RightsError),
)
def examine(name: _Name, on: _On, yes: Yes = False, json: Json = False) -> ExaminedProvider:
    """Check that a provider keeps its contract, on scratch volumes.

    Everything on them is written, switched and deleted again and again: each is an empty directory that is a volume of
    its own (for btrfs a subvolume). For whoever writes a provider, and for storage that nobody has tried yet.
    """
    cell = open_cell()
    from slackwater.hosts.rights import require_root

    require_root()
    if not yes:
        confirm([f"{each} is going to be written to, switched and emptied." for each in on], "Are they nobody's?")
    try:
        verdicts = do(partial(cell.host.examine_provider, name, on))
    except ValueError as e:
        raise UsageError(f"{e}.", data="Nothing was changed.", hint="Make an empty one for this.") from None
    return ExaminedProvider(name, tuple(on), tuple((each.demand, each.why_not) for each in verdicts))
