# SPDX-License-Identifier: Apache-2.0
"""The reference pages are what the code says now."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import typer

from slackwater.cli.app import error_classes
from slackwater.cli.main import app
from slackwater.exercise.weave import methods
from slackwater.hosts.exercise import COSTS, events
from slackwater.providers.contract import Provider
from slackwater.providers.test import ExerciseProvider
from slackwater.writers.contract import Bridge, Writer
from slackwater.writers.test import ExerciseWriter

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


def test_every_event_of_the_contracts_is_there() -> None:
    """Also of effects, of what contexts give, and of a provider that can bring full copies back."""
    expected = {f"writer.{name}" for name in methods(Writer)} | {f"provider.{name}" for name in methods(Provider)}
    expected |= {f"writer.bridge.{name}" for name in methods(Bridge)} | {"provider.commit", "provider.fill_effect"}
    kinds = [(room, kind) for room, some in (("writer", ExerciseWriter), ("provider", ExerciseProvider))
             for kind in some.effects]  # fmt: skip
    for room, kind in kinds:
        expected |= {f"{room}.{kind.kind.removeprefix('test.')}{more}" for more in ("", ".undo")}
    assert len(expected) > 50
    assert [event for event in expected if f"| `{event}` |" not in PAGES["exercise-events.md"]] == []
    assert set(COSTS) <= set(events())


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
