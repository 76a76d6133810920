# SPDX-License-Identifier: Apache-2.0
"""`slackwater try`."""

from functools import partial

import typer

from slackwater.cli.app import verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.options import Json, Progress, Target, Wait, wait_s
from slackwater.cli.progress import listening
from slackwater.errors import (
    BusyError,
    DeadlineError,
    NotFoundError,
    RefusedError,
    RightsError,
    VerificationError,
)  # fmt: skip


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "try",
        "slackwater try postgresql:15/main",
        "slackwater try orders --json",
        fails=(BusyError, NotFoundError, RefusedError, RightsError, DeadlineError, VerificationError),
    )(trial)


def trial(target: Target, wait: Wait = "", progress: Progress = "auto", json: Json = False) -> object:
    """Find out what backup and recovery would be like; keep nothing.

    Takes one replica, recovers a clone of it apart from the application, has the engine check it, takes everything away
    again, and writes a receipt. The application goes on.
    """
    with listening(progress) as listener:
        from slackwater.hosts.rights import require_rights
        from slackwater.sessions import trial as sessions

        require_rights(open_cell(preview=True).places.state_dir)
        cell = open_cell(writing=True)
        return do(partial(sessions.trial, cell, target, wait_s=wait_s(wait, cell), listener=listener))
