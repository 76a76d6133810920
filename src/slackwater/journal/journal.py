# SPDX-License-Identifier: Apache-2.0
"""The journal of a host: an intent is committed before each effect, so that any process may die at any instant.

A session's effects are undone in reverse order until it has decided to finish; from then on they are made to the end,
in order. The session itself does this when it fails; the next run of anything does it for a session that died.

A session belongs to one process at a time: whoever takes it over first raises the number in its row (a fencing token),
and from then on nothing that its late owner wants to write is written, and no effect of its is begun.
"""

import json
import os
import sqlite3
import stat
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from slackwater import SQLITE_APPLICATION_ID
from slackwater.errors import FencedError, SlackwaterError
from slackwater.journal.effects import Effect, EffectKinds, fields_of
from slackwater.model.facts import Facts

_NO_ROOM = "Make room on the disk that holds slackwater's state, then run `slackwater reconcile`."
_LOCKED = "`slackwater session list` shows who is at work; what stands still: slackwater session abort SESSION --kill"
#: A journal that nobody else sees, and that ends with its process.
IN_MEMORY = ":memory:"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, process TEXT NOT NULL, decision TEXT NOT NULL DEFAULT 'open',
    token INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE TABLE IF NOT EXISTS effect (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    kind TEXT NOT NULL, fields TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'intent', facts TEXT NOT NULL DEFAULT '{}'
) STRICT;
"""
_UPGRADES = {1: "ALTER TABLE session ADD COLUMN token INTEGER NOT NULL DEFAULT 1;"}
"""By the version from which each leads to the next."""
SCHEMA_VERSION = 2
_SETTLED = 0
"""The token of a session that its own process has settled, and whose row is gone."""
_UNDONE = "UPDATE effect SET state = 'undone' WHERE id = ?"


class Decision(StrEnum):
    """What becomes of a session that is cut off."""

    OPEN = "open"
    """It has not decided: it is undone, unless what it made shows that it had come to its end."""
    UNDO = "undo"
    """It failed and was putting everything back."""
    KEEP = "keep"
    """A recovery that is taken back after its application may have run: what it ran on is kept as a replica."""
    FINISH = "finish"
    STAY = "stay"
    """A recovery that was told to stay where it is, also where it fails: finished, and never taken back by itself."""
    UNREADABLE = "unreadable"
    """The record is damaged, or of a newer version: it is named, and left alone."""

    @classmethod
    def _missing_(cls, value: object) -> "Decision":
        return cls.UNREADABLE


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
    kind: str = ""
    """Of the effect."""

    @property
    def unstarted(self) -> bool:
        """Whether all that failed is that an application could not be started again; its files are in their place."""
        return bool(self.error) and self.action is not Decision.FINISH and self.kind.endswith(".stop")


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
        self._tokens: dict[str, int] = {}
        """By session: what its row must still say for us to write."""
        if path != IN_MEMORY:
            _make_file(path)
        try:
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA secure_delete = ON")  # texts of configuration files are among what is deleted
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version < SCHEMA_VERSION:
                self._upgrade(version)
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

    def _upgrade(self, version: int) -> None:
        steps = "".join(_UPGRADES[each] for each in range(version, SCHEMA_VERSION)) if version else _SCHEMA
        self._db.executescript(
            f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA_VERSION};"
            f" PRAGMA application_id = {SQLITE_APPLICATION_ID}; COMMIT;"
        )

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._db.close()

    # -- whose it is -----------------------------------------------------------------------------------------------

    def take(self, session: str) -> None:
        """Take a session over: whoever ran it writes nothing more, and begins no effect. Idempotent.

        An effect that was begun before goes on. So whoever mends sees to it that its process is dead, too.
        """
        with self._mutex, _plainly():
            row = self._db.execute(
                "UPDATE session SET token = token + 1 WHERE id = ? RETURNING token", (session,)
            ).fetchone()
            if row is not None:
                self._tokens[session] = row[0]

    def check(self, session: str, *, strictly: bool = True) -> None:
        """Raise unless the session is still ours.

        Args:
            session: which.
            strictly: without it a journal that cannot be read does not count, as before an undo: nothing must stay
                frozen for it, and what cannot be written to cannot have been taken over.

        Raises:
            FencedError: another process has taken it over, and may have brought it to its end.
        """
        try:
            found = self._read("SELECT token FROM session WHERE id = ?", (session,))
        except SlackwaterError:
            if strictly:
                raise
            return
        if (found[0][0] if found else _SETTLED) != self._tokens.get(session):
            raise FencedError(
                f"Another process has taken the session {session} over, while this one stood still.",
                data="This one makes and undoes nothing more; what it had begun is put right by the other.",
                hint="slackwater session list",
            )

    @contextmanager
    def _held(self, session: str) -> Iterator[None]:
        """One transaction on a session that is ours; otherwise nothing is written."""
        with self._mutex, _plainly():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self.check(session)
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite has rolled back by itself after some errors
                    self._db.execute("ROLLBACK")
                raise

    def _session_of(self, entry: int) -> str:
        """The session of an effect; empty, which is nobody's, when it was settled meanwhile."""
        found = self._read("SELECT session FROM effect WHERE id = ?", (entry,))
        return str(found[0][0]) if found else ""

    # -- writing ---------------------------------------------------------------------------------------------------

    def begin(self, session: str, kind: str, process: str) -> None:
        """Open a session, which is ours; what it makes is undone until `decide` says otherwise."""
        with self._mutex, _plainly():
            (self._tokens[session],) = self._db.execute(
                "INSERT INTO session (id, kind, process) VALUES (?, ?, ?) RETURNING token", (session, kind, process)
            ).fetchone()

    def intend(self, session: str, effects: Iterable[Effect]) -> list[int]:
        """Commit what is about to be made, in one transaction; returns the entries' ids in order.

        Raises:
            FencedError: another process has taken the session over. So do all that write, below.
        """
        with self._held(session):
            return [
                self._db.execute(
                    "INSERT INTO effect (session, kind, fields) VALUES (?, ?, ?) RETURNING id",
                    (session, effect.kind, json.dumps(fields_of(effect))),
                ).fetchone()[0]
                for effect in effects
            ]

    def done(self, entry: int, facts: Facts) -> None:
        """Record that an effect was made, and what was learnt."""
        self._set(entry, "UPDATE effect SET state = 'done', facts = ? WHERE id = ?", json.dumps(dict(facts)))

    def run(self, session: str, effect: Effect) -> Facts:
        """Intent, effect, done. When making it fails the entry stays open for `undo`.

        Raises:
            SlackwaterError: as the effect's `make`.
        """
        (entry,) = self.intend(session, [effect])
        return self.make(entry, effect)

    def make(self, entry: int, effect: Effect) -> Facts:
        """Make an effect whose intent is committed, unless the session was taken over since.

        Raises:
            SlackwaterError: as the effect's `make`.
        """
        self.check(self._session_of(entry))
        facts = effect.make()
        self.done(entry, facts)
        return facts

    def revert(self, session: str, effect: Effect, *, undo: bool = True) -> None:
        """Undo one effect of a running session, before its end and out of turn (processes moved back after a thaw).

        Without `undo` it is only recorded: the caller has undone it.
        """
        for entry in self.entries(session):
            if entry.kind == effect.kind and entry.fields == json.loads(json.dumps(fields_of(effect))):
                if undo:
                    self.check(session, strictly=False)
                    effect.undo()
                self._set(entry.id, _UNDONE)

    def decide(self, session: str, decision: Decision, *, again: Collection[int] = ()) -> None:
        """Commit what becomes of the session when it is cut off from now on.

        Args:
            session: its id.
            decision: what becomes of it.
            again: entries that `finish` is to make whatever was recorded of them; effects are idempotent.
        """
        with self._held(session):
            self._db.execute("UPDATE session SET decision = ? WHERE id = ?", (decision, session))
            self._db.executemany("UPDATE effect SET state = 'intent' WHERE id = ?", [(each,) for each in again])

    def settle(self, session: str) -> None:
        """Close a session whose effects are all where they belong; it leaves the journal. Idempotent."""
        if self._tokens.get(session, _SETTLED) == _SETTLED and not self._read(
            "SELECT 1 FROM session WHERE id = ?", (session,)
        ):
            return
        with self._held(session):
            self._db.execute("DELETE FROM session WHERE id = ?", (session,))
        self._tokens[session] = _SETTLED

    # -- mending ---------------------------------------------------------------------------------------------------

    def undo(self, session: str, *, strictly: bool = False, sparing: Collection[int] = ()) -> list[Mended]:
        """Undo everything that the session made or may have made, last first, but for the entries in `sparing`.

        One failure does not stop the others, unless `strictly`: the effects of a recovery stand on each other, and with
        one volume back and the other not, nothing may be started. The next call goes on from there. An application that
        does not start keeps no other from being started.
        """
        story: list[Mended] = []
        for entry in reversed(self.entries(session)):
            if entry.state is not EffectState.UNDONE and entry.id not in sparing:
                story.append(self._mend(entry, Decision.UNDO))
                if strictly and not story[-1].done and not story[-1].unstarted:
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
            return Mended(entry.session, entry.kind, action, missing, done=False, kind=entry.kind)
        self.check(entry.session, strictly=False)
        done = False
        try:
            if action is Decision.UNDO:
                effect.undo()
                done = True
                self._set(entry.id, _UNDONE)
            else:
                facts = effect.make()
                done = True
                self.done(entry.id, facts)
        except FencedError:
            raise
        except Exception as e:  # noqa: BLE001  # whatever it is, it must not keep the other effects from being mended
            return Mended(entry.session, effect.describe(), action, str(e), done, entry.kind)
        return Mended(entry.session, effect.describe(), action, kind=entry.kind)

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
        try:
            return [Entry(i, s, k, json.loads(f), EffectState(st), json.loads(fa)) for i, s, k, f, st, fa in rows]
        except ValueError as e:
            raise SlackwaterError(
                f"What the journal says of the effects of session {session} cannot be read: {e}.",
                data="What it had made is left as it is.",
                hint=f"Put it right by hand, then: slackwater reconcile --forget {session}",
                code="journal",
            ) from e

    def effects(self, session: str) -> list[tuple[Entry, Effect]]:
        """The effects of a session whose kind is known here, rebuilt, in the order of their intents."""
        loaded = [(entry, self._kinds.load(entry.kind, entry.fields)) for entry in self.entries(session)]
        return [(entry, effect) for entry, effect in loaded if effect is not None]

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._mutex, _plainly():
            return self._db.execute(sql, values).fetchall()

    def _set(self, entry: int, sql: str, *values: str) -> None:
        with self._held(self._session_of(entry)):
            self._db.execute(sql, (*values, entry))


def _make_file(path: str) -> None:
    """Only its owner may read it: SQLite would make it readable for all, and it can hold configuration files' texts.

    A descriptor would drop its locks. What cannot be made here SQLite says.
    """
    with suppress(OSError):
        if not os.path.lexists(path):
            os.mknod(path, stat.S_IFREG | 0o600)
        os.chmod(path, 0o600)


@contextmanager
def _plainly() -> Iterator[None]:
    """Turn SQLite's errors (disk full, file damaged) into one that a user can read."""
    try:
        yield
    except sqlite3.Error as e:
        locked = getattr(e, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        raise SlackwaterError(
            f"The journal could not be read or written: {e}.",
            data="What was begun and could not be recorded is undone now or by the next `slackwater reconcile`.",
            hint=_LOCKED if locked else _NO_ROOM,
            code="journal",
        ) from e
