# SPDX-License-Identifier: Apache-2.0
"""`slackwater recover`."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from slackwater.cli import completion, words
from slackwater.cli.app import verb
from slackwater.cli.frame import confirm, do, open_cell
from slackwater.cli.hints import misplaced
from slackwater.cli.options import Json, Preview, Progress, Target, Wait, Yes, refuse_verb, wait_s
from slackwater.cli.progress import listening
from slackwater.cli.waiting import ASKING, READING, waiting
from slackwater.errors import BusyError, NotFoundError, PartialError, RefusedError, RightsError, UsageError
from slackwater.model.component import ComponentRef
from slackwater.model.target import TO_REPLICA, RecoveryTarget

if TYPE_CHECKING:
    from slackwater.sessions.cell import Cell
    from slackwater.sessions.recover import RecoveryPreview

_Replica = Annotated[
    str,
    typer.Option(
        "--replica",
        metavar="ID",
        help="Which replica: an id, its beginning, or `latest`; the newest good one unless given.",
        autocompletion=completion.replicas,
    ),
]
_To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="TARGET",
        help="How far forward from the replica: `latest`, a time, `before:XID`, `lsn:POSITION`, `name:NAME`; "
        "`replica`, which is not at all, unless given.",
    ),
]
_Component = Annotated[
    list[str],
    typer.Option(
        "--component",
        metavar="WRITER:COMPONENT",
        help="Only this one of the specification, while the others run on; may be given more than once.",
    ),
]
_WithConfig = Annotated[
    bool, typer.Option("--with-config", help="Put the configuration files outside of the volumes back, too.")
]
_Stay = Annotated[
    bool,
    typer.Option(
        "--stay",
        help="Where it fails after the switch, leave it there in place of going back: to be put right and finished by "
        "`slackwater reconcile`, or taken back by `slackwater session abort`.",
    ),
]
_Undo = Annotated[bool, typer.Option("--undo", help="Put back what the last recovery set aside.")]


_List = Annotated[
    bool,
    typer.Option(
        "--list",
        help="Show how far the log leads from each replica on, and by which transactions rows were lost; do nothing. "
        "An archive is asked for what is behind the newest replica only, or behind --replica.",
    ),
]


class _Part(TypedDict):
    """What of a replica is put back."""

    only: tuple[ComponentRef, ...]
    with_config: bool


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "recover",
        "slackwater recover orders --preview",
        "slackwater recover orders",
        "slackwater recover orders --replica 2026-11-22-1 --yes",
        "slackwater recover orders --to latest",
        "slackwater recover orders --to 2026-11-22T14:31:07Z",
        "slackwater recover orders --list",
        "slackwater recover orders --component postgresql:15/main",
        "slackwater recover orders --undo",
        fails=(BusyError, NotFoundError, RefusedError, RightsError, PartialError),
    )(recover)


def recover(
    target: Target,
    replica: _Replica = "",
    to: _To = "replica",
    component: _Component = [],  # noqa: B006  # typer makes a list of its own
    with_config: _WithConfig = False,
    undo: _Undo = False,
    stay: _Stay = False,
    listed: _List = False,
    preview: Preview = False,
    yes: Yes = False,
    wait: Wait = "",
    progress: Progress = "auto",
    json: Json = False,
) -> object:
    """Turn an application back to a replica, in seconds.

    What it has now is set aside as an undo replica, and can be put back with --undo. A recovery that fails goes back by
    itself. A writable clone of the replica takes the place of the volumes; data is copied only for full replicas and
    on filesystems that cannot clone (ext4), while the application still works. With --to its log is followed from
    there; a hole in it is found before anything is stopped.
    """
    refuse_verb(target, misplaced("recover", target))
    if undo and replica:
        raise UsageError(
            "--undo and --replica cannot be given together.",
            data="Nothing was changed.",
            hint="--undo takes what the last recovery set aside; --replica with that id does the same.",
        )
    aim = _target(to)
    part: _Part = {"only": _refs(component), "with_config": with_config}
    if listed:
        return _listed(target, replica, progress, json=json)
    if undo and aim != TO_REPLICA:
        raise UsageError(
            "--undo and --to cannot be given together.",
            data="Nothing was changed.",
            hint="--undo puts back what the last recovery set aside, as it was.",
        )
    with listening(progress) as listener:
        cell = open_cell(preview=preview)
        from slackwater.sessions import recover as sessions

        if preview:
            with waiting(ASKING, unless=json):
                return do(partial(sessions.preview, cell, target, replica, undo=undo, to=aim, **part))
        waiting_s = wait_s(wait, cell)
        # A wrong name makes not even an empty catalog.
        chosen = replica
        if aim == TO_REPLICA:
            chosen = sessions.choose(cell, target, replica, undo=undo, only=part["only"]).id
        if not yes:
            chosen = _confirm(cell, target, chosen, undo=undo, to=aim, part=part)
        work = partial(sessions.recover, undo=undo, to=aim, **part, stay=stay, wait_s=waiting_s, listener=listener)
        return do(partial(work, cell.for_writing(), target, chosen))


def _listed(target: str, behind: str, progress: str, *, json: bool) -> object:
    """The session that asks for names tells of its phases only to who wants to know."""
    from slackwater.sessions import losses

    with listening("none" if progress == "auto" else progress) as listener, waiting(READING, unless=json):
        most = None if json else losses.MOST
        return do(partial(losses.listed, open_cell(), target, most, behind=behind, listener=listener))


def _target(text: str) -> RecoveryTarget:
    try:
        return RecoveryTarget.parse(text)
    except ValueError as e:
        raise UsageError(f"--to: {e}.", data="Nothing was changed.", hint="slackwater recover --help") from None


def _refs(texts: list[str]) -> tuple[ComponentRef, ...]:
    try:
        return tuple(dict.fromkeys(map(ComponentRef.parse, texts)))
    except ValueError as e:
        raise UsageError(f"--component: {e}.", data="Nothing was changed.", hint="slackwater discover") from None


def _confirm(cell: "Cell", target: str, replica: str, *, undo: bool, to: RecoveryTarget, part: "_Part") -> str:
    """Show what would happen, ask, and return the replica it was said of."""
    from slackwater.hosts.rights import require_rights
    from slackwater.sessions import recover as sessions
    from slackwater.sessions.target import refuse

    require_rights(cell.places.state_dir)
    with waiting(ASKING):
        shown = do(partial(sessions.preview, cell, target, replica, undo=undo, to=to, **part))
    refuse(shown.findings)
    what = ", ".join(map(str, part["only"])) or target
    confirm(asked(shown, what), "Stop the application and turn it back?")
    return shown.replica


def asked(shown: "RecoveryPreview", what: str) -> list[str]:
    """All that somebody has to know before a recovery of `what`, a line each."""
    return [
        f"{what} goes back {words.back(shown.back_s)}, to {shown.replica} ({words.local(shown.created)}).",
        *words.forward(shown.reach, shown.target),
        *(f"Since then: {each}." for each in words.since(shown.since)),
        f"Down for: {words.down(shown.down, shown.reach)}.",
        *([f"Stops with it, and starts after it: {', '.join(shown.services)}."] if shown.services else ()),
        f"Set aside, and kept as an undo replica: {', '.join(shown.sets_aside)}.",
        *(
            [f"Put back as well; what they hold now is kept in it, too: {', '.join(shown.configuration)}."]
            if shown.configuration
            else ()
        ),
        *(words.finding(each) for each in shown.findings),
    ]
