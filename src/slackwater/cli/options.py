# SPDX-License-Identifier: Apache-2.0
"""Options and arguments that several commands have, each written once."""

from typing import TYPE_CHECKING, Annotated

import typer

from slackwater.cli import completion
from slackwater.errors import UsageError

if TYPE_CHECKING:
    from slackwater.sessions.cell import Cell

Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON object on standard output.")]
Preview = Annotated[
    bool, typer.Option("--preview", "--dry-run", "-n", help="Show what would be done; take no lock, write nothing.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Wait = Annotated[
    str,
    typer.Option(
        "--wait",
        metavar="DURATION",
        help="How long to wait for another session to end, as 30s or 10m; not at all unless the settings say so.",
    ),
]
Progress = Annotated[
    str,
    typer.Option(
        "--progress",
        metavar="HOW",
        help="How to tell of phases on standard error: auto, plain (lines), json (a JSON object a line) or none.",
        autocompletion=completion.progress,
    ),
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="SPEC|WRITER:COMPONENT",
        help="A specification, or a component as `slackwater discover` names it.",
        autocompletion=completion.specifications,
    ),
]
SpecName = Annotated[
    str, typer.Argument(metavar="NAME", help="A specification.", autocompletion=completion.specifications)
]
MaybeSpec = Annotated[
    str, typer.Argument(metavar="SPEC", help="Only this specification.", autocompletion=completion.specifications)
]
ReplicaId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A replica's id, its beginning, or `latest`.", autocompletion=completion.replicas
    ),
]
SessionId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A session's id, its beginning, or `latest`.", autocompletion=completion.sessions
    ),
]


def duration_s(text: str, option: str) -> float:
    """Read a duration that was typed for an option, in seconds.

    Raises:
        UsageError: it is none.
    """
    from slackwater.config.quantities import parse_duration

    try:
        return parse_duration(text)
    except ValueError as e:
        raise UsageError(f"{option}: {e}.", data="Nothing was changed.", hint=f"As in: {option} 10m") from None


def wait_s(text: str, cell: "Cell") -> float:
    """How long to wait for another session: as typed, or as the settings say."""
    return duration_s(text, "--wait") if text else float(cell.settings.limits.wait)


def refuse_verb(target: str, hint: str) -> None:
    """Refuse a verb where a specification is to be named, unless there is one of that name.

    Raises:
        UsageError: with the command that was probably meant.
    """
    if hint and target not in completion.specifications(target):
        raise UsageError(
            f"{target!r} is not the name of a specification here.",
            data="Nothing was changed.",
            hint=hint,
            code="unknown-command",
        )


def named(cell: "Cell", name: str) -> None:
    """See to it that a specification or component of that name could be meant, where nothing was found for it.

    Raises:
        NotFoundError, UsageError: there is no such specification, or it is wrong.
    """
    from slackwater.sessions.target import resolve

    resolve(cell, name)
