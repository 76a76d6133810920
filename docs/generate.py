# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001  # a script, and no package
"""Write the reference pages that come from the code: `cli.md`, `exercise-events.md` and `exit-statuses.md`.

Run it after a change to the command line: `python docs/generate.py`. A test holds the pages against the code.
"""

import os
from typing import Any

import typer

from slackwater.cli.app import error_classes, meaning
from slackwater.cli.main import app
from slackwater.hosts import exercise

_REFERENCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "reference")
_WIDTH = 80
_HEAD = "<!-- Made by docs/generate.py from the code; edit there. -->\n\n"


def main() -> None:
    """Write them."""
    for name, text in pages().items():
        with open(os.path.join(_REFERENCE, name), "w", encoding="utf-8") as f:
            f.write(text)


def pages() -> dict[str, str]:
    """The pages by file name."""
    return {"cli.md": command_page(), "exercise-events.md": event_page(), "exit-statuses.md": status_page()}


def command_page() -> str:
    """Every command with its help, as it shows it itself."""
    sections = [
        f"{'##' if len(path) == 1 else '###'} {' '.join(path)}\n\n```text\n{text}\n```" for path, text in _helps()
    ]
    return (
        f"{_HEAD}# The command line\n\nWhat `--help` shows, for every command. See also"
        " [exit statuses](exit-statuses.md) and [JSON](json.md).\n\n" + "\n\n".join(sections) + "\n"
    )


def status_page() -> str:
    """Every exit status, and the codes that errors with it bear."""
    rows = ["| status | meaning | `code` in JSON |", "|---|---|---|", "| 0 | Done. | |"]
    for status in sorted({each.exit_status for each in error_classes()}):
        codes = [f"`{each.code}`" for each in error_classes() if each.exit_status == status]
        codes += ["`internal`"] if status == 1 else []
        rows.append(f"| {status} | {meaning(status)} | {', '.join(codes)} |")
    return (
        f"{_HEAD}# Exit statuses\n\n" + "\n".join(rows) + "\n\n"
        "A finer code may stand in the place of the one above (`no-replica` instead of `not-found`); the exit status is"
        " the same. `internal` is a defect of ours.\n\n"
        "Statuses that need more words:\n\n"
        "- A preview of something that would be refused shows all of it, and exits with 5.\n"
        "- `catalog check` exits with 1 when catalog and storage differ, `doctor` when a check failed.\n"
        "- `catalog rebuild` and `catalog import` exit with 10 when something is on the storage that cannot be taken"
        " in, or is not there as it was made.\n"
        "- `reconcile` exits with 10 when something could not be put right now.\n"
        "- `status --nagios` exits as monitors expect: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.\n"
    )


def event_page() -> str:
    """Every event of the contracts at which an exercise can let something go wrong, and what a lie there costs."""
    rows = ["| event | what is asked there | a lie |", "|---|---|---|"]
    rows += [
        f"| `{name}` | {exercise.asked(name)} | {exercise.cost(name) if lies else '-'} |"
        for name, lies in exercise.events().items()
    ]
    return (
        f"{_HEAD}# The events of an exercise\n\nWhere [its file](exercise.md) can let something go wrong."
        f" Where nothing else is said, a lie {exercise.CAUGHT}. A dash: nobody can lie there.\n\n"
        + "\n".join(rows)
        + "\n"
    )


def _helps() -> list[tuple[tuple[str, ...], str]]:
    """Path and help of every command, parents first."""
    found: list[tuple[tuple[str, ...], str]] = []

    def walk(command: Any, path: tuple[str, ...], parent: Any) -> None:  # noqa: ANN401  # Typer's types are private
        context = command.context_class(
            command, info_name=path[-1], parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH
        )
        context.help_option_names = ["-h", "--help"]
        command.get_params(context)
        found.append((path, "\n".join(line.rstrip() for line in command.get_help(context).split("\n"))))
        for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
            walk(command.commands[name], (*path, name), context)

    walk(typer.main.get_command(app), ("slackwater",), None)
    return found


if __name__ == "__main__":
    main()
