# SPDX-License-Identifier: Apache-2.0
"""Opening the catalog: for writing, or only to look."""

import os
import stat
from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Self

from sqlalchemy import select

from slackwater.catalog import schema
from slackwater.catalog.clones import Clones
from slackwater.catalog.clones import add_unknown as add_clone
from slackwater.catalog.database import UNTOUCHED, CatalogError, Database
from slackwater.catalog.migrate import migrate, version_of
from slackwater.catalog.replicas import Replicas
from slackwater.catalog.replicas import add_unknown as add_replica
from slackwater.catalog.schema import VERSIONS, metadata
from slackwater.catalog.sessions import Clock, Sessions, reserve
from slackwater.catalog.sessions import add_unknown as add_session
from slackwater.errors import RightsError
from slackwater.model.clone import Clone
from slackwater.model.replica import Replica
from slackwater.model.session import Session

_NO_DAYS: Mapping[str, int] = MappingProxyType({})


class Catalog:
    """The sessions and replicas of a cell. Close it, or use it as a context. Any thread may use it, one at a time."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self.sessions = Sessions(database, clock)
        self.replicas = Replicas(database, clock)
        self.clones = Clones(database)

    @classmethod
    def open(cls, path: str, *, create: bool, clock: Clock) -> Self:
        """Open the catalog and bring its schema up to date.

        With `create` it is made where there is none (its folder has to be there), readable by its owner only, since
        documents hold copies of configuration files. Without, nothing is ever written: none is an empty one, one of an
        older version is read through a copy in memory, and a change is refused.

        Raises:
            UsageError: a newer version of slackwater wrote it; nothing was changed.
            RightsError: it may not be read or written by this user.
            CatalogError: it is damaged, or something else.
            BusyError: another process held it for too long.
        """
        size_bytes = _size_bytes(path)
        if create:
            if size_bytes is None:
                _make_file(path)
            return cls(_for_writing(path), clock)
        return cls(_for_looking(path) if size_bytes else _empty(path), clock)

    def days(self) -> dict[str, int]:
        """The last number that was given out on each day."""
        with self._database.read() as connection:
            return {row.day: row.last for row in connection.execute(select(schema.days))}

    def merge(
        self,
        sessions: Iterable[Session],
        replicas: Iterable[Replica],
        days: Mapping[str, int] = _NO_DAYS,
        clones: Iterable[Clone] = (),
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Take in what is not known yet, all of it or nothing; what is known stays as it is. Idempotent.

        Returns: the ids of the sessions and of the replicas that are new.
        """
        with self._database.write() as connection:
            for day, last in days.items():
                reserve(connection, f"{day}-{last}")
            for clone in clones:
                add_clone(connection, clone)
            new_sessions = tuple(each.id for each in sessions if add_session(connection, each))
            return new_sessions, tuple(each.id for each in replicas if add_replica(connection, each))

    def check(self) -> tuple[str, ...]:
        """What SQLite finds wrong with its own file; empty when all is well. Reads the whole file."""
        with self._database.read() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        return tuple(str(each) for each in found if each != "ok")

    def close(self) -> None:
        """Close it. Idempotent."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _for_writing(path: str) -> Database:
    database = Database(path)
    try:
        migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _for_looking(path: str) -> Database:
    database = Database(path, read_only=True)
    try:
        with database.read() as connection:
            version = version_of(connection, path)
        if version == VERSIONS[-1]:
            return database
        copy = _migrated_copy(database)
    except BaseException:
        database.close()
        raise
    database.close()
    return copy


def _empty(path: str) -> Database:
    database = Database(path, in_memory=True)
    with database.write() as connection:
        metadata.create_all(connection)
    database.seal()
    return database


def _migrated_copy(database: Database) -> Database:
    copy = Database(database.path, in_memory=True)
    database.copy_to(copy)
    migrate(copy)
    copy.seal()
    return copy


def _size_bytes(path: str) -> int | None:
    """Size of the catalog's file, None when there is none; looks, but never opens it.

    Raises:
        RightsError: we may not even look, or not read and write: that is not the same as none.
        CatalogError: something else is in its place.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    except PermissionError as e:
        raise _not_allowed(path) from e
    except OSError as e:
        raise CatalogError(f"The catalog {path} cannot be read: {e.strerror}.", data=UNTOUCHED) from e
    if not stat.S_ISREG(status.st_mode):
        raise CatalogError(f"{path} is not a file, so it is no catalog.", data="Nothing was changed.")
    if not os.access(path, os.R_OK | os.W_OK):
        raise _read_only(path) if os.statvfs(path).f_flag & os.ST_RDONLY else _not_allowed(path)
    return status.st_size


def _make_file(path: str) -> None:
    try:
        os.mknod(path, stat.S_IFREG | 0o600)  # SQLite would make it readable for all; a descriptor would drop its locks
    except FileExistsError:
        pass
    except PermissionError as e:
        raise _not_allowed(path) from e
    except OSError as e:
        raise CatalogError(f"The catalog {path} cannot be made: {e.strerror}.", data=UNTOUCHED) from e


def _read_only(path: str) -> CatalogError:
    return CatalogError(
        f"The catalog {path} lies on a filesystem that is read-only now.",
        data=UNTOUCHED,
        hint=f"See why (dmesg), then: mount -o remount,rw $(findmnt -no TARGET --target {path})",
    )


def _not_allowed(path: str) -> RightsError:
    return RightsError(
        f"The catalog {path} may not be read and written by user {os.geteuid()}.",
        data="Nothing was changed.",
        hint="Run this as root.",
    )
