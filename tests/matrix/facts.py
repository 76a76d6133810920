# SPDX-License-Identifier: Apache-2.0
"""What a session has left in journal and catalog so far, read from outside: the moments that a strike is timed by.

Nothing here knows a step by its name. What a session that was watched to its end has shown is what the next one is
struck at, so a new step is covered by itself.
"""

import itertools
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from tests.e2e.spawner import Command
from tests.e2e.strikes import LOOK_S, RANKS

LOOKS = 10
"""How often journal and catalog are looked at, before it is asked whether the command still runs."""
_OVER = ("failed", "aborted", "completed", "completed_with_failures")


@dataclass
class Watch:
    """Journal and catalog since a moment, growing: what was true once counts as reached. A context."""

    state_dir: str
    reached: dict[str, int] = field(default_factory=dict)
    """Each fact with the number of the look that saw it first."""
    _looks: int = 0
    _open: dict[str, sqlite3.Connection] = field(default_factory=dict)
    _before: dict[str, dict[str, str]] = field(default_factory=dict)
    _journaled: bool = False
    _versions: list[Any] = field(default_factory=list)
    _initial: frozenset[str] = frozenset()
    """What was true before, and tells nothing of the session that is watched."""

    def __enter__(self) -> Self:
        self._before = self._tables()
        self._initial = frozenset(self._now())
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open.values():
            each.close()

    def look(self) -> dict[str, int]:
        """Look once, and give all that was reached."""
        if not self._changed():
            return self.reached
        self._looks += 1
        for fact in self._now():
            if fact not in self._initial:
                self.reached.setdefault(fact, self._looks)
        return self.reached

    def _changed(self) -> bool:
        """Whether anybody has written to journal or catalog since the last look, or they could not be asked."""
        versions = [self._rows(name, "PRAGMA data_version") for name in ("journal", "catalog")]
        changed = None in versions or versions != self._versions
        self._versions = versions
        return changed

    def until(self, command: Command, there: Callable[[], bool]) -> bool:
        """Look until something is there; False when the command ended before. Asking for its end is the dearer part."""
        while command.poll() is None:
            for _ in range(LOOKS):
                if there():
                    return command.poll() is None
                time.sleep(LOOK_S)
        return False

    def _now(self) -> Iterator[str]:
        effects = self._rows(
            "journal", "SELECT decision, effect.kind, state FROM session LEFT JOIN effect ON session = session.id"
            " ORDER BY session.rowid, effect.id",
        )  # fmt: skip
        if effects is not None:
            if effects:
                self._journaled = True
                yield "journal: begun"
            elif self._journaled:
                yield "journal: settled"
            for decision in {row[0] for row in effects} - {"open"}:
                yield f"journal: decided {decision}"
            for number, (_, kind, state) in enumerate(row for row in effects if row[1]):
                for each in _up_to(state):
                    yield f"{number} {kind}: {each}"
        yield from self._of_catalog()

    def _of_catalog(self) -> Iterator[str]:
        for table, rows in self._tables().items():
            before = self._before.get(table, {})
            if table != "session" and before.keys() - rows.keys():
                yield f"catalog: {table} removed"
            for name, state in rows.items():
                if name not in before:
                    yield f"catalog: {table} added"
                if state != before.get(name) and (state == "deleting" or (table == "session" and state in _OVER)):
                    yield f"catalog: {table} {'ended' if state in _OVER else state}"

    def _tables(self) -> dict[str, dict[str, str]]:
        """Id and state of each row; the sessions' outcomes for their states."""
        found = {}
        for name, sql in (
            ("replica", "SELECT id, state FROM replicas"), ("clone", "SELECT id, state FROM clones"),
            ("session", "SELECT id, outcome FROM sessions ORDER BY rowid DESC LIMIT 3"),
        ):  # fmt: skip
            rows = self._rows("catalog", sql)
            if rows is not None:
                found[name] = dict(rows)
        return found

    def _rows(self, name: str, sql: str) -> list[Any] | None:
        """What one of the databases says; None when it cannot be asked now."""
        try:
            if name not in self._open:
                path = f"{self.state_dir}/{name}.sqlite"
                if not os.path.exists(path):
                    return None
                self._open[name] = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
            return self._open[name].execute(sql).fetchall()
        except sqlite3.Error:
            self._versions = []  # look again
            return None


def _up_to(state: str) -> tuple[str, ...]:
    """Done was intended before; what is undone may never have been done."""
    return ("intent", state) if state in RANKS[1:] else ("intent",)


def targets(state_dir: str, spawn: Callable[[], Command]) -> list[str]:
    """Watch a command to its end; every moment that a strike can be timed by, in the order in which they came.

    Intents that are committed in one transaction are one moment, named by the last.
    """
    with Watch(state_dir) as watch:
        command = spawn()
        watch.until(command, lambda: watch.look() is None)  # never: to its end
        assert command.poll() == 0, command.complaint() + command.output()
        reached = watch.look()
    found = list(reached)
    together = {
        each
        for each, later in itertools.pairwise(found)
        if reached[each] == reached[later] and each.endswith(": intent") and later.endswith(": intent")
    }
    return [each for each in found if each not in together]


def merged(first: list[str], second: list[str]) -> list[str]:
    """The moments of two watches: one that was too short to be seen in the first may have been seen in the second."""
    found = list(first)
    for position, each in enumerate(second):
        if each not in found:
            before = next((name for name in reversed(second[:position]) if name in found), None)
            found.insert(0 if before is None else found.index(before) + 1, each)
    return found


def last_of(known: list[str], watch: Watch) -> str:
    """How far a session has come, by the order that was watched; empty when it had not begun."""
    reached = watch.look()
    return max((each for each in known if each in reached), key=known.index, default="")
