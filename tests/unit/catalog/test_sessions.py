# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from slackwater.catalog.catalog import Catalog
from slackwater.errors import NotFoundError, UsageError
from slackwater.model.component import ComponentRef
from slackwater.model.session import Message, Outcome, Phase, PhaseRecord, Session, SessionKind
from tests.unit.catalog.samples import REF, StandingClock, replica

BACKUP, RECOVERY = SessionKind.BACKUP, SessionKind.RECOVERY


def begin(catalog: Catalog, specification: str = "orders", kind: SessionKind = BACKUP, **more: Any) -> Session:
    return catalog.sessions.begin(kind, specification, "4711:99:boot", **more)


def test_ids_run_through_the_day_in_utc(catalog: Catalog, clock: StandingClock) -> None:
    assert [begin(catalog).id, begin(catalog).id] == ["2026-11-22-1", "2026-11-22-2"]
    clock.time += timedelta(days=1)
    assert begin(catalog).id == "2026-11-23-1"
    clock.time -= timedelta(days=1)
    assert begin(catalog).id == "2026-11-22-3"


def test_no_id_is_given_twice(catalog: Catalog) -> None:
    catalog.replicas.add(replica("2026-11-22-7"))
    assert begin(catalog).id == "2026-11-22-8"
    catalog.replicas.add(replica("2026-11-22-3"))
    catalog.replicas.add(replica("2026-11-22-9"))
    catalog.replicas.remove("2026-11-22-9")
    assert begin(catalog).id == "2026-11-22-10"


def test_ids_on_the_storage_are_left_to_their_owners(catalog: Catalog) -> None:
    seen = ["2026-11-22-4", "2026-11-22-11", "2026-11-20-99", "lost+found"]
    assert begin(catalog, taken=seen).id == "2026-11-22-12"
    assert begin(catalog).id == "2026-11-22-13"


def test_a_session_is_stored_as_it_stands(catalog: Catalog, clock: StandingClock) -> None:
    session = begin(catalog, waiting=True)
    assert session == Session(
        id="2026-11-22-1",
        kind=BACKUP,
        specification="orders",
        outcome=Outcome.WAITING,
        started=clock.time,
        process="4711:99:boot",
    )
    told = replace(
        session,
        outcome=Outcome.RUNNING,
        phases=(PhaseRecord(Phase.IDENTIFY, clock.time, 12.5),),
        messages=(Message(clock.time, "warning", "ümläut \n 'quoted'"),),
        document={"plan": {"hold": "atomic", "volumes": [1, 2.5, None, True]}},
    )
    catalog.sessions.update(told)
    catalog.sessions.update(told)
    assert catalog.sessions.get(session.id) == told


def test_values_of_the_model_may_stand_in_the_document(catalog: Catalog, clock: StandingClock) -> None:
    session = replace(begin(catalog), document={"ref": REF, "kind": BACKUP, "at": clock.time, "list": (1,)})
    catalog.sessions.update(session)
    assert catalog.sessions.get(session.id).document == {
        "ref": {"writer": "postgresql", "name": "15/main"},
        "kind": "backup",
        "at": "2026-11-22T09:30:00Z",
        "list": [1],
    }


def test_what_has_ended_stays_ended(catalog: Catalog, clock: StandingClock) -> None:
    session = begin(catalog)
    clock.time += timedelta(seconds=5)
    ended = catalog.sessions.finish(replace(session, document={"replica": session.id}), Outcome.COMPLETED)
    assert ended == replace(session, outcome=Outcome.COMPLETED, ended=clock.time, document={"replica": session.id})
    clock.time += timedelta(seconds=5)
    assert catalog.sessions.finish(session, Outcome.ABORTED) == ended
    catalog.sessions.update(replace(session, outcome=Outcome.RUNNING, document={"late": 1}))
    assert catalog.sessions.get(session.id) == replace(ended, document={"late": 1})


def test_running_is_not_an_end(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="not how a session ends"):
        catalog.sessions.finish(begin(catalog), Outcome.RUNNING)


def test_those_underway_are_listed_oldest_first(catalog: Catalog) -> None:
    first, second, third = begin(catalog), begin(catalog, waiting=True), begin(catalog)
    catalog.sessions.finish(third, Outcome.FAILED)
    assert [each.id for each in catalog.sessions.running()] == [first.id, second.id]


def test_the_list_is_newest_first_also_within_one_instant(catalog: Catalog, clock: StandingClock) -> None:
    for _ in range(11):
        begin(catalog)
    clock.time -= timedelta(days=1)
    begin(catalog, "other")
    listed = [each.id for each in catalog.sessions.list()]
    assert listed == [*(f"2026-11-22-{n}" for n in range(11, 0, -1)), "2026-11-21-1"]
    assert [each.id for each in catalog.sessions.list(limit=2)] == listed[:2]
    assert [each.id for each in catalog.sessions.list("other")] == ["2026-11-21-1"]


def test_sessions_are_found_by_what_is_typed(catalog: Catalog) -> None:
    with pytest.raises(NotFoundError):
        catalog.sessions.find("latest")
    begin(catalog)
    last = begin(catalog)
    assert catalog.sessions.find("latest") == last
    assert catalog.sessions.find("2026-11-22-2") == last
    with pytest.raises(UsageError, match="any of 2 sessions"):
        catalog.sessions.find("2026")


def test_unknown_sessions_are_not_found(catalog: Catalog) -> None:
    ghost = replace(begin(catalog), id="2026-11-22-99")
    for ask in (
        lambda: catalog.sessions.get(ghost.id),
        lambda: catalog.sessions.update(ghost),
        lambda: catalog.sessions.finish(ghost, Outcome.FAILED),
    ):
        with pytest.raises(NotFoundError, match="2026-11-22-99"):
            ask()


def test_what_recoveries_took_is_known_oldest_first(catalog: Catalog) -> None:
    other = ComponentRef("postgresql", "15/other")
    for facts, outcome in (
        ({str(REF): {"timeline": 2}}, Outcome.COMPLETED),
        ({str(REF): {"timeline": 3}, str(other): {"timeline": 7}}, Outcome.FAILED),
        ({}, Outcome.ABORTED),
    ):
        session = begin(catalog, kind=RECOVERY)
        catalog.sessions.finish(replace(session, document={"recovered": facts}), outcome)
    begin(catalog, kind=RECOVERY)
    catalog.sessions.update(replace(begin(catalog), document={"recovered": {str(REF): {"timeline": 99}}}))
    assert catalog.sessions.recoveries(REF) == ({"timeline": 2}, {"timeline": 3})
    assert catalog.sessions.recoveries(other) == ({"timeline": 7},)
    assert catalog.sessions.recoveries(ComponentRef("x", "y")) == ()


def test_no_id_is_given_twice_however_the_clock_is_set(catalog: Catalog, clock: StandingClock) -> None:
    """Forward, back, over midnight, to the beginning of time, and while a session runs."""
    given, begun = [], clock.time
    for days in (0, 1, -1, 400, 0, 400, -20000, 0, 1, -20000):
        clock.time = begun + timedelta(days=days)
        session = begin(catalog)
        clock.time -= timedelta(days=3)
        assert catalog.sessions.finish(session, Outcome.COMPLETED).id == session.id
        given.append(session.id)
    assert len(set(given)) == len(given)
    assert list(catalog.sessions.ran()) == given, "in the order in which they ran"
    assert list(catalog.sessions.ran()) != sorted(given)
