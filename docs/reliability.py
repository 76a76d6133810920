# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001  # a script, and no package
"""Write `docs/reliability.md` from what runs of the tests have seen: `make reliability`.

What lies in `build/reliability/` is added to `docs/reliability.json`, which is committed with the page, in the place of
what it said of the same run before. A test holds the page against the figures.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_BUILD = os.path.join(_HERE, "..", "build", "reliability")
_CELLS = ("cells-sqlite", "cells-sqlite-asked", "cells-postgresql", "chaos")
_NAMES = (*_CELLS, "guard", "simulation", "power")
#: Both providers of filesystems name their steps alike.
_PROVIDERS = ("btrfs.", "reflink.")
_COLUMNS = ("engine", "kind", "moment", "fault", "outcome")
_LATER = (*_COLUMNS[:4], "landed")
_RUNS = {
    "cells-sqlite": "`make test`, SQLite on Btrfs: SIGKILL, SIGSTOP",
    "cells-sqlite-asked": "`make test`, SQLite on XFS: SIGTERM, Ctrl-C",
    "cells-postgresql": "`make test`, PostgreSQL",
    "chaos": "`make chaos`",
}

FAULTS = ("SIGKILL", "SIGSTOP, SIGCONT", "SIGSTOP, SIGKILL", "SIGTERM", "Ctrl-C", "SIGSTOP, abort --kill")
WINDOW_FAULTS = ("guard killed", "guard and session killed", "application killed", "application stopped")
_DEADLY = ("SIGKILL", "SIGSTOP, SIGKILL", "SIGSTOP, abort --kill", "guard and session killed")
_ENGINES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
NOT_HIT = "not hit"

_HEAD = """\
<!-- Made by docs/reliability.py from docs/reliability.json; run `make reliability` after a run of the tests. -->

# What was done to it, and what was seen

Every kind of session is struck at every entry that it makes in the journal and in the catalog, from outside, while an
application works and an oracle counts what it acknowledged. There is no hook for this in what is shipped: the moments
are read from the two files, so a step that is new is struck without anybody thinking of it.

A *cell* is a session, a moment and a fault. It counts as passed when, afterwards,

- the application acknowledges something new in time: by itself, or where it was stopped for a recovery after one
  `slackwater reconcile`;
- that one `reconcile`, or the next session, has put everything right; a session that was only asked to stop needs
  neither, unless it was a deletion, an unmount or a reconcile, which the next one finishes;
- `slackwater catalog check` finds no difference, and the machine holds no mount, device, clone, process, cgroup or
  file that was not there before or that the catalog does not show;
- every replica that the session left passes the oracle, recovered on a copy of its own: nothing that was acknowledged
  before the session began is missing, and nothing in it contradicts anything else, over both volumes;
- what runs passes the oracle, too, and no replica is gone that nobody wanted to be gone.

On SQLite the oracle is a bank with two databases: transfers between them have one number in both, and the total is
fixed. On PostgreSQL it is the load of the demonstration, and the question is put to the replica by `slackwater
replica verify`. That each of these checks sees what it is there for is shown by sabotaged twins
(`tests/e2e/test_matrix_twins.py`): a reconcile that does nothing, a guard that never thaws, a lock that is not taken,
replicas with one row too few or another.

## What to conclude, and what not

In the tables of moments each cell says how the struck session ended and how often the cell was passed: the session was
`killed`, had `completed`, or gave up with the error named, mostly `aborted`. A violation stops the run and is never on
this page. A dot is a cell that was not struck in these runs; it says nothing. On SQLite `make test` asks for SIGKILL,
SIGSTOP, SIGTERM and Ctrl-C at every moment of every kind of session: for the first two on Btrfs, for the others on XFS;
what was stopped goes on, is killed, or is taken over by `abort`, whichever a seed draws. On PostgreSQL every moment of
every kind gets one of the four, which a seed draws. `make chaos` draws from everything, on both filesystems.

A cell counts only when something was struck: after a fault that kills the session, when the session was ended by that
SIGKILL; after one that kills its guard, when the guard was there to be killed. When the session had ended by itself
before, another one is tried, and after thirty the cell is `not hit`: it is listed, is in no table of moments, and
fails the run. But after the last entry of all a process may be gone too soon, so that three are tried. A session that
is stopped and cannot be taken over by `abort`, because it has not told its id yet or is over but for its process, is
killed instead, and stands there.

A signal comes within a fraction of a millisecond after the moment is seen, on a busy machine later; a moment too short
to be seen is struck at one that comes two or more after it. So a cell stands at the last entry that the session had
made when it was struck, which may be a later one than was asked for: how many did, the table of the runs says. A run
of which that is `not known` is of before this was told apart, and its cells stand where they were asked for.

On one machine, with one kernel and its filesystems, some hundreds of passed cells make a defect that shows at such a
moment unlikely. They do not exclude one that needs a moment of a microsecond between two entries, a disk that lies
about what it has written, or a kernel that was not tried. Power cuts are another matter than kills, and are told apart.
"""


def main() -> None:
    """Take in what was built, and write the figures and the page."""
    data = json.loads(text_of({**figures(), **built()}))  # in the order in which the page is held against the figures
    with open(os.path.join(_HERE, "reliability.json"), "w", encoding="utf-8") as f:
        f.write(text_of(data))
    with open(os.path.join(_HERE, "reliability.md"), "w", encoding="utf-8") as f:
        f.write(page(data))


def figures() -> dict[str, Any]:
    """What is committed."""
    path = os.path.join(_HERE, "reliability.json")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as f:
        return dict(json.load(f))


def built() -> dict[str, Any]:
    """What the last runs have left, with the cells as short as the page needs them."""
    found = {}
    for name in _NAMES:
        path = os.path.join(_BUILD, f"{name}.json")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                document = json.load(f)
            found[name] = _shortened(document) if name in _CELLS else document
    return found


def _shortened(document: Any) -> dict[str, Any]:  # noqa: ANN401
    """One run, or a list of them, with the columns of the page only."""
    runs = document if isinstance(document, list) else [document]
    counted: Counter[tuple[str, ...]] = Counter()
    later: Counter[tuple[str, ...]] = Counter()
    others: Counter[str] = Counter()
    for run in runs:
        others.update({each: run[each] for each in ("simulation", "power cuts") if each in run})
        for row in run["cells"]:
            counted[_struck(*(_plain(row[each]) for each in _COLUMNS))] += row["count"]
        for row in run.get("later", ()):
            later[tuple(_plain(row[each]) for each in _LATER)] += row["count"]
    return {
        "dates": sorted({run["date"] for run in runs}), "seeds": [run["seed"] for run in runs],
        "minutes": round(sum(run["minutes"] for run in runs), 1),
        "replicas_judged": sum(run["replicas_judged"] for run in runs),
        "late": sum(run["late"] for run in runs) if all("late" in run for run in runs) else None,
        "exist": sum(run["exist"] for run in runs) if all(run.get("exist") for run in runs) else None,
        "later": [[*key, count] for key, count in sorted(later.items())],
        "violations": [each for run in runs for each in run["violations"]],
        "others": dict(others), "cells": [[*key, count] for key, count in sorted(counted.items())],
    }  # fmt: skip


def _plain(text: str) -> str:
    for each in _PROVIDERS:
        text = text.replace(each, "")
    return text


def _struck(engine: str, kind: str, moment: str, fault: str, outcome: str) -> tuple[str, ...]:
    """A cell; older runs count one as passed whose session had ended by itself before it could be killed."""
    return engine, kind, moment, fault, NOT_HIT if fault in _DEADLY and outcome != "killed by SIGKILL" else outcome


def text_of(data: dict[str, Any]) -> str:
    """The figures, one cell a line, so that a difference can be read."""
    return json.dumps(data, indent=1, sort_keys=True).replace("\n    ", " ").replace("\n   ]", " ]") + "\n"


def page(data: dict[str, Any]) -> str:
    """The page."""
    runs = {name: data[name] for name in _CELLS if name in data}
    parts = [_HEAD, _runs(runs), _never(runs), _guard(data.get("guard")), _simulation(data.get("simulation"))]
    parts += [_power(data.get("power")), *_matrices([row for run in runs.values() for row in run["cells"]])]
    return "\n".join(each for each in parts if each)


def _runs(runs: dict[str, dict[str, Any]]) -> str:
    rows = [
        [
            _RUNS[name], ", ".join(run["dates"]), f"{run['minutes']:g}", run.get("exist") or "not counted",
            _count(run, hit=True),
            "not known" if run["late"] is None else run["late"], _count(run, hit=False),
            run["replicas_judged"], len(run["violations"]), ", ".join(map(str, run["seeds"])),
        ]
        for name, run in runs.items()
    ]  # fmt: skip
    heads = ["run", "when", "minutes", "cells there are", "struck", "landed later", NOT_HIT]
    return "## The runs\n\n" + _table([*heads, "replicas judged", "violations", "seeds"], rows)


def _never(runs: dict[str, dict[str, Any]]) -> str:
    """The cells that were asked for, and always landed at a later moment."""
    struck = {tuple(row[:4]) for run in runs.values() for row in run["cells"]}
    rows = [row for run in runs.values() for row in run.get("later", ()) if tuple(row[:4]) not in struck]
    if not rows:
        return ""
    faults: dict[tuple[str, ...], set[str]] = defaultdict(set)
    landed: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for engine, kind, moment, fault, at, _ in rows:
        faults[engine, kind, moment].add(fault)
        landed[engine, kind, moment].add(at)
    return (
        "## Asked for, and struck later only\n\nThese moments were over before the signal came, or one commit makes"
        " them and a later entry; the cell is counted where it landed.\n\n"
    ) + _table(
        ["engine", "session", "moment", "faults", "landed at"],
        [
            [_ENGINES[key[0]], *key[1:], "; ".join(sorted(faults[key])), "; ".join(sorted(landed[key], key=_rank))]
            for key in sorted(faults, key=lambda key: (*key[:2], _rank(key[2])))
        ],
    )


def _count(run: dict[str, Any], *, hit: bool) -> int:
    """How many cells were hit, or were not."""
    return sum(row[-1] for row in run["cells"] if (row[4] != NOT_HIT) is hit)


def _guard(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    return (
        f"## The guard\n\nOf {found['kills']} holds whose session was killed or whose deadline came, the guard gave the"
        f" order to thaw {found['median_ms']:g} ms after the moment (median), {found['max_ms']:g} ms at the most;"
        f" everything moved {found['thaw_max_ms']:g} ms after the order at the most.\n"
    )


def _simulation(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    rows = [[key, value] for key, value in found.items() if isinstance(value, int | float)]
    rows += [
        [key, ", ".join(f"{name} {count}" for name, count in sorted(value.items()))]
        for key, value in found.items()
        if isinstance(value, dict)
    ]
    return (
        "## The simulation\n\nThe same sessions, journal, catalog and mending in a simulated kernel with simulated"
        " time, a seed for each world.\n\n" + _table(["what", "figure"], rows)
    )


def _power(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    counted: Counter[tuple[str, str, str]] = Counter()
    for each in found["cells"]:
        counted[each["filesystem"], each["session"], each["seen"]] += each["count"]
    rows = [[*key, count] for key, count in sorted(counted.items())]
    return "## Power cuts\n\nOf a whole machine, by user-mode Linux.\n\n" + _table(
        ["filesystem", "session", "what was seen", "cuts"], rows
    )


def _matrices(rows: Iterable[list[Any]]) -> Iterator[str]:
    """For each engine a table of kinds and faults with what was seen, and one of moments for each kind."""
    by_engine: dict[str, list[list[Any]]] = defaultdict(list)
    for row in rows:
        by_engine[row[0]].append(row)
    for engine, name in _ENGINES.items():
        if by_engine[engine]:
            hit = [row for row in by_engine[engine] if row[4] != NOT_HIT]
            yield f"## {name}: what was seen\n\n{_outcomes(hit)}"
            yield from _missed(name, [row for row in by_engine[engine] if row[4] == NOT_HIT])
            yield f"## {name}: every moment\n\n" + "\n".join(_moments(hit))


def _missed(engine: str, rows: list[list[Any]]) -> Iterator[str]:
    """What could not be hit, if anything."""
    if rows:
        lines = sorted({f"- {kind}, {moment}, {fault}" for _, kind, moment, fault, *_ in rows})
        yield f"## {engine}: not hit\n\n" + "\n".join(lines) + "\n"


def _outcomes(rows: list[list[Any]]) -> str:
    counted: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for _, kind, _, fault, outcome, count in rows:
        counted[kind, fault][outcome] += count
    lines = [
        [kind, fault, ", ".join(f"{outcome} {count}" for outcome, count in sorted(counted[kind, fault].items()))]
        for kind, fault in sorted(counted, key=lambda key: (key[0], (*FAULTS, *WINDOW_FAULTS).index(key[1])))
    ]
    return _table(["session", "fault", "how the session ended, and how often"], lines)


def _moments(rows: list[list[Any]]) -> Iterator[str]:
    kinds = sorted({row[1] for row in rows})
    for kind in kinds:
        counted: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for _, of, moment, fault, outcome, count in rows:
            if of == kind:
                counted[moment, fault][_word(outcome)] += count
        faults = [each for each in (*FAULTS, *WINDOW_FAULTS) if any(fault == each for _, fault in counted)]
        lines = [
            [moment, *(_seen(counted.get((moment, fault), Counter())) for fault in faults)]
            for moment in sorted({moment for moment, _ in counted}, key=_rank)
        ]
        yield f"### {kind}\n\n{_table(['moment', *faults], lines)}"


def _word(outcome: str) -> str:
    """How a session ended, short: `killed`, `completed`, or the code of its error."""
    return outcome.removeprefix("refused: ").removesuffix(" by SIGKILL")


def _seen(outcomes: Counter[str]) -> str:
    return ", ".join(f"{outcome} {count}" for outcome, count in sorted(outcomes.items())) or "·"


def _rank(moment: str) -> tuple[int, int, str]:
    """Begin, the effects in their order, the decision and the end."""
    first, _, rest = moment.partition(" ")
    states = ("intent", "done", "undone")
    if first.isdigit():
        return 1, int(first) * 3 + states.index(rest.rpartition(": ")[2]), rest
    begins = moment in ("catalog: session added", "journal: begun")
    return (0 if begins else 2 if "decided" in moment else 3), 0, moment


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
