# SPDX-License-Identifier: Apache-2.0
"""`slackwater demo`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated

import typer

from slackwater.cli.app import verb
from slackwater.cli.options import Json
from slackwater.cli.values import DemoEnded
from slackwater.errors import RightsError, SlackwaterError

_Keep = Annotated[bool, typer.Option("--keep", help="Leave the demo's volume and server, and say how to remove them.")]


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(app, "demo", "slackwater demo", "slackwater demo --keep", fails=(RightsError,))(demo)


def demo(keep: _Keep = False, json: Json = False) -> DemoEnded:
    """Lose a database under load, and have it back.

    On a volume and a server of its own, which are gone afterwards. It runs the commands that a user would, and prints
    them.
    """
    try:
        # By name, since the demo stands above the command line: it runs the commands that a user would.
        show = import_module("slackwater.demo.show")
    except ModuleNotFoundError as e:
        raise SlackwaterError(
            f"The demo cannot be run: {e}.", data="Nothing was changed.", hint="Install slackwater with its extras."
        ) from e
    with _told_aside(json):
        return DemoEnded(int(show.run(keep=keep)))


@contextmanager
def _told_aside(aside: bool) -> Iterator[None]:
    """Send to standard error what the demo and its commands print, so that the answer stands alone."""
    if not aside:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
