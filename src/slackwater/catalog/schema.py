# SPDX-License-Identifier: Apache-2.0
"""The tables, as this version writes them, and how values of the model lie in their columns.

What is queried is a column; the rest of a value is one JSON document. A change here needs a migration beside it: a test
compares the two.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Boolean, Column, Integer, MetaData, Table, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from slackwater.model.clone import CloneDocument, CloneKind, CloneState
from slackwater.model.hold import Consistency
from slackwater.model.replica import BackupComponents, ReplicaKind, ReplicaState, Verification
from slackwater.model.session import Message, Outcome, PhaseRecord, SessionKind

#: Every schema there was, oldest first; the last is this version's.
VERSIONS = ("0001", "0002")


class Moment(TypeDecorator[datetime]):
    """A time as RFC 3339 text in UTC, always of the same length, so that text order is time order."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """Write it; a time without a zone is a defect of ours."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """Read it."""
        return None if value is None else datetime.fromisoformat(value)


class Word(TypeDecorator[StrEnum]):
    """One word of an enumeration."""

    impl = Text
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: StrEnum | None, dialect: Dialect) -> str | None:
        """Write it."""
        return None if value is None else self.words(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        """Read it."""
        return None if value is None else self.words(value)


class Document(TypeDecorator[Any]):
    """A value of the model as JSON text."""

    impl = Text
    cache_ok = True

    def __init__(self, shape: Any) -> None:  # noqa: ANN401  # a type form: a class, or tuple[...] of one
        super().__init__()
        self.shape = shape
        self._adapter: TypeAdapter[Any] = TypeAdapter(shape)

    def process_bind_param(self, value: object, dialect: Dialect) -> str:
        """Write it."""
        return self._adapter.dump_json(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> object:
        """Read it."""
        return self._adapter.validate_json(value or "null")


metadata = MetaData()

#: The last number given out on each day; a number is never given twice, also when what bore it is gone.
days = Table(
    "days",
    metadata,
    Column("day", Text, primary_key=True),
    Column("last", Integer, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("kind", Word(SessionKind), nullable=False),
    Column("specification", Text, nullable=False),
    Column("outcome", Word(Outcome), nullable=False),
    Column("started", Moment, nullable=False),
    Column("ended", Moment),
    Column("process", Text, nullable=False),
    Column("phases", Document(tuple[PhaseRecord, ...]), nullable=False),
    Column("messages", Document(tuple[Message, ...]), nullable=False),
    Column("document", Document(dict[str, Any]), nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Word(ReplicaKind), nullable=False),
    Column("specification", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("consistency", Word(Consistency), nullable=False),
    Column("state", Word(ReplicaState), nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("verified", Moment),
    Column("read_only", Boolean, nullable=False),
    Column("presented", Boolean, nullable=False),
    Column("document", Document(BackupComponents), nullable=False),
    Column("verification", Document(Verification | None), nullable=False, server_default="null"),
    Column("used", Moment),
)

clones = Table(
    "clones",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Word(CloneKind), nullable=False),
    Column("replica", Text, nullable=False),
    Column("specification", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("expires", Moment),
    Column("state", Word(CloneState), nullable=False),
    Column("document", Document(CloneDocument), nullable=False),
)
