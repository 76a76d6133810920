# SPDX-License-Identifier: Apache-2.0
"""Sessions: giving out ids, telling how they stand, and what they left to know."""

from collections.abc import Collection, Iterable
from dataclasses import fields
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, Row, case, delete, func, insert, null, select, text, update

from slackwater.catalog import ids, schema
from slackwater.catalog.database import Database
from slackwater.errors import NotFoundError
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Facts
from slackwater.model.session import Outcome, Session, SessionKind

_TABLE = schema.sessions
_COLUMNS = [_TABLE.c[field.name] for field in fields(Session)]
_UNDERWAY = (Outcome.WAITING, Outcome.RUNNING)


class Clock(Protocol):
    """The part of a clock that is asked."""

    def now(self) -> datetime:
        """Wall clock, UTC."""
        ...


class Sessions:
    """The sessions of a catalog."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def begin(
        self,
        kind: SessionKind,
        specification: str,
        process: str,
        *,
        waiting: bool = False,
        taken: Iterable[str] = (),
    ) -> Session:
        """Record that a session begins, and give it its id: the day in UTC and a running number.

        No id is given twice, whatever became of its session or replica. `taken` are ids seen on the storage, which a
        catalog that was lost does not know: a new replica under one of them would be taken for the old.
        """
        now = self._clock.now()
        with self._database.write() as connection:
            for each in taken:
                reserve(connection, each)
            day = ids.day_of(now)
            number = _last(connection, day) + 1
            session = Session(
                id=f"{day}-{number}",
                kind=kind,
                specification=specification,
                outcome=Outcome.WAITING if waiting else Outcome.RUNNING,
                started=now,
                process=process,
            )
            reserve(connection, session.id)
            connection.execute(insert(_TABLE).values(number=number, **_values(session)))
        return session

    def update(self, session: Session) -> None:
        """Store how a session stands: phases, messages, document, process. Idempotent.

        What has ended stays ended, as it ended: the outcome moves only between waiting and running here.

        Raises:
            NotFoundError: no such session was begun.
        """
        outcome = session.outcome if session.outcome in _UNDERWAY else Outcome.RUNNING
        values = {
            **_story(session),
            "outcome": case((_TABLE.c.ended.is_(null()), outcome.value), else_=_TABLE.c.outcome),
        }
        with self._database.write() as connection:
            found = connection.execute(update(_TABLE).where(_TABLE.c.id == session.id).values(**values))
            if not found.rowcount:
                raise _unknown(session.id)

    def finish(self, session: Session, outcome: Outcome) -> Session:
        """Store how a session ended, now, with all it told; return it as it is stored. Idempotent.

        A session that had ended already stays as it was: the first to end it, be it itself or whoever found its process
        dead, has the last word.

        Raises:
            NotFoundError: no such session was begun.
            ValueError: waiting and running are no ends.
        """
        if outcome in _UNDERWAY:
            raise ValueError(f"{outcome} is not how a session ends")
        values = {**_story(session), "outcome": outcome, "ended": self._clock.now()}
        with self._database.write() as connection:
            still = (_TABLE.c.id == session.id) & _TABLE.c.ended.is_(null())
            connection.execute(update(_TABLE).where(still).values(**values))
            return _get(connection, session.id)

    def get(self, session: str) -> Session:
        """The session of that id.

        Raises:
            NotFoundError: there is none.
        """
        with self._database.read() as connection:
            return _get(connection, session)

    def find(self, text: str) -> Session:
        """The session that is meant by an id, the beginning of one, or `latest`.

        Raises:
            NotFoundError: none is meant.
            UsageError: several begin so.
        """
        with self._database.read() as connection:
            newest_first = _newest_first(select(_TABLE.c.id))
            known = list(connection.execute(newest_first).scalars())
            latest = known[0] if known else None
            return _get(connection, ids.resolve(text, known, noun="session", latest=latest))

    def list(self, specification: str | None = None, *, limit: int | None = None) -> tuple[Session, ...]:
        """Sessions, newest first."""
        wanted = _newest_first(select(*_COLUMNS)).limit(limit)
        if specification is not None:
            wanted = wanted.where(_TABLE.c.specification == specification)
        with self._database.read() as connection:
            return tuple(map(_session, connection.execute(wanted)))

    def running(self) -> tuple[Session, ...]:
        """Sessions that have not ended, waiting ones too, oldest first; whether their processes live is not known."""
        wanted = select(*_COLUMNS).where(_TABLE.c.ended.is_(null())).order_by(_TABLE.c.started, _TABLE.c.number)
        with self._database.read() as connection:
            return tuple(map(_session, connection.execute(wanted)))

    def forget(self, before: datetime, referred: Collection[str]) -> tuple[str, ...]:
        """Forget sessions that ended before a moment, with all they told; returns their ids, which stay taken.

        Those in `referred` stay, and the newest of each specification. Of a recovery that learnt something only the
        story goes: what it took (a timeline) is never given out again.
        """
        newest = select(func.max(_TABLE.c.started)).group_by(_TABLE.c.specification)
        old = (_TABLE.c.ended < before) & _TABLE.c.started.not_in(newest)
        with self._database.write() as connection:
            found = connection.execute(select(_TABLE.c.id, _TABLE.c.document).where(old)).all()
            going = {row.id: "recovered" in row.document for row in found if row.id not in referred}
            for session, learnt in going.items():
                this = _TABLE.c.id == session
                thinned = update(_TABLE).where(this).values(phases=(), messages=())
                connection.execute(thinned if learnt else delete(_TABLE).where(this))
        return tuple(session for session, learnt in going.items() if not learnt)

    def ran(self) -> tuple[str, ...]:
        """Ids of the sessions that ran here, in the order in which they began, whatever the clock said then.

        Those that another catalog or a document told of are not among them. SQLite counts its rows up.
        """
        wanted = select(_TABLE.c.id).where(_TABLE.c.process != "").order_by(text("rowid"))
        with self._database.read() as connection:
            return tuple(connection.execute(wanted).scalars())

    def recoveries(self, component: ComponentRef) -> tuple[Facts, ...]:
        """What earlier recoveries of a component learnt, oldest first: their `document["recovered"][component]`.

        Failed and undone ones too, since what they took (a timeline) stays taken.
        """
        wanted = (
            select(_TABLE.c.document)
            .where(_TABLE.c.kind == SessionKind.RECOVERY)
            .order_by(_TABLE.c.started, _TABLE.c.number)
        )
        with self._database.read() as connection:
            documents = list(connection.execute(wanted).scalars())
        recovered = (document.get("recovered", {}) for document in documents)
        return tuple(each[str(component)] for each in recovered if str(component) in each)


def add_unknown(connection: Connection, session: Session) -> bool:
    """Store a session of another catalog under its own id, unless that is known; whether it was stored.

    It has no process then: when it ran, compared with those that ran here, is not known.
    """
    if connection.execute(select(_TABLE.c.id).where(_TABLE.c.id == session.id)).first():
        return False
    reserve(connection, session.id)
    number = (ids.split(session.id) or ("", 0))[1]
    connection.execute(insert(_TABLE).values(number=number, **{**_values(session), "process": ""}))
    return True


def reserve(connection: Connection, session: str) -> None:
    """See to it that an id is not given out again. What is no id of ours needs no care."""
    if (found := ids.split(session)) is None:
        return
    day, number = found
    last = _last(connection, day)
    if last == 0:
        connection.execute(insert(schema.days).values(day=day, last=number))
    elif last < number:
        connection.execute(update(schema.days).where(schema.days.c.day == day).values(last=number))


def _last(connection: Connection, day: str) -> int:
    return connection.execute(select(schema.days.c.last).where(schema.days.c.day == day)).scalar() or 0


def _get(connection: Connection, session: str) -> Session:
    row = connection.execute(select(*_COLUMNS).where(_TABLE.c.id == session)).first()
    if row is None:
        raise _unknown(session)
    return _session(row)


def _newest_first(wanted: Any) -> Any:  # noqa: ANN401  # any select on the table
    return wanted.order_by(_TABLE.c.started.desc(), _TABLE.c.number.desc())


def _session(row: Row[Any]) -> Session:
    return Session(**row._mapping)  # noqa: SLF001  # public in SQLAlchemy, despite its name


def _values(session: Session) -> dict[str, Any]:
    return {field.name: getattr(session, field.name) for field in fields(Session)}


def _story(session: Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in ("process", "phases", "messages", "document")}


def _unknown(session: str) -> NotFoundError:
    return NotFoundError(
        f"There is no session {session!r}.",
        data="Nothing was changed.",
        hint="`slackwater session list` shows those there are.",
    )
