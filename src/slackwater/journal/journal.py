# SPDX-License-Identifier: Apache-2.0
"""The journal of a host: an intent is committed before each effect, so that any process may die at any instant.

A session's effects are undone in reverse order until it has decided to finish; from then on they are made to the end,
in order. The session itself does this when it fails; the next run of anything does it for a session that died.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from slackwater.errors import SlackwaterError
from slackwater.journal.effects import Effect, EffectKinds, fields_of
from slackwater.model.facts import Facts

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, process TEXT NOT NULL, decision TEXT NOT NULL DEFAULT 'open'
) STRICT;
CREATE TABLE IF NOT EXISTS effect (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    kind TEXT NOT NULL, fields TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'intent', facts TEXT NOT NULL DEFAULT '{}'
) STRICT;
"""
SCHEMA_VERSION = 1


class Decision(StrEnum):
    """What becomes of a session that is cut off."""

    OPEN = "open"
    """It has not decided: it is undone, unless what it made shows that it had come to its end."""
    UNDO = "undo"
    """It failed and was putting everything back."""
    FINISH = "finish"


class EffectState(StrEnum):
    """How far an effect came, as far as we know."""

    INTENT = "intent"
    """Perhaps made, perhaps not: the storage or the kernel knows."""
    DONE = "done"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Entry:
    """One effect of a session, in the order of intents."""

    id: int
    session: str
    kind: str
    fields: dict[str, Any]
    state: EffectState
    facts: Facts


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session that has not been settled."""

    id: str
    kind: str
    process: str
    decision: Decision


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done about one effect: for people, and for `reconcile --json`."""

    session: str
    effect: str
    action: Decision
    error: str = ""
    done: bool = True
    """False when the effect itself could not be mended; an error beside True means that this could not be recorded."""


class Journal:
    """One SQLite file: WAL, synchronous=FULL, every write its own transaction. Safe to use from several threads."""

    def __init__(self, path: str, kinds: EffectKinds) -> None:
        """Open or make the journal.

        Never open the file by other means in a process that has it open: closing it would drop SQLite's locks.

        Raises:
            SlackwaterError: it cannot be opened, or a newer version of slackwater has written it.
        """
        self._kinds = kinds
        self._mutex = threading.RLock()
        try:
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        except sqlite3.Error as e:
            raise SlackwaterError(
                f"The journal {path} cannot be used: {e}.",
                data="Nothing was begun. The replicas on the storage are untouched.",
                hint=f"See whether the disk has room and works: df {path}; dmesg. If the file is damaged, move it aside"
                " with its -wal and -shm: what a session that was cut off left behind is then not put right.",
                code="journal",
            ) from e
        if version > SCHEMA_VERSION:
            raise SlackwaterError(
                f"The journal {path} was written by a newer version of slackwater (format {version}).",
                data="Nothing was begun.",
                hint="Run that newer version.",
                code="journal-newer",
            )

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._db.close()

    # -- writing ---------------------------------------------------------------------------------------------------

    def begin(self, session: str, kind: str, process: str) -> None:
        """Open a session; what it makes is undone until `decide` says otherwise."""
        self._write("INSERT INTO session (id, kind, process) VALUES (?, ?, ?)", (session, kind, process))

    def intend(self, session: str, effects: Iterable[Effect]) -> list[int]:
        """Commit what is about to be made, in one transaction; returns the entries' ids in order."""
        with self._mutex, _plainly():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                ids = [
                    self._db.execute(
                        "INSERT INTO effect (session, kind, fields) VALUES (?, ?, ?) RETURNING id",
                        (session, effect.kind, json.dumps(fields_of(effect))),
                    ).fetchone()[0]
                    for effect in effects
                ]
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            return ids

    def done(self, entry: int, facts: Facts) -> None:
        """Record that an effect was made, and what was learnt."""
        self._write("UPDATE effect SET state = 'done', facts = ? WHERE id = ?", (json.dumps(dict(facts)), entry))

    def run(self, session: str, effect: Effect) -> Facts:
        """Intent, effect, done. When making it fails the entry stays open for `undo`.

        Raises:
            SlackwaterError: as the effect's `make`.
        """
        (entry,) = self.intend(session, [effect])
        return self.make(entry, effect)

    def make(self, entry: int, effect: Effect) -> Facts:
        """Make an effect whose intent is committed.

        Raises:
            SlackwaterError: as the effect's `make`.
        """
        facts = effect.make()
        self.done(entry, facts)
        return facts

    def revert(self, session: str, effect: Effect) -> None:
        """Undo one effect of a running session, before its end and out of turn (processes moved back after a thaw)."""
        for entry in self.entries(session):
            if entry.kind == effect.kind and entry.fields == json.loads(json.dumps(fields_of(effect))):
                effect.undo()
                self._write("UPDATE effect SET state = 'undone' WHERE id = ?", (entry.id,))

    def decide(self, session: str, decision: Decision) -> None:
        """Commit what becomes of the session when it is cut off from now on."""
        self._write("UPDATE session SET decision = ? WHERE id = ?", (decision, session))

    def settle(self, session: str) -> None:
        """Close a session whose effects are all where they belong; it leaves the journal. Idempotent."""
        self._write("DELETE FROM session WHERE id = ?", (session,))

    # -- mending ---------------------------------------------------------------------------------------------------

    def undo(self, session: str, *, strictly: bool = False) -> list[Mended]:
        """Undo everything that the session made or may have made, last first.

        One failure does not stop the others, unless `strictly`: the effects of a recovery stand on each other, and with
        one volume back and the other not, nothing may be started. The next call goes on from there.
        """
        story: list[Mended] = []
        for entry in reversed(self.entries(session)):
            if entry.state is not EffectState.UNDONE:
                story.append(self._mend(entry, Decision.UNDO))
                if strictly and not story[-1].done:
                    break
        return story

    def finish(self, session: str) -> list[Mended]:
        """Make everything that the session had meant and not done, in order; stops at the first failure."""
        story: list[Mended] = []
        for entry in self.entries(session):
            if entry.state is EffectState.INTENT:
                story.append(self._mend(entry, Decision.FINISH))
                if story[-1].error:
                    break
        return story

    def _mend(self, entry: Entry, action: Decision) -> Mended:
        effect = self._kinds.load(entry.kind, entry.fields)
        if effect is None:
            missing = f"nothing installed here knows effects of the kind {entry.kind}"
            return Mended(entry.session, entry.kind, action, missing, done=False)
        done = False
        try:
            if action is Decision.UNDO:
                effect.undo()
                done = True
                self._write("UPDATE effect SET state = 'undone' WHERE id = ?", (entry.id,))
            else:
                facts = effect.make()
                done = True
                self.done(entry.id, facts)
        except Exception as e:  # noqa: BLE001  # whatever it is, it must not keep the other effects from being mended
            return Mended(entry.session, effect.describe(), action, str(e), done=done)
        return Mended(entry.session, effect.describe(), action)

    # -- reading ---------------------------------------------------------------------------------------------------

    def open_sessions(self) -> list[OpenSession]:
        """Every session that is not settled, running or dead, oldest first."""
        rows = self._read("SELECT id, kind, process, decision FROM session ORDER BY rowid", ())
        return [OpenSession(i, k, p, Decision(d)) for i, k, p, d in rows]

    def entries(self, session: str) -> Sequence[Entry]:
        """The effects of a session in the order of their intents."""
        rows = self._read(
            "SELECT id, session, kind, fields, state, facts FROM effect WHERE session = ? ORDER BY id", (session,)
        )
        return [Entry(i, s, k, json.loads(f), EffectState(st), json.loads(fa)) for i, s, k, f, st, fa in rows]

    def effects(self, session: str) -> list[Effect]:
        """The effects of a session whose kind is known here, rebuilt, in the order of their intents."""
        loaded = [self._kinds.load(entry.kind, entry.fields) for entry in self.entries(session)]
        return [effect for effect in loaded if effect is not None]

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._mutex, _plainly():
            return self._db.execute(sql, values).fetchall()

    def _write(self, sql: str, values: tuple[Any, ...]) -> None:
        with self._mutex, _plainly():
            self._db.execute(sql, values)


@contextmanager
def _plainly() -> Iterator[None]:
    """Turn SQLite's errors (disk full, file damaged) into one that a user can read."""
    try:
        yield
    except sqlite3.Error as e:
        raise SlackwaterError(
            f"The journal could not be read or written: {e}.",
            data="What was begun and could not be recorded is undone now or by the next `slackwater reconcile`.",
            hint="Make room on the disk that holds slackwater's state, then run `slackwater reconcile`.",
            code="journal",
        ) from e
