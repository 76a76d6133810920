# SPDX-License-Identifier: Apache-2.0
"""`slackwater recover`."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from slackwater.cli import completion, words
from slackwater.cli.app import verb
from slackwater.cli.frame import confirm, do, open_cell
from slackwater.cli.hints import misplaced
from slackwater.cli.options import Json, Preview, Progress, Target, Wait, Yes, refuse_verb, wait_s
from slackwater.cli.progress import listening
from slackwater.errors import BusyError, NotFoundError, PartialError, RefusedError, RightsError, UsageError

if TYPE_CHECKING:
    from slackwater.sessions.cell import Cell

_Replica = Annotated[
    str,
    typer.Option(
        "--replica",
        metavar="ID",
        help="Which replica: an id, its beginning, or `latest`; the newest good one unless given.",
        autocompletion=completion.replicas,
    ),
]
_Undo = Annotated[bool, typer.Option("--undo", help="Put back what the last recovery set aside.")]


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "recover",
        "slackwater recover orders --preview",
        "slackwater recover orders",
        "slackwater recover orders --replica 2026-11-22-1 --yes",
        "slackwater recover orders --undo",
        fails=(BusyError, NotFoundError, RefusedError, RightsError, PartialError),
    )(recover)


def recover(
    target: Target,
    replica: _Replica = "",
    undo: _Undo = False,
    preview: Preview = False,
    yes: Yes = False,
    wait: Wait = "",
    progress: Progress = "auto",
    json: Json = False,
) -> object:
    """Turn an application back to a replica, in seconds.

    What it has now is set aside as an undo replica, and can be put back with --undo. Nothing is copied: a writable
    clone of the replica takes the place of the volumes.
    """
    refuse_verb(target, misplaced("recover", target))
    if undo and replica:
        raise UsageError(
            "--undo and --replica cannot be given together.",
            data="Nothing was changed.",
            hint="--undo takes what the last recovery set aside; --replica with that id does the same.",
        )
    with listening(progress) as listener:
        cell = open_cell(preview=preview)
        from slackwater.sessions import recover as sessions

        if preview:
            return do(partial(sessions.preview, cell, target, replica, undo=undo))
        waiting_s = wait_s(wait, cell)
        chosen = sessions.choose(cell, target, replica, undo=undo).id  # a wrong name makes not even an empty catalog
        if not yes:
            _confirm(cell, target, chosen, undo=undo)
        work = partial(sessions.recover, undo=undo, wait_s=waiting_s, listener=listener)
        return do(partial(work, cell.for_writing(), target, chosen))


def _confirm(cell: "Cell", target: str, replica: str, *, undo: bool) -> None:
    """Show what would happen, and ask."""
    from slackwater.hosts.local import require_root
    from slackwater.sessions import recover as sessions
    from slackwater.sessions.target import refuse

    require_root()
    shown = do(partial(sessions.preview, cell, target, replica, undo=undo))
    refuse(shown.findings)
    lines = [
        f"{target} goes back {words.back(shown.back_s)}, to {shown.replica} ({words.local(shown.created)}).",
        f"Set aside, and kept as an undo replica: {', '.join(shown.sets_aside)}.",
        *(words.finding(each) for each in shown.findings),
    ]
    confirm(lines, "Stop the application and turn it back?")
