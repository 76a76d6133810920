# SPDX-License-Identifier: Apache-2.0
"""The reference pages are what the code says now."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import typer

from slackwater.cli.app import error_classes
from slackwater.cli.main import app

DOCS = Path(__file__).parents[3] / "docs"


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES: dict[str, str] = _generator().pages()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_up_to_date(name: str) -> None:
    written = (DOCS / "reference" / name).read_text(encoding="utf-8")
    assert written == PAGES[name], "run: python docs/generate.py"


def _options(command: Any) -> set[str]:
    found = {option for param in command.params for option in getattr(param, "opts", ()) if option.startswith("-")}
    for inner in getattr(command, "commands", {}).values():
        found |= _options(inner)
    return found


def test_every_option_and_exit_status_is_there() -> None:
    options = _options(typer.main.get_command(app))
    assert {"--json", "--preview", "--dry-run", "-n", "--wait", "--yes", "--undo", "--nagios", "--keep"} <= options
    assert not [option for option in options if option not in PAGES["cli.md"]]
    for error in error_classes():
        assert f"| {error.exit_status} |" in PAGES["exit-statuses.md"]
        assert f"`{error.code}`" in PAGES["exit-statuses.md"]


def _commands(command: Any) -> list[Any]:
    inner = list(getattr(command, "commands", {}).values())
    return [each for one in inner for each in _commands(one)] if inner else [command]


def test_every_command_teaches() -> None:
    for command in _commands(typer.main.get_command(app)):
        sentence = command.help.partition("\n")[0]
        assert sentence.endswith(".")
        assert len(sentence) <= 66, f"{command.name}: the list of commands would cut it off"
        assert "Examples:\n  slackwater " in command.epilog
        assert "Exit status:\n   0  Done.\n   1  " in command.epilog
        assert any(param.name == "json" for param in command.params)
