# SPDX-License-Identifier: Apache-2.0
"""Connections, transactions, and what their failures mean for the user."""

import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.exc import DBAPIError, StatementError

from slackwater import SQLITE_APPLICATION_ID
from slackwater.errors import BusyError, SlackwaterError

UNTOUCHED = "Replicas on the storage are untouched."
_BUSY_TIMEOUT_S = 10.0


class CatalogError(SlackwaterError):
    """The catalog cannot be read or written."""

    code = "catalog"


class Database:
    """One SQLite file, or an empty database in memory, and transactions on it.

    The file is never opened in any other way while this lives: closing any descriptor of it would drop the locks of
    this process (https://sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, path: str, *, in_memory: bool = False, read_only: bool = False) -> None:
        self.path = path
        self._engine = _engine("" if in_memory else path)
        # In WAL mode synchronous=NORMAL may lose the last commits at a power cut (https://sqlite.org/pragma.html).
        self._on_connect("PRAGMA foreign_keys=ON", "PRAGMA synchronous=FULL")
        if read_only:
            self._on_connect("PRAGMA query_only=ON")

    def seal(self) -> None:
        """Refuse every write from now on: for a database in memory, whose changes would be lost without a word."""
        with self.read() as connection:
            connection.exec_driver_sql("PRAGMA query_only=ON")

    def close(self) -> None:
        """Close all connections. Idempotent."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database.

        Raises:
            CatalogError: it cannot be read.
            BusyError: another process held it for too long.
        """
        with explained(self.path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is the only one to write, from its begin; on the disk when the context has ended.

        Raises:
            CatalogError: it cannot be read or written; nothing of the transaction stays.
            BusyError: another process held it for too long; nothing of the transaction stays.
        """
        with explained(self.path), self._engine.execution_options(immediate=True).begin() as connection:
            yield connection

    def copy_to(self, other: "Database") -> None:
        """Copy everything by SQLite's backup API, which respects its locks."""
        with explained(self.path), self._engine.connect() as source, other._engine.connect() as target:  # noqa: SLF001
            driver: Any = source.connection.driver_connection
            driver.backup(target.connection.driver_connection)

    def use_wal(self) -> None:
        """Let readers and one writer go on side by side; the file remembers it. Idempotent."""
        with explained(self.path), self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute(f"PRAGMA application_id={SQLITE_APPLICATION_ID}")
            driver.execute("PRAGMA journal_mode=WAL")

    def _on_connect(self, *statements: str) -> None:
        def run(connection: sqlite3.Connection, _: object) -> None:
            for statement in statements:
                connection.execute(statement)

        event.listen(self._engine, "connect", run)


def _engine(path: str) -> Engine:
    if path:
        engine = create_engine(URL.create("sqlite", database=path), connect_args={"timeout": _BUSY_TIMEOUT_S})
    else:
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions are begun by us, not guessed by the driver


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn failures of the database into errors that a user can understand.

    Raises:
        CatalogError, BusyError: instead of what SQLAlchemy and SQLite raise.
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error) as e:
        raise _failure(path, e.orig if isinstance(e, DBAPIError) else e) from e
    except (StatementError, UnicodeEncodeError) as e:
        why = e.orig if isinstance(e, StatementError) else e
        raise CatalogError(f"The catalog {path} cannot store a value: {why}.", data=UNTOUCHED) from e
    except ValueError as e:
        raise CatalogError(
            f"The catalog {path} holds a value that cannot be read: {e}.", data=UNTOUCHED, hint=rebuild_hint(path)
        ) from e


def rebuild_hint(path: str) -> str:
    """The command that moves a catalog away with its -wal and -shm files, and restores it from the storage."""
    aside = os.path.join(os.path.dirname(path), "damaged")
    move = f"mkdir -p {shlex.quote(aside)} && mv {shlex.quote(path)}* {shlex.quote(aside)}/"
    return f"Each replica describes itself on its storage: {move} && slackwater catalog rebuild"


def _failure(path: str, error: BaseException | None) -> SlackwaterError:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BusyError(
            f"Another process held the catalog {path} for longer than {_BUSY_TIMEOUT_S:g} s.",
            data=UNTOUCHED,
            hint="Try again; `slackwater session list` shows what runs.",
        )
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CatalogError(
            f"The catalog {path} is damaged or is not a catalog: {error}.",
            data=UNTOUCHED,
            hint=rebuild_hint(path),
        )
    if primary == sqlite3.SQLITE_FULL:
        sentence = f"The catalog {path} cannot grow: the disk is full."
        return CatalogError(sentence, data=UNTOUCHED, hint=f"Make room: df {path}")
    # A full disk too: SQLite calls it an I/O error where its shared memory could not grow (SQLITE_IOERR_SHMSIZE).
    return CatalogError(
        f"The catalog {path} cannot be read or written: {error}.",
        data=UNTOUCHED,
        hint=f"See whether the disk has room and works: df {path}; dmesg",
    )
