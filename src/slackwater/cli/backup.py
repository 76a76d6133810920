# SPDX-License-Identifier: Apache-2.0
"""`slackwater backup`."""

from functools import partial

import typer

from slackwater.cli.app import verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.hints import misplaced
from slackwater.cli.options import Json, Preview, Progress, Target, Wait, refuse_verb, wait_s
from slackwater.cli.progress import listening
from slackwater.cli.waiting import ASKING, waiting
from slackwater.errors import (
    BusyError,
    CrashOnlyError,
    DeadlineError,
    NotFoundError,
    PartialError,
    RefusedError,
    RightsError,
)  # fmt: skip


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "backup",
        "slackwater backup orders",
        "slackwater backup postgresql:15/main --preview",
        "slackwater backup orders --wait 10m --json",
        fails=(
            BusyError, NotFoundError, RefusedError, RightsError, PartialError, CrashOnlyError, DeadlineError,
        ),
    )(backup)  # fmt: skip


def backup(
    target: Target,
    preview: Preview = False,
    wait: Wait = "",
    progress: Progress = "auto",
    json: Json = False,
) -> object:
    """Take a consistent replica of an application.

    Of everything that a specification or a component lives on, in one still moment. It is kept beside the data, so it
    does not protect from the loss of the disks.
    """
    refuse_verb(target, misplaced("backup", target))
    with listening(progress) as listener:
        cell = open_cell(writing=not preview, preview=preview)
        from slackwater.sessions import backup as sessions

        if preview:
            with waiting(ASKING, unless=json):
                return do(partial(sessions.preview, cell, target))
        return do(partial(sessions.backup, cell, target, wait_s=wait_s(wait, cell), listener=listener))
