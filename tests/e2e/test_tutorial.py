# SPDX-License-Identifier: Apache-2.0
"""The tutorial, typed as it stands, in places of its own; what the page says is printed, and nothing is left."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from slackwater.system.command import run
from tests.e2e.pages import complaints, read, type_in

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(900)]

PAGE = read(Path(__file__).parents[2] / "docs" / "tutorial.md")


@contextlib.contextmanager
def name() -> Iterator[str]:
    """One as long as the page's, so that lines break where they do there; nothing is left that bears it."""
    made = f"sw{secrets.token_hex(3)}"
    assert len(made) == len("tutorial")
    try:
        yield made
        assert devices(made) == []
    finally:
        for device in devices(made):
            run("losetup", "--detach", device)


def devices(made: str) -> list[str]:
    listed = run("losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE").output
    return [line.split()[0] for line in listed.splitlines() if made in line]


def test_every_command_works_and_prints_what_the_page_says() -> None:
    assert PAGE.left_out == ()
    with name() as ours:
        steps = tuple(
            replace(
                step,
                typed=step.typed.replace("tutorial", ours),
                printed=tuple(line.replace("tutorial", ours) for line in step.printed),
            )
            for step in PAGE.steps
        )
        done = type_in(steps)
        # Whether the backup dies before its replica is whole depends on how busy the machine is.
        assert [each for each in complaints(steps, done) if not each.startswith("slackwater reconcile\n")] == []
        assert not any("tutorial" in step.typed for step in steps)
    assert not os.path.exists(f"/srv/{ours}")
    output = "".join(done.outputs)
    assert output.count("Recovery of shop: completed") == 3
    assert "100000" in output
    assert "\nundone " in output or "its process was dead" in output
