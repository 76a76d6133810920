# SPDX-License-Identifier: Apache-2.0
"""What runs of the matrix have seen, kept in `build/reliability/` for `docs/reliability.md`."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

from slackwater.system.clock import SYSTEM_CLOCK
from tests.matrix.cells import TOO_SHORT, WINDOW, Cell, Seen
from tests.matrix.site import Site

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build", "reliability")
FIELDS = ("engine", "storage", "kind", "moment", "fault", "outcome")
LATER = (*FIELDS[:5], "landed")


class Record:
    """The cells of one run."""

    def __init__(self, seed: str) -> None:
        self.seed, self.began = seed, SYSTEM_CLOCK.now()
        self._cells: Counter[tuple[str, ...]] = Counter()
        self.replicas, self.existing = 0, 0
        self._late: Counter[tuple[str, ...]] = Counter()
        self.extra: dict[str, Any] = {}
        self.violations: list[str] = []

    def add(self, site: Site, cell: Cell, seen: Seen) -> None:
        """Count one cell where it landed, by what was done; a moment that could not be hit is counted as such."""
        moment, fault, outcome = cell.moment, seen.fault, seen.outcome
        if fault is None:
            fault, outcome = cell.fault, "not hit"
        elif moment != WINDOW:
            moment = seen.landed or moment
        if moment != cell.moment:
            self._late[site.engine, site.storage, cell.kind.name, cell.moment, fault.value, moment] += 1
        self._cells[site.engine, site.storage, cell.kind.name, moment, fault.value, outcome] += 1
        self.replicas += seen.replicas

    def exist(self, cells: int) -> None:
        """Count cells that there are, struck or not; a run that draws from them without end does not count them."""
        self.existing += cells

    @property
    def count(self) -> int:
        """How many cells."""
        return sum(self._cells.values())

    @property
    def late(self) -> int:
        """How many were struck later than they were asked for."""
        return sum(self._late.values())

    def rows(self) -> list[dict[str, Any]]:
        """The cells with how often each was seen."""
        return _rows(FIELDS, self._cells)

    def document(self) -> dict[str, Any]:
        """All of it."""
        return {
            "date": f"{self.began:%Y-%m-%d}", "seed": self.seed,
            "minutes": round((SYSTEM_CLOCK.now() - self.began).total_seconds() / 60, 1),
            "replicas_judged": self.replicas, "violations": self.violations, **self.extra,
            "exist": self.existing or None, "asked": self.count, "late": self.late,
            "missed": self.missed(all_of_them=True),
            "later": _rows(LATER, self._late), "cells": self.rows(),
        }  # fmt: skip

    def missed(self, *, all_of_them: bool = False) -> list[str]:
        """The cells that could not be hit and should have been; or all, with why for those that may be missed."""
        rows = [row for row in self.rows() if row["outcome"] == "not hit"]
        lines = [(row["moment"], f"not hit: {' | '.join(row[each] for each in FIELDS[:5])}") for row in rows]
        known = [f"{line}: {TOO_SHORT[moment]}" for moment, line in lines if moment in TOO_SHORT and all_of_them]
        return [line for moment, line in lines if moment not in TOO_SHORT] + known

    def summary(self) -> str:
        """Counts by kind and fault, in words."""
        counted: Counter[str] = Counter()
        for row in self.rows():
            counted[f"{row['engine']:<11}{row['storage']:<6} {row['kind']:<34} {row['fault']}"] += row["count"]
        lines = [f"{count:>5}  {line}" for line, count in sorted(counted.items())]
        return "\n".join([*lines, *self.missed()])


def _rows(names: Sequence[str], counted: Counter[tuple[str, ...]]) -> list[dict[str, Any]]:
    return [{**dict(zip(names, key, strict=True)), "count": count} for key, count in sorted(counted.items())]


def write(name: str, document: Any) -> None:
    """Write a document as `build/reliability/NAME.json`, whole or not at all."""
    os.makedirs(FOLDER, exist_ok=True)
    path = os.path.join(FOLDER, f"{name}.json")
    with open(f"{path}.new", "w", encoding="utf-8") as f:
        json.dump(document, f, indent=1)
    os.replace(f"{path}.new", path)


def append(name: str, document: Any) -> None:
    """Add a document to the list in `build/reliability/NAME.json`."""
    path = os.path.join(FOLDER, f"{name}.json")
    known = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            known = json.load(f)
    write(name, [*known, document])
