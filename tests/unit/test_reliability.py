# SPDX-License-Identifier: Apache-2.0
"""The page about what was done to it: made from the committed figures, and no violation among them."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


DEADLY = ("SIGKILL", "SIGSTOP, SIGKILL", "SIGSTOP, abort --kill", "guard and session killed")


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("reliability", DOCS / "reliability.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = _generator()
DATA: dict[str, Any] = GENERATOR.figures()
RUNS: dict[str, Any] = {name: DATA[name] for name in GENERATOR._CELLS if name in DATA}


def wrong(runs: dict[str, Any]) -> list[str]:
    """What may not be on the page."""
    found = [f"{name}: {each}" for name, run in runs.items() for each in run["violations"]]
    known = {*GENERATOR.FAULTS, *GENERATOR.WINDOW_FAULTS}
    for name, run in runs.items():
        found += [f"{name}: no cell"] if not run["cells"] else []
        found += [f"{name}: {row} cannot be" for row in run["cells"] if row[-1] < 1 or row[3] not in known]
        found += [f"{name}: {row}" for row in run["cells"] if row[4].startswith("refused: internal")]
        found += [
            f"{name}: {row} was not struck"
            for row in run["cells"]
            if row[3] in DEADLY and row[4] not in ("killed by SIGKILL", "not hit")
        ]
    return found


def test_the_page_is_what_the_figures_say() -> None:
    assert (DOCS / "reliability.md").read_text(encoding="utf-8") == GENERATOR.page(DATA), "run: make reliability"
    assert (DOCS / "reliability.json").read_text(encoding="utf-8") == GENERATOR.text_of(DATA), "run: make reliability"


ASKED = {
    "cells-sqlite": {"SIGKILL", "SIGSTOP, SIGCONT", "SIGSTOP, SIGKILL", "SIGSTOP, abort --kill"},
    "cells-sqlite-asked": {"SIGTERM", "Ctrl-C"},
    "cells-postgresql": {"SIGKILL", "SIGSTOP, SIGCONT", "SIGSTOP, SIGKILL", "SIGTERM", "Ctrl-C"},
}
"""What each run of the suite has to have done to every kind of session."""


@pytest.mark.parametrize("name", ASKED)
def test_every_run_of_the_suite_is_there_with_all_that_it_does(name: str) -> None:
    done = {row[3] for row in RUNS[name]["cells"] if row[4] != "not hit"}
    assert done >= ASKED[name]
    assert len({row[1] for row in RUNS[name]["cells"]}) >= 18, "kinds of sessions"
    missed = {row[2] for row in RUNS[name]["cells"] if row[4] == "not hit"}
    assert missed <= {"catalog: session ended"}, "nothing but the end of the process comes after that"


def test_no_cell_is_a_violation() -> None:
    assert wrong(RUNS) == []
    assert DATA.get("simulation", {}).get("violations", 0) == 0


def test_every_cell_is_on_the_page() -> None:
    """The numbers of the tables of moments add up to the cells that were hit."""
    page = GENERATOR.page(dict(RUNS))
    tables = [each for each in page.split("\n") if each.startswith("|") and each.count("|") > 2]
    inside = "".join(each.partition("\n## ")[0] for each in page.split("\n### ")[1:])
    cells = [cell for line in inside.split("\n") if line.startswith("|") for cell in line.split("|")[2:-1]]
    moments = sum(int(count) for cell in cells for count in re.findall(r" (\d+)(?=[, ])", cell))
    assert tables
    assert moments == sum(row[-1] for run in RUNS.values() for row in run["cells"] if row[4] != "not hit")


@pytest.mark.parametrize(
    "harm",
    [
        lambda run: run["violations"].append("the application stands still"),
        lambda run: run["cells"].clear(),
        lambda run: run["cells"].append(["sqlite", "backup", "window", "magic", "completed", 1]),
        lambda run: run["cells"].append(["sqlite", "backup", "window", "SIGTERM", "refused: internal", 1]),
        lambda run: run["cells"].append(["sqlite", "backup", "window", "SIGKILL", "completed", 1]),
    ],
)
def test_a_twin_with_a_violation_is_seen(harm: Any) -> None:
    run: dict[str, Any] = {"violations": [], "cells": [["sqlite", "backup", "window", "SIGTERM", "completed", 1]]}
    assert wrong({"run": run}) == []
    harm(run)
    assert wrong({"run": run}) != []


def test_a_kill_that_came_too_late_is_listed_and_not_counted() -> None:
    rows = [
        {
            "engine": "sqlite",
            "kind": "backup",
            "moment": "journal: settled",
            "fault": fault,
            "outcome": outcome,
            "count": 1,
        }
        for fault in DEADLY
        for outcome in ("completed", "killed by SIGKILL")
    ]
    run = {"date": "2026-01-01", "seed": "1", "minutes": 1, "replicas_judged": 0, "violations": [], "cells": rows}
    found = GENERATOR._shortened(run)
    page = GENERATOR.page({"chaos": found})
    assert wrong({"chaos": found}) == []
    assert f"| `make chaos` | 2026-01-01 | 1 | not counted | {len(DEADLY)} | not known | {len(DEADLY)} |" in page
    assert "- backup, journal: settled, SIGKILL\n" in page
    assert "completed 1" not in page


def test_a_cell_that_always_landed_later_is_listed() -> None:
    cell = {"engine": "sqlite", "kind": "backup", "fault": "SIGKILL", "count": 2}
    run = {
        "date": "2026-01-01", "seed": "1", "minutes": 1, "replicas_judged": 0, "violations": [], "exist": 44, "late": 2,
        "cells": [{**cell, "moment": "journal: settled", "outcome": "killed by SIGKILL"}],
        "later": [{**cell, "moment": "3 btrfs.snapshot: intent", "landed": "journal: settled"}],
    }  # fmt: skip
    page = GENERATOR.page({"chaos": GENERATOR._shortened(run)})
    assert "| SQLite | backup | 3 snapshot: intent | SIGKILL | journal: settled |" in page
    assert "| `make chaos` | 2026-01-01 | 1 | 44 | 2 | 2 | 0 |" in page
    assert "| journal: settled | killed 2 |" in page
