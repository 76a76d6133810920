# SPDX-License-Identifier: Apache-2.0
"""The writer `sqlite`: a database of SQLite 3 in one file, `sqlite:/path/to/app.db`.

What an image must satisfy: database and log, or journal, of one instant. SQLite recovers from a power cut by itself
("Atomic Commit In SQLite", "Write-Ahead Logging"), so one instant over its directory is enough. Where there is none,
its own lock keeps everybody from writing while the files are copied; see `_sqlite/keeper.py`. It is not offered where
an application keeps everybody out for good; see `_sqlite/locks.py`. The index of the log (`-shm`) belongs to the
processes that have it mapped: it is made anew, and never put back.

Databases are found in the processes that have them open, and by being named. Nobody's database is ever opened in this
process, see `_sqlite/__init__.py`.

A database has no server to be stopped. For a recovery nobody may have it open: who has is stopped by the systemd unit
they all belong to, or by the commands `stop` and `start` of the specification.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, ClassVar

from slackwater.errors import RefusedError, SlackwaterError, VerificationError
from slackwater.journal.effects import Effect
from slackwater.model.component import Component, Handling
from slackwater.model.facts import Facts
from slackwater.model.hold import Keeper
from slackwater.writers._handling import application_fields, members, way_in
from slackwater.writers._sqlite.describe import component_of
from slackwater.writers._sqlite.effects import StartSqlite, StopSqlite
from slackwater.writers._sqlite.find import database_at, databases, holders
from slackwater.writers._sqlite.programs import check, program
from slackwater.writers.contract import Bridge, Clone, Probe, Question


class SqliteWriter:
    """Speaks for SQLite databases."""

    name: ClassVar[str] = "sqlite"
    effects: ClassVar[tuple[type[Effect], ...]] = (StopSqlite, StartSqlite)
    answers: ClassVar[bool] = True

    def __init__(self, handling: Mapping[str, Handling] | None = None) -> None:
        self._handling = dict(handling or {})

    def identify(self) -> Sequence[Component]:
        """Find every database that a process has open, Slackwater's own left out."""
        return [component_of(each, each.path, self._said_of(each.path)) for each in databases()]

    def find(self, name: str) -> Component | None:
        """Describe the database of this path, also when nobody has it open; links in it are followed."""
        database = database_at(os.path.realpath(name)) if name.startswith("/") and "\n" not in name else None
        return component_of(database, name, self._said_of(name)) if database else None

    def processes(self, component: Component) -> frozenset[int]:
        """Those that have the database open, and all of the unit or cgroup that the specification names."""
        return holders(str(component.facts.get("path", ""))) | members(component)

    def prepare(self, component: Component) -> Facts:
        """Nothing slow: a log is as long as it is."""
        return {}

    def freeze(self, component: Component) -> None:
        """Nothing: the lock has its keeper."""

    def thaw(self, component: Component) -> None:
        """Nothing."""

    def keeper(self, component: Component) -> Keeper:
        """The program that begins a write transaction, writes nothing, and rolls it back."""
        return Keeper(program("keeper", _path(component)))

    def bridge(self, component: Component, session: str) -> AbstractContextManager[Bridge]:
        """Never asked for: the log of SQLite does not outlive its checkpoints."""
        raise NotImplementedError

    def complete(self, component: Component, *, good: bool) -> None:
        """Nothing."""

    def rewrite(
        self, component: Component, trees: Mapping[str, str], expected: Facts, known: Sequence[Facts], session: str
    ) -> Facts:
        """Remove the index of the log, if the image has one: SQLite makes it anew from the log."""
        with suppress(FileNotFoundError):
            os.unlink(f"{_within(component, trees)}-shm")
        return {}

    def stop_effect(self, component: Component) -> StopSqlite:
        """Plan to stop who has it open, and to see that nobody has."""
        return StopSqlite(**application_fields(component), path=_path(component))

    def start_effect(self, component: Component) -> StartSqlite | None:
        """Plan to start who uses it; None where nobody is known."""
        planned = StartSqlite(**application_fields(component))
        return planned if planned.controlled else None

    def settle_effect(self, component: Component) -> None:
        """None: nothing was put into the files."""

    def confirm(self, component: Component, expected: Facts, *, timeout_s: float) -> Facts:
        """Have SQLite look the database through (PRAGMA quick_check), as whoever opens it next would find it.

        Not read-only: an image with a transaction under way has a hot journal, which the first to open it rolls back.
        """
        answer = check(_path(component), "rw", "quick_check")
        if answer.get("locked") and (pids := holders(_path(component))):
            return {"quick_check": f"not possible: locked by its application ({sorted(pids)[0]})"}
        _sound(str(component.ref), answer, SlackwaterError)
        return {"quick_check": "ok"}

    def probe(self, component: Component) -> AbstractContextManager[Probe]:
        """Nobody is a client of files: who reads them does not wait.

        Raises:
            SlackwaterError: always.
        """
        raise SlackwaterError(f"{component.ref} answers no client.", data="Nothing was changed.", code="no-client")

    def start_clone(self, clone: Clone, expected: Facts, *, timeout_s: float) -> Facts:
        """Open the clone, which recovers it; there is nothing to be started."""
        answer = _check_clone(clone, "schema_version")
        if "error" in answer:
            raise VerificationError(f"The clone of {clone.component.ref} cannot be opened: {answer['error']}.")
        return way_in(clone, "sqlite3", _path(clone.component))

    def check_clone(self, clone: Clone, question: Question | None) -> Facts:
        """Have SQLite read all of it (PRAGMA integrity_check), and ask the question."""
        answer = _check_clone(clone, "integrity_check", question.query if question else "")
        _sound(f"The clone of {clone.component.ref}", answer, VerificationError)
        facts = {"integrity_check": "ok"}
        if question:
            if str(answer["answer"]).strip() != question.expect.strip():
                told = str(answer["answer"])[:100]
                raise VerificationError(f"The answer is {told!r}, and not {question.expect!r}.", code="question")
            facts["question"] = "answered as expected"
        return facts

    def stop_clone(self, clone: Clone) -> None:
        """Nothing runs."""

    def _said_of(self, name: str) -> Handling:
        return self._handling.get(name, Handling())


def _path(component: Component) -> str:
    return str(component.facts["path"])


def _within(component: Component, trees: Mapping[str, str]) -> str:
    """Where the database of a clone can be reached."""
    return os.path.join(trees[component.files[0].path], os.path.basename(_path(component)))


def _check_clone(clone: Clone, pragma: str, query: str = "") -> dict[str, Any]:
    """In its enclosure, by the original's path: SQLite follows every link of a path by itself, also those of /proc."""
    path = _path(clone.component) if clone.enclosure else _within(clone.component, clone.trees)
    if path.startswith("/proc/"):
        raise RefusedError(
            f"The clone of {clone.component.ref} cannot be opened apart from the original here.",
            data="Nothing was opened.",
            hint="`slackwater doctor` says why there are no namespaces.",
            code="no-enclosure",
        )
    return check(path, "rw", pragma, query, clone.enclosure)


def _sound(what: str, answer: Mapping[str, Any], kind: type[SlackwaterError]) -> None:
    if "error" in answer:
        raise kind(f"{what} cannot be read: {answer['error']}.", code="unreadable")
    if damage := answer["damage"]:
        raise kind(f"{what} is damaged: {damage[0]} ({len(damage)} complaints).", code="damaged")
