# SPDX-License-Identifier: Apache-2.0
"""Where commands work: the cell of this installation, what a killed guard left, and questions to a person."""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from slackwater.cli import words
from slackwater.config.places import Places
from slackwater.errors import AbortedError, UsageError

if TYPE_CHECKING:
    from slackwater.sessions.cell import Cell

_Value = TypeVar("_Value")


def open_cell(*, writing: bool = False, preview: bool = False) -> "Cell":
    """The cell of this installation.

    Whoever opens it first releases what a killed guard left frozen; only a preview leaves that alone, too.
    """
    places = Places.from_environment()
    if not preview:
        release_leftovers(places)
    from slackwater.sessions.cell import Cell

    return Cell(places, writing=writing)


def release_leftovers(places: Places) -> None:
    """Let go what a killed guard left frozen, and say so. Costs next to nothing; a command never fails by it."""
    if os.geteuid() != 0 or not os.path.isdir(places.guard_dir):
        return
    from slackwater.guard.client import release_leftovers as release

    try:
        for said in release(places.guard_dir):
            words.tell(f"note: {said}")
    except Exception as e:  # noqa: BLE001  # one unreadable record must not keep every command from running
        words.tell(f"warning: what a killed guard left in {places.guard_dir} cannot be read: {e}")


def do(work: Callable[[], Awaitable[_Value]]) -> _Value:
    """Run a session's coroutine to its end."""
    import anyio

    return anyio.run(work)


def confirm(lines: list[str], question: str) -> None:
    """Ask on the terminal before something is destroyed or replaced.

    Raises:
        UsageError: there is no terminal to ask on.
        AbortedError: the answer was not yes.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "There is no terminal to ask on before this is done.",
            data="Nothing was changed.",
            hint="Add --yes to go ahead without a question, or --preview to see what would be done.",
            code="not-confirmed",
        )
    for line in lines:
        words.tell(line)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise AbortedError("Not confirmed.", data="Nothing was changed.")
