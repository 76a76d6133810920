# SPDX-License-Identifier: Apache-2.0
"""Five hundred kills: each time everything moves again; how late the guard let go is recorded, and judged grossly."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import deadline
from slackwater.guard import client
from tests.platform.crowd import eventually, new_folder

pytestmark = [pytest.mark.root]

STRIKES = 500
#: No load explains a guard that is later: it takes precedence over everybody, and its deadline is not in force.
TOO_LATE_MS = 2000.0
FIGURES = Path(__file__).parents[2] / "build" / "reliability" / "guard.json"


@pytest.fixture
def run_dir() -> Iterator[str]:
    with new_folder() as folder:
        yield str(folder)


def too_late(found: list[deadline.Strike]) -> list[deadline.Strike]:
    return [each for each in found if each.late_ms > TOO_LATE_MS]


def test_a_guard_that_is_late_would_be_caught(run_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(client.PROGRAM).read_text()
    twin = tmp_path / "guard.py"
    late = text.replace("self.deadline - now()", "self.deadline + 4 - now()", 1)
    late = late.replace(
        "if now() >= self.deadline:\n            self.release",
        "if now() >= self.deadline + 4:\n            self.release",
    )
    assert late.count("self.deadline + 4") == 2
    twin.write_text(late)
    forge = f"from slackwater.guard import client\nclient.PROGRAM = {str(twin)!r}\n{deadline._FORGE}"
    monkeypatch.setattr(deadline, "_FORGE", forge)
    found = deadline.strikes(2 * deadline.SIDE_BY_SIDE, run_dir)
    assert [each.killed for each in too_late(found)] == [False] * deadline.SIDE_BY_SIDE


def test_five_hundred_kills(run_dir: str) -> None:
    found = deadline.strikes(STRIKES, run_dir)
    assert len(found) == STRIKES
    assert [each for each in found if not each.moves] == []
    assert {(each.killed, each.by) for each in found} == {(True, "coordinator's death"), (False, "deadline")}
    assert 0.4 < sum(each.killed for each in found) / STRIKES < 0.6
    assert [each for each in found if each.late_ms < 0] == [], "let go too early"
    assert too_late(found) == [], "let go too late"
    witnessed = [each for each in found if each.witness_ms is not None]
    assert len(witnessed) > STRIKES // 2
    assert [each for each in witnessed if (each.witness_ms or 0) < 0] == [], (
        "the guard made its call earlier than it says"
    )
    assert eventually(lambda: os.listdir(run_dir) == [])
    figures = deadline.figures(found)
    assert set(figures) == {"what", "kills", "median_ms", "max_ms", "thaw_max_ms"}
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    FIGURES.write_text(json.dumps(figures) + "\n")
