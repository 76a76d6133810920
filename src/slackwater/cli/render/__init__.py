# SPDX-License-Identifier: Apache-2.0
"""Values for people: lists and receipts that fit 80 columns. Nothing here decides anything. A file for each noun."""

from rich.console import Console
from rich.text import Text

# Each of these says how its values are shown.
from slackwater.cli.render import component, host, proof, replica, session  # noqa: F401
from slackwater.cli.render.kit import render


def show(value: object, console: Console | None = None) -> None:
    """Print what a command returned. No colours but on a terminal, and none with NO_COLOR (rich sees to both)."""
    console = console or Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(*render(value), sep="\n")
        return
    with console.capture() as captured:  # for programs: sentences in one piece, no blanks at the ends of lines
        for each in render(value):
            console.print(each, soft_wrap=isinstance(each, str | Text))
    console.file.write("\n".join(line.rstrip() for line in captured.get().split("\n")))


__all__ = ["render", "show"]
