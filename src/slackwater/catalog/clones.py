# SPDX-License-Identifier: Apache-2.0
"""Clones: what is kept of replicas to be looked at and tried on, and until when."""

from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from slackwater.catalog import schema
from slackwater.catalog.database import Database
from slackwater.errors import NotFoundError, RefusedError
from slackwater.model.clone import Clone, CloneState

_TABLE = schema.clones
_COLUMNS = [_TABLE.c[field.name] for field in fields(Clone)]


class Clones:
    """The clones of a catalog."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, clone: Clone) -> None:
        """Store a clone.

        Raises:
            RefusedError: there is one of that name.
        """
        values = {field.name: getattr(clone, field.name) for field in fields(Clone)}
        with self._database.write() as connection:
            if connection.execute(select(_TABLE.c.id).where(_TABLE.c.name == clone.name)).first():
                raise _taken(clone.name)
            connection.execute(insert(_TABLE).values(**values))

    def refuse_taken(self, name: str) -> None:
        """See to it that a name is free.

        Raises:
            RefusedError: there is a clone of that name.
        """
        if any(each.name == name for each in self.list()):
            raise _taken(name)

    def find(self, name: str) -> Clone:
        """The clone of that name or id.

        Raises:
            NotFoundError: there is none.
        """
        wanted = select(*_COLUMNS).where(or_(_TABLE.c.name == name, _TABLE.c.id == name))
        with self._database.read() as connection:
            row = connection.execute(wanted).first()
        if row is None:
            raise NotFoundError(
                f"There is no clone {name!r}.",
                data="Nothing was changed.",
                hint="`slackwater clone list` shows those there are.",
            )
        return _clone(row)

    def list(self, *, due: datetime | None = None) -> tuple[Clone, ...]:
        """Clones, newest first.

        Args:
            due: only those that are to be deleted at this moment: expired, or decided before.
        """
        wanted = select(*_COLUMNS).order_by(_TABLE.c.created.desc(), _TABLE.c.id.desc())
        if due is not None:
            wanted = wanted.where(or_(_TABLE.c.expires <= due, _TABLE.c.state == CloneState.DELETING))
        with self._database.read() as connection:
            return tuple(map(_clone, connection.execute(wanted)))

    def set_deleting(self, clone: str) -> None:
        """Decide its deletion. Idempotent."""
        with self._database.write() as connection:
            connection.execute(update(_TABLE).where(_TABLE.c.id == clone).values(state=CloneState.DELETING))

    def remove(self, clone: str) -> None:
        """Forget a clone that is gone from the storage. Idempotent."""
        with self._database.write() as connection:
            connection.execute(delete(_TABLE).where(_TABLE.c.id == clone))


def add_unknown(connection: Connection, clone: Clone) -> bool:
    """Store a clone of another catalog, unless its id or its name is known; whether it was stored."""
    taken = or_(_TABLE.c.id == clone.id, _TABLE.c.name == clone.name)
    if connection.execute(select(_TABLE.c.id).where(taken)).first():
        return False
    connection.execute(insert(_TABLE).values(**{field.name: getattr(clone, field.name) for field in fields(Clone)}))
    return True


def _clone(row: Row[Any]) -> Clone:
    return Clone(**row._mapping)  # noqa: SLF001  # public in SQLAlchemy, despite its name


def _taken(name: str) -> RefusedError:
    return RefusedError(
        f"There is a clone {name!r} already.",
        data="Nothing was changed.",
        hint=f"Choose another name, or: slackwater clone delete {name}",
        code="name-taken",
    )
