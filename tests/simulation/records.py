# SPDX-License-Identifier: Apache-2.0
"""Journal and catalog: the real ones in memory, with a point around every write.

The real catalog takes several milliseconds a session. So most worlds have its twin, which keeps the same values without
SQL; that both lead to the same story, seed by seed, is a test (`test_simulation.py`).
"""

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from slackwater.catalog import ids
from slackwater.catalog.catalog import Catalog
from slackwater.catalog.database import Database
from slackwater.catalog.schema import metadata
from slackwater.errors import NotFoundError, RefusedError
from slackwater.journal.effects import Effect, EffectKinds
from slackwater.journal.journal import IN_MEMORY, Decision, Journal
from slackwater.model.clone import Clone, CloneState
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Facts
from slackwater.model.replica import Replica, ReplicaKind, ReplicaState, Verification
from slackwater.model.session import Outcome, Session, SessionKind
from slackwater.system.clock import Clock
from tests.simulation.world import now


class SimJournal(Journal):
    """The real journal in memory: it outlives our processes, and nothing is committed by a dead one."""

    def __init__(self, kinds: EffectKinds) -> None:
        super().__init__(IN_MEMORY, kinds)

    def of_another(self) -> "SimJournal":
        """The same file, as another process opens it: its sessions are not ours."""
        opened = copy.copy(self)
        opened._tokens = {}
        return opened

    def begin(self, session: str, kind: str, process: str) -> None:
        with _committing("begin"):
            super().begin(session, kind, process)
            now().begun.add(session)

    def intend(self, session: str, effects: Iterable[Effect]) -> list[int]:
        with _committing("intend"):
            return super().intend(session, effects)

    def decide(self, session: str, decision: Decision, *, again: Collection[int] = ()) -> None:
        with _committing("decide"):
            super().decide(session, decision, again=again)

    def settle(self, session: str) -> None:
        with _committing("settle"):
            super().settle(session)

    def take(self, session: str) -> None:
        with _committing("take"):
            super().take(session)

    def _set(self, entry: int, sql: str, *values: str) -> None:
        with _committing("done" if values else "undone"):
            super()._set(entry, sql, *values)


@contextmanager
def _committing(name: str) -> Iterator[None]:
    now().point("journal:before")
    now().point(f"journal.{name}:before", "plain")
    yield
    now().point(f"journal.{name}:after")


class SimDatabase(Database):
    """The real catalog's database, in memory."""

    def __init__(self) -> None:
        super().__init__("", in_memory=True)
        self.live = False

    @contextmanager
    def write(self) -> Iterator[Connection]:
        if not self.live:
            with super().write() as connection:
                yield connection
            return
        now().point("catalog:before", "plain")
        with super().write() as connection:
            yield connection
        now().point("catalog:after")


def real_catalog(clock: Clock) -> Catalog:
    """The real catalog, empty, in memory."""
    database = SimDatabase()
    with database.write() as connection:
        metadata.create_all(connection)
    database.live = True
    return Catalog(database, clock)


@contextmanager
def _writing() -> Iterator[None]:
    now().point("catalog:before", "plain")
    yield
    now().point("catalog:after")


class TwinCatalog:
    """The catalog without SQL; see `catalog.catalog.Catalog`."""

    def __init__(self, clock: Clock) -> None:
        self._days: dict[str, int] = {}
        self.sessions = TwinSessions(clock, self._days)
        self.replicas = TwinReplicas(clock, self._days, self.sessions)
        self.clones = TwinClones()

    def merge(
        self, sessions: Iterable[Session], replicas: Iterable[Replica], days: Mapping[str, int] | None = None,
        clones: Iterable[Clone] = (),
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:  # fmt: skip
        with _writing():
            made_sessions: list[Session] = [each for each in sessions if each.id not in self.sessions.known]
            self.sessions.known |= {each.id: replace(each, process="") for each in made_sessions}
            made = [each for each in replicas if each.id not in self.replicas.known]
            self.replicas.known |= {each.id: each for each in made}
            for taken in (*(each.id for each in made_sessions), *(each.id for each in made)):
                _reserve(self._days, taken)
        return tuple(each.id for each in made_sessions), tuple(each.id for each in made)


def _reserve(days: dict[str, int], session: str) -> None:
    if found := ids.split(session):
        days[found[0]] = max(days.get(found[0], 0), found[1])


def _number(session: str) -> int:
    return (ids.split(session) or ("", 0))[1]


class TwinSessions:
    """`catalog.sessions.Sessions`."""

    def __init__(self, clock: Clock, days: dict[str, int]) -> None:
        self._clock, self._days = clock, days
        self.known: dict[str, Session] = {}

    def begin(
        self, kind: SessionKind, specification: str, process: str, *, waiting: bool = False, taken: Iterable[str] = ()
    ) -> Session:
        at = self._clock.now()
        with _writing():
            for each in taken:
                _reserve(self._days, each)
            day = ids.day_of(at)
            number = self._days.get(day, 0) + 1
            self._days[day] = number
            outcome = Outcome.WAITING if waiting else Outcome.RUNNING
            session = Session(f"{day}-{number}", kind, specification, outcome, started=at, process=process)
            self.known[session.id] = session
        return session

    def update(self, session: Session) -> None:
        with _writing():
            self._tell(session)

    def _tell(self, session: Session) -> None:
        known = self.known[session.id]
        self.known[session.id] = replace(
            known, process=session.process, phases=session.phases, messages=session.messages,
            document=dict(session.document),
        )  # fmt: skip

    def finish(self, session: Session, outcome: Outcome) -> Session:
        ended = self._clock.now()
        with _writing():
            if self.known[session.id].ended is None:
                self._tell(session)
                self.known[session.id] = replace(self.known[session.id], outcome=outcome, ended=ended)
        return self.known[session.id]

    def get(self, session: str) -> Session:
        if session not in self.known:
            raise NotFoundError(f"There is no session {session!r}.")
        return self.known[session]

    def list(self, specification: str | None = None, *, limit: int | None = None) -> tuple[Session, ...]:
        if limit == 1 and specification is None:  # only asked whether there is any
            return tuple(self.known.values())[:1]
        wanted = [each for each in self.known.values() if specification in (None, each.specification)]
        wanted.sort(key=lambda each: (each.started, _number(each.id)), reverse=True)
        return tuple(wanted[:limit])

    def running(self) -> tuple[Session, ...]:
        found = [each for each in self.known.values() if each.ended is None]
        return tuple(sorted(found, key=lambda each: (each.started, _number(each.id))))

    def forget(self, before: datetime, referred: Collection[str]) -> tuple[str, ...]:
        with _writing():
            newest: dict[str, datetime] = {}
            for each in self.known.values():
                newest[each.specification] = max(newest.get(each.specification, each.started), each.started)
            starts = set(newest.values())
            old = [e for e in self.known.values() if e.ended and e.ended < before and e.started not in starts]
            going = {each.id: "recovered" in each.document for each in old if each.id not in referred}
            for session, learnt in going.items():
                if learnt:
                    self.known[session] = replace(self.known[session], phases=(), messages=())
                else:
                    del self.known[session]
        return tuple(session for session, learnt in going.items() if not learnt)

    def ran(self) -> tuple[str, ...]:
        return tuple(each.id for each in self.known.values() if each.process)

    def recoveries(self, component: ComponentRef) -> tuple[Facts, ...]:
        found = [each for each in self.known.values() if each.kind is SessionKind.RECOVERY]
        found.sort(key=lambda each: (each.started, _number(each.id)))
        recovered = (each.document.get("recovered", {}) for each in found)
        return tuple(each[str(component)] for each in recovered if str(component) in each)


class TwinReplicas:
    """`catalog.replicas.Replicas`."""

    def __init__(self, clock: Clock, days: dict[str, int], sessions: TwinSessions) -> None:
        self._clock, self._days, self._sessions = clock, days, sessions
        self.known: dict[str, Replica] = {}
        """In the order in which they were stored."""

    def add(self, replica: Replica) -> None:
        with _writing():
            _reserve(self._days, replica.id)
            known = self.known.get(replica.id)
            self.known[replica.id] = replace(known, document=replica.document) if known else replica

    def get(self, replica: str) -> Replica:
        if replica not in self.known:
            raise NotFoundError(f"There is no replica {replica!r}.")
        return self.known[replica]

    def find(self, text: str, specification: str | None = None) -> Replica:
        return self.get(text)

    def list(
        self, specification: str | None = None, *, kind: ReplicaKind | None = None, state: ReplicaState | None = None
    ) -> tuple[Replica, ...]:
        found = [
            each
            for each in self.known.values()
            if specification in (None, each.document.specification)
            and kind in (None, each.document.kind)
            and state in (None, each.state)
        ]
        late = self._seem_newer()
        found.sort(key=lambda each: (each.id not in late, each.document.created, each.id), reverse=True)
        return tuple(found)

    def _seem_newer(self) -> set[str]:
        """Those that a wrong clock has dated: see `catalog.replicas._seems_newer`."""
        at, late = self._clock.now(), set()
        past: set[str] = set()
        """Specifications of which one that bears no moment to come was stored later."""
        earliest: dict[str, datetime] = {}
        """By specification, the earliest moment of those that were made here and stored later."""
        for each in reversed(self.known.values()):
            created, specification = each.document.created, each.document.specification
            if (created > at and specification in past) or earliest.get(specification, created) < created:
                late.add(each.id)
            if created <= at:
                past.add(specification)
            if each.id in self._sessions.known and self._sessions.known[each.id].process:
                earliest[specification] = min(earliest.get(specification, created), created)
        return late

    def set_state(self, replica: str, state: ReplicaState) -> None:
        with _writing():
            if state is ReplicaState.DELETING and self.get(replica).pinned:
                raise RefusedError(f"Replica {replica} is pinned.", code="pinned")
            self.known[replica] = replace(self.get(replica), state=state)

    def pin(self, replica: str) -> None:
        with _writing():
            if self.get(replica).state is ReplicaState.DELETING:
                raise RefusedError(f"Replica {replica} is being deleted.", code="being-deleted")
            self.known[replica] = replace(self.get(replica), pinned=True)

    def unpin(self, replica: str) -> None:
        with _writing():
            self.known[replica] = replace(self.get(replica), pinned=False)

    def set_verified(self, replica: str, verification: Verification) -> None:
        with _writing():
            known = self.get(replica)
            state = known.state
            if state in (ReplicaState.GOOD, ReplicaState.FAILED):
                state = ReplicaState.GOOD if verification.passed else ReplicaState.FAILED
            verified = verification.at if verification.passed else None
            self.known[replica] = replace(known, verification=verification, verified=verified, state=state)

    def set_used(self, replica: str, at: datetime) -> None:
        with _writing():
            self.known[replica] = replace(self.get(replica), used=at)

    def remove(self, replica: str) -> None:
        with _writing():
            self.known.pop(replica, None)


class TwinClones:
    """`catalog.clones.Clones`."""

    def __init__(self) -> None:
        self.known: dict[str, Clone] = {}

    def add(self, clone: Clone) -> None:
        with _writing():
            self.refuse_taken(clone.name)
            self.known[clone.id] = clone

    def refuse_taken(self, name: str) -> None:
        if any(each.name == name for each in self.known.values()):
            raise RefusedError(f"There is a clone {name!r} already.", code="name-taken")

    def find(self, name: str) -> Clone:
        found = next((each for each in self.known.values() if name in (each.name, each.id)), None)
        if found is None:
            raise NotFoundError(f"There is no clone {name!r}.")
        return found

    def list(self, *, due: datetime | None = None) -> tuple[Clone, ...]:
        found = [
            each
            for each in self.known.values()
            if due is None or (each.expires and each.expires <= due) or each.state is CloneState.DELETING
        ]
        return tuple(sorted(found, key=lambda each: (each.created, each.id), reverse=True))

    def set_deleting(self, clone: str) -> None:
        with _writing():
            if clone in self.known:
                self.known[clone] = replace(self.known[clone], state=CloneState.DELETING)

    def remove(self, clone: str) -> None:
        with _writing():
            self.known.pop(clone, None)
