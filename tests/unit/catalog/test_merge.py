# SPDX-License-Identifier: Apache-2.0
"""Taking in what another catalog knew, and forgetting what is old."""

from dataclasses import replace
from datetime import timedelta

import pytest

from slackwater.catalog.catalog import Catalog
from slackwater.errors import NotFoundError
from slackwater.model.component import ComponentRef
from slackwater.model.replica import ReplicaState
from slackwater.model.session import Message, Outcome, Session, SessionKind
from tests.unit.catalog.samples import REF, StandingClock, replica

DAY = timedelta(days=1)
TOLD = (Message(StandingClock().time, "note", "Something was said."),)


def ended(
    catalog: Catalog, clock: StandingClock, *, age: timedelta, spec: str = "orders", **changes: object
) -> Session:
    """A session that began and ended that long ago."""
    now, clock.time = clock.time, clock.time - age
    begun = catalog.sessions.begin(SessionKind.BACKUP, spec, "")
    session = catalog.sessions.finish(replace(begun, messages=TOLD, **changes), Outcome.COMPLETED)  # type: ignore[arg-type]
    clock.time = now
    return session


def test_what_is_known_stays_and_what_is_not_comes(catalog: Catalog, clock: StandingClock) -> None:
    known = catalog.sessions.begin(SessionKind.BACKUP, "orders", "")
    mine = replica(known.id)
    catalog.replicas.add(mine)
    catalog.replicas.set_state(mine.id, ReplicaState.MISSING)
    foreign = replace(known, specification="other", outcome=Outcome.FAILED)
    other = replace(known, id="2026-11-22-7", ended=clock.time, outcome=Outcome.COMPLETED)
    theirs = replace(replica("2026-11-22-8"), pinned=True, verified=clock.time)
    for new in ((("2026-11-22-7",), ("2026-11-22-8",)), ((), ())):
        assert catalog.merge([foreign, other], [replica(known.id), theirs], {"2026-11-21": 4}) == new
        assert catalog.sessions.get(known.id) == known
        assert catalog.replicas.get(mine.id).state is ReplicaState.MISSING
        assert catalog.sessions.get(other.id) == other
        assert catalog.replicas.get(theirs.id) == theirs
    assert catalog.days() == {"2026-11-21": 4, "2026-11-22": 8}
    assert catalog.sessions.begin(SessionKind.BACKUP, "orders", "").id == "2026-11-22-9"


def test_all_of_it_or_nothing(catalog: Catalog) -> None:
    broken = replica("2026-11-22-2", reason="\udcff")
    with pytest.raises(Exception, match="cannot store"):
        catalog.merge([], [replica("2026-11-22-1"), broken])
    assert catalog.replicas.list() == ()
    assert catalog.days() == {}


def test_old_sessions_are_forgotten_and_their_ids_are_not(catalog: Catalog, clock: StandingClock) -> None:
    learnt = {"recovered": {str(REF): {"timeline": 5}}}
    old = ended(catalog, clock, age=400 * DAY)
    referred = ended(catalog, clock, age=399 * DAY)
    recovery = ended(catalog, clock, age=398 * DAY, document=learnt, phases=())
    last_of_its_own = ended(catalog, clock, age=397 * DAY, spec="seldom")
    young = ended(catalog, clock, age=DAY)
    running = catalog.sessions.begin(SessionKind.BACKUP, "orders", "")
    assert catalog.sessions.forget(clock.time - 365 * DAY, {referred.id}) == (old.id,)
    with pytest.raises(NotFoundError):
        catalog.sessions.get(old.id)
    for each in (referred, last_of_its_own, young, running):
        assert catalog.sessions.get(each.id) == each
    assert catalog.sessions.get(recovery.id).messages == ()
    assert catalog.sessions.forget(clock.time - 365 * DAY, {referred.id}) == ()
    assert ended(catalog, clock, age=400 * DAY).id != old.id


def test_what_a_forgotten_recovery_learnt_stays_known(catalog: Catalog, clock: StandingClock) -> None:
    """Its timeline would otherwise be used a second time."""
    catalog.merge(
        [
            Session(
                "2025-01-01-1", SessionKind.RECOVERY, "orders", Outcome.FAILED, clock.time - 600 * DAY,
                clock.time - 600 * DAY, messages=TOLD, document={"recovered": {str(REF): {"timeline": 5}}},
            )
        ],
        [],
    )  # fmt: skip
    ended(catalog, clock, age=DAY)
    assert catalog.sessions.forget(clock.time - 365 * DAY, set()) == ()
    assert catalog.sessions.get("2025-01-01-1").messages == ()
    assert catalog.sessions.recoveries(ComponentRef("postgresql", "15/main")) == ({"timeline": 5},)
