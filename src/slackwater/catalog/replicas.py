# SPDX-License-Identifier: Apache-2.0
"""Replicas: what is kept, in which state, and which of them may not go."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, insert, literal_column, null, select, update

from slackwater.catalog import ids, schema
from slackwater.catalog.database import Database
from slackwater.catalog.sessions import Clock, reserve
from slackwater.errors import NotFoundError, RefusedError
from slackwater.model.replica import BackupComponents, Replica, ReplicaKind, ReplicaState, Verification

_TABLE = schema.replicas
_FLAGS = ("state", "pinned", "verified", "read_only", "presented", "verification", "used")
_COLUMNS = [_TABLE.c.document, *(_TABLE.c[name] for name in _FLAGS)]


class Replicas:
    """The replicas of a catalog."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, replica: Replica) -> None:
        """Store a replica. Idempotent.

        One that is known gets its document anew and keeps what was decided about it since: its state, its pin, its
        verification. Its id is never given out again.
        """
        document = _columns_of(replica.document)
        flags = {name: getattr(replica, name) for name in _FLAGS}
        with self._database.write() as connection:
            reserve(connection, replica.id)
            known = connection.execute(update(_TABLE).where(_TABLE.c.id == replica.id).values(**document))
            if not known.rowcount:
                connection.execute(insert(_TABLE).values(id=replica.id, **document, **flags))

    def get(self, replica: str) -> Replica:
        """The replica of that id.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.read() as connection:
            return _get(connection, replica)

    def find(self, text: str, specification: str | None = None) -> Replica:
        """The replica that is meant by an id, the beginning of one, or `latest`: the newest good backup.

        Only those of `specification` are looked through, where one is given.

        Raises:
            NotFoundError: none is meant.
            UsageError: several begin so.
        """
        latest = self.latest(specification) if text == ids.LATEST else None
        wanted = select(_TABLE.c.id)
        if specification is not None:
            wanted = wanted.where(_TABLE.c.specification == specification)
        with self._database.read() as connection:
            known = list(connection.execute(wanted).scalars())
            return _get(connection, ids.resolve(text, known, latest=latest.id if latest else None))

    def latest(self, specification: str | None = None) -> Replica | None:
        """The newest good backup; None when there is none."""
        good = self.list(specification, kind=ReplicaKind.BACKUP, state=ReplicaState.GOOD, limit=1)
        return good[0] if good else None

    def list(
        self,
        specification: str | None = None,
        *,
        kind: ReplicaKind | None = None,
        state: ReplicaState | None = None,
        before: datetime | None = None,
        unverified: bool = False,
        limit: int | None = None,
    ) -> tuple[Replica, ...]:
        """Replicas, newest first.

        One that bears a moment that is still to come was made while the clock was ahead. Where another one of its
        specification was made since, it comes last: it only looks newer. So does one after which a session here made
        another that bears an earlier moment: the clock was set in between.

        Args:
            specification: only its replicas.
            kind: only backups, or only what recoveries set aside.
            state: only those in this state.
            before: only those created before this moment.
            unverified: only those that were never verified.
            limit: no more than these.
        """
        newest_first = (_seems_newer(self._clock.now()), _TABLE.c.created.desc(), _TABLE.c.id.desc())
        wanted = select(*_COLUMNS).order_by(*newest_first).limit(limit)
        for column, value in ((_TABLE.c.specification, specification), (_TABLE.c.kind, kind), (_TABLE.c.state, state)):
            if value is not None:
                wanted = wanted.where(column == value)
        if before is not None:
            wanted = wanted.where(_TABLE.c.created < before)
        if unverified:
            wanted = wanted.where(_TABLE.c.verified.is_(null()))
        with self._database.read() as connection:
            return tuple(map(_replica, connection.execute(wanted)))

    def set_state(self, replica: str, state: ReplicaState) -> None:
        """Store what can be done with it. Idempotent.

        Raises:
            NotFoundError: there is no such replica.
            RefusedError: it is pinned and was to be deleted; asked and answered in one transaction, so that a pin
                that comes at the last moment holds.
        """
        with self._database.write() as connection:
            if state is ReplicaState.DELETING and _get(connection, replica).pinned:
                raise RefusedError(
                    f"Replica {replica} is pinned.",
                    data="Nothing was changed.",
                    hint=f"slackwater replica unpin {replica}",
                    code="pinned",
                )
            _set(connection, replica, state=state)

    def pin(self, replica: str) -> None:
        """Keep it from rotation and deletion. Idempotent.

        Raises:
            NotFoundError: there is no such replica.
            RefusedError: its deletion is under way.
        """
        with self._database.write() as connection:
            if _get(connection, replica).state is ReplicaState.DELETING:
                raise RefusedError(
                    f"Replica {replica} is being deleted; it is too late to pin it.",
                    data="Nothing was changed.",
                    hint="`slackwater replica list` shows what there is.",
                    code="being-deleted",
                )
            _set(connection, replica, pinned=True)

    def unpin(self, replica: str) -> None:
        """Let rotation and deletion have it again. Idempotent.

        Raises:
            NotFoundError: there is no such replica.
        """
        with self._database.write() as connection:
            _set(connection, replica, pinned=False)

    def set_verified(self, replica: str, verification: Verification) -> None:
        """Store how its verification ended: one that failed takes it out of the good ones, a passed one puts it back.

        Raises:
            NotFoundError: there is no such replica.
        """
        with self._database.write() as connection:
            state = _get(connection, replica).state
            if state in (ReplicaState.GOOD, ReplicaState.FAILED):
                state = ReplicaState.GOOD if verification.passed else ReplicaState.FAILED
            verified = verification.at if verification.passed else None
            _set(connection, replica, verification=verification, verified=verified, state=state)

    def set_used(self, replica: str, at: datetime) -> None:
        """Store that it was mounted read-write.

        Raises:
            NotFoundError: there is no such replica.
        """
        with self._database.write() as connection:
            _set(connection, replica, used=at)

    def remove(self, replica: str) -> None:
        """Forget a replica that is gone from the storage. Idempotent; its id stays taken."""
        with self._database.write() as connection:
            connection.execute(delete(_TABLE).where(_TABLE.c.id == replica))


def add_unknown(connection: Connection, replica: Replica) -> bool:
    """Store a replica with all that was decided about it, unless it is known; whether it was stored."""
    if connection.execute(select(_TABLE.c.id).where(_TABLE.c.id == replica.id)).first():
        return False
    reserve(connection, replica.id)
    flags = {name: getattr(replica, name) for name in _FLAGS}
    connection.execute(insert(_TABLE).values(id=replica.id, **_columns_of(replica.document), **flags))
    return True


def _columns_of(document: BackupComponents) -> dict[str, Any]:
    names = ("kind", "specification", "created", "consistency")
    return {"document": document, **{name: getattr(document, name) for name in names}}


def _seems_newer(now: datetime) -> ColumnElement[bool]:
    """Whether a replica is of a moment to come, and another of its specification was stored after it that is not.

    SQLite counts its rows up (https://sqlite.org/lang_createtable.html, ROWIDs), whatever the clock says.
    """
    other = _TABLE.alias("other")
    later = literal_column("other.rowid") > literal_column("replicas.rowid")
    same = other.c.specification == _TABLE.c.specification
    since = exists().where(same, other.c.created <= now, later)
    ran = select(schema.sessions.c.id).where(schema.sessions.c.process != "")
    set_back = exists().where(same, other.c.created < _TABLE.c.created, later, other.c.id.in_(ran))
    return ((_TABLE.c.created > now) & since) | set_back


def _get(connection: Connection, replica: str) -> Replica:
    row = connection.execute(select(*_COLUMNS).where(_TABLE.c.id == replica)).first()
    if row is None:
        raise _unknown(replica)
    return _replica(row)


def _set(connection: Connection, replica: str, **values: Any) -> None:  # noqa: ANN401  # columns of the table
    if not connection.execute(update(_TABLE).where(_TABLE.c.id == replica).values(**values)).rowcount:
        raise _unknown(replica)


def _replica(row: Row[Any]) -> Replica:
    return Replica(**row._mapping)  # noqa: SLF001  # public in SQLAlchemy, despite its name


def _unknown(replica: str) -> NotFoundError:
    return NotFoundError(
        f"There is no replica {replica!r}.",
        data="Nothing was changed.",
        hint="`slackwater replica list` shows those there are.",
    )
