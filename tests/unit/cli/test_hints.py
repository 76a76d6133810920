# SPDX-License-Identifier: Apache-2.0
"""Other tools' words lead to a command that exists."""

import re
from typing import Any

import pytest
import typer

from slackwater.cli import hints
from slackwater.cli.main import app

TREE: Any = typer.main.get_command(app)


def _exists(command: str) -> bool:
    words = [word for word in command.split() if re.fullmatch(r"[a-z]+", word)]
    here = TREE
    for word in words:
        here = getattr(here, "commands", {}).get(word)
        if here is None:
            return False
    return bool(words) or command.startswith("--")


@pytest.mark.parametrize(
    "meant",
    [*hints._TOP.values(), *(m for below in (*hints._BELOW.values(), *hints._VERBS.values()) for m in below.values())],
)
def test_every_hint_names_a_command_that_exists(meant: str) -> None:
    assert _exists(meant)


def test_no_foreign_word_hides_a_command_of_ours() -> None:
    assert not set(hints._TOP) & set(TREE.commands)
    for noun, below in hints._BELOW.items():
        assert not set(below) & set(TREE.commands[noun].commands)


@pytest.mark.parametrize(
    ("word", "noun", "hint"),
    [
        ("restore", "", "Did you mean: slackwater recover"),
        ("umount", "", "Did you mean: slackwater replica unmount ID"),
        ("RESTORE", "", "Did you mean: slackwater recover"),
        ("recovr", "", "Did you mean: slackwater recover"),
        ("ls", "replica", "Did you mean: slackwater replica list"),
        ("shwo", "replica", "Did you mean: slackwater replica show"),
        ("xyzzy", "spec", "slackwater spec --help shows the commands there are."),
    ],
)
def test_hints(word: str, noun: str, hint: str) -> None:
    known = list(TREE.commands[noun].commands if noun else TREE.commands)
    assert hints.hint_for(word, noun, known) == hint
