# SPDX-License-Identifier: Apache-2.0
"""`slackwater writer`: test."""

from functools import partial
from typing import Annotated

import typer

from slackwater.cli.app import new_app, verb
from slackwater.cli.frame import confirm, do, open_cell
from slackwater.cli.options import Json, Yes
from slackwater.cli.values import Examined
from slackwater.errors import NotFoundError, RightsError, UsageError
from slackwater.model.component import ComponentRef

_Component = Annotated[
    str, typer.Argument(metavar="WRITER:COMPONENT", help="A scratch instance, which nobody needs and which runs.")
]

writers = new_app("Check the parts that speak for applications.")


def join(app: typer.Typer) -> None:
    """Add the noun to the application."""
    app.add_typer(writers, name="writer")


@verb(
    writers,
    "test",
    "slackwater writer test sqlite:/srv/scratch/app.db",
    "slackwater writer test postgresql:15/scratch --yes",
    fails=(NotFoundError, RightsError),
)
def examine(component: _Component, yes: Yes = False, json: Json = False) -> Examined:
    """Check that a writer keeps its contract, on a scratch instance.

    The application is stopped and started several times and its writers are held for moments: use an instance that
    nobody needs. For whoever writes a writer; what ours do is tested.
    """
    try:
        ref = ComponentRef.parse(component)
    except ValueError as e:
        raise UsageError(f"{e}.", data="Nothing was changed.", hint="`slackwater discover` shows the names.") from None
    cell = open_cell()
    from slackwater.hosts.rights import require_root

    require_root()
    if not yes:
        confirm([f"{ref} is going to be stopped and started, several times."], "Is it one that nobody needs?")
    verdicts = do(partial(cell.host.examine, ref))
    return Examined(ref, tuple((each.demand, each.why_not) for each in verdicts))
