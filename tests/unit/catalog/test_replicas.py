# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from slackwater.catalog.catalog import Catalog
from slackwater.errors import NotFoundError, RefusedError, UsageError
from slackwater.model.component import Component
from slackwater.model.plan import Window
from slackwater.model.replica import BackupComponents, ComponentRecord, Replica, ReplicaKind, ReplicaState, Verification
from slackwater.model.session import SessionKind
from slackwater.model.storage import ShadowCopy, Volume
from tests.unit.catalog.samples import StandingClock, replica

DAY = timedelta(days=1)
VERIFIED = datetime(2026, 11, 22, 10, tzinfo=UTC)
PASSED = Verification("2026-11-22-9", VERIFIED, True, 700.5, 2000.0, {"postgresql:15/main": {"amcheck": "sound"}})
FAILED = replace(PASSED, passed=False, error="It is damaged.")

#: Any document at all: every text, number and flag a writer or provider could put into it.
numbers = st.floats(allow_nan=False, allow_infinity=False)
facts = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | numbers | st.text(), max_size=4)
components = st.builds(Component, facts=facts)
records = st.builds(ComponentRecord, component=components, expected=facts)
copies = st.builds(ShadowCopy, volume=st.builds(Volume, facts=facts), facts=facts)
documents = st.builds(
    BackupComponents,
    created=st.datetimes(timezones=st.just(UTC)),
    window=st.builds(Window, numbers, numbers),
    components=st.lists(records, max_size=3).map(tuple),
    copies=st.lists(copies, max_size=3).map(tuple),
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=50
)
@given(document=documents)
def test_any_document_comes_back_as_it_went_in(catalog: Catalog, document: BackupComponents) -> None:
    catalog.replicas.add(Replica(document))
    back = catalog.replicas.get(document.session)
    assert back == Replica(document)
    dump = TypeAdapter(BackupComponents).dump_json
    assert dump(back.document) == dump(document), "1 is not True, and 1.0 is not 1"


def test_adding_again_keeps_what_was_decided_since(catalog: Catalog) -> None:
    one = replica()
    catalog.replicas.add(one)
    catalog.replicas.pin(one.id)
    catalog.replicas.set_verified(one.id, PASSED)
    catalog.replicas.set_state(one.id, ReplicaState.MISSING)
    catalog.replicas.add(one)
    kept = replace(one, pinned=True, verified=VERIFIED, verification=PASSED, state=ReplicaState.MISSING)
    assert catalog.replicas.get(one.id) == kept
    again = replica(reason="told anew")
    catalog.replicas.add(again)
    assert catalog.replicas.list() == (replace(kept, document=again.document),)


def test_flags_are_set_and_taken_back(catalog: Catalog) -> None:
    one = replica()
    catalog.replicas.add(one)
    for _ in range(2):
        catalog.replicas.pin(one.id)
        assert catalog.replicas.get(one.id).pinned
    for _ in range(2):
        catalog.replicas.unpin(one.id)
        assert not catalog.replicas.get(one.id).pinned
    catalog.replicas.set_used(one.id, VERIFIED)
    assert catalog.replicas.get(one.id) == replace(one, used=VERIFIED)


def test_a_failed_verification_takes_a_replica_out_of_the_good_ones(catalog: Catalog) -> None:
    one = replica()
    catalog.replicas.add(one)
    catalog.replicas.set_verified(one.id, PASSED)
    assert catalog.replicas.get(one.id) == replace(one, verified=VERIFIED, verification=PASSED)
    catalog.replicas.set_verified(one.id, FAILED)
    assert catalog.replicas.get(one.id) == replace(one, verification=FAILED, state=ReplicaState.FAILED)
    assert catalog.replicas.latest() is None
    catalog.replicas.set_verified(one.id, PASSED)
    assert catalog.replicas.latest() == replace(one, verified=VERIFIED, verification=PASSED)
    catalog.replicas.set_state(one.id, ReplicaState.MISSING)
    catalog.replicas.set_verified(one.id, FAILED)
    assert catalog.replicas.get(one.id).state is ReplicaState.MISSING, "what is missing is not there to be verified"


def test_a_pin_and_a_deletion_exclude_each_other(catalog: Catalog) -> None:
    one = replica()
    catalog.replicas.add(one)
    catalog.replicas.pin(one.id)
    with pytest.raises(RefusedError) as caught:
        catalog.replicas.set_state(one.id, ReplicaState.DELETING)
    assert (caught.value.reason, caught.value.exit_status) == ("pinned", 5)
    assert catalog.replicas.get(one.id).state is ReplicaState.GOOD
    catalog.replicas.unpin(one.id)
    catalog.replicas.set_state(one.id, ReplicaState.DELETING)
    with pytest.raises(RefusedError, match="too late to pin"):
        catalog.replicas.pin(one.id)
    assert not catalog.replicas.get(one.id).pinned


def test_what_is_removed_is_gone_and_removing_again_is_fine(catalog: Catalog) -> None:
    catalog.replicas.add(replica())
    catalog.replicas.remove("2026-11-22-1")
    catalog.replicas.remove("2026-11-22-1")
    assert catalog.replicas.list() == ()


def test_unknown_replicas_are_not_found(catalog: Catalog) -> None:
    for ask in (
        lambda: catalog.replicas.get("x"),
        lambda: catalog.replicas.pin("x"),
        lambda: catalog.replicas.unpin("x"),
        lambda: catalog.replicas.set_state("x", ReplicaState.GOOD),
        lambda: catalog.replicas.set_state("x", ReplicaState.DELETING),
        lambda: catalog.replicas.set_verified("x", PASSED),
    ):
        with pytest.raises(NotFoundError, match="no replica 'x'"):
            ask()


def test_lists_show_what_is_asked_for(catalog: Catalog, clock: StandingClock) -> None:
    catalog.replicas.add(replica("2026-11-22-2"))
    catalog.replicas.add(replica("2026-11-22-3", specification="other"))
    catalog.replicas.add(replica("2026-11-21-1", age=DAY))
    catalog.replicas.add(replica("2026-11-12-1", age=10 * DAY, kind=ReplicaKind.UNDO))
    catalog.replicas.set_verified("2026-11-21-1", PASSED)
    catalog.replicas.set_state("2026-11-22-3", ReplicaState.MISSING)

    def ids(replicas: tuple[Replica, ...]) -> list[str]:
        return [each.id for each in replicas]

    listing = catalog.replicas.list
    assert ids(listing()) == ["2026-11-22-3", "2026-11-22-2", "2026-11-21-1", "2026-11-12-1"]
    assert ids(listing("orders")) == ["2026-11-22-2", "2026-11-21-1", "2026-11-12-1"]
    assert ids(listing(kind=ReplicaKind.UNDO)) == ["2026-11-12-1"]
    assert ids(listing(state=ReplicaState.MISSING)) == ["2026-11-22-3"]
    assert ids(listing(before=clock.time - 7 * DAY)) == ["2026-11-12-1"]
    assert ids(listing("orders", unverified=True)) == ["2026-11-22-2", "2026-11-12-1"]
    assert ids(listing(limit=1)) == ["2026-11-22-3"]


def test_latest_is_the_newest_good_backup(catalog: Catalog) -> None:
    assert catalog.replicas.latest("orders") is None
    catalog.replicas.add(replica("2026-11-20-1", age=2 * DAY))
    catalog.replicas.add(replica("2026-11-21-1", age=DAY))
    catalog.replicas.add(replica("2026-11-22-1", kind=ReplicaKind.UNDO))
    catalog.replicas.add(replica("2026-11-22-2", specification="other"))
    catalog.replicas.set_state("2026-11-21-1", ReplicaState.MISSING)
    assert catalog.replicas.find("latest", "orders").id == "2026-11-20-1"
    assert catalog.replicas.find("latest").id == "2026-11-22-2"
    assert catalog.replicas.find("2026-11-21").id == "2026-11-21-1"
    with pytest.raises(UsageError, match="any of 2 replicas"):
        catalog.replicas.find("2026-11-22")
    assert catalog.replicas.find("2026-11-22", "other").id == "2026-11-22-2"
    with pytest.raises(NotFoundError, match="no good replica yet"):
        catalog.replicas.find("latest", "nothing")


def test_what_was_made_while_the_clock_was_ahead_is_not_the_newest(catalog: Catalog) -> None:
    for number, age in enumerate((2 * DAY, -900 * DAY), start=1):
        catalog.replicas.add(replica(f"2026-11-22-{number}", age=age))
    shown = [each.id[-1] for each in catalog.replicas.list()]
    assert shown == ["2", "1"], "nothing was made since, so it is the newest, whatever the clock says"
    catalog.replicas.add(replica("2026-11-22-3", age=DAY))
    assert [each.id[-1] for each in catalog.replicas.list()] == ["3", "1", "2"]
    assert catalog.replicas.find("latest").id == "2026-11-22-3"


def test_the_newest_is_the_one_that_was_made_last_here(catalog: Catalog) -> None:
    """The clock was two days ahead for the second one, and right again for the third; that is long ago by now."""
    for age in (9 * DAY, 6 * DAY, 8 * DAY):
        session = catalog.sessions.begin(SessionKind.BACKUP, "orders", "4711:99:boot")
        catalog.replicas.add(replica(session.id, age=age))
    assert [each.id[-1] for each in catalog.replicas.list()] == ["3", "1", "2"]
    assert catalog.replicas.find("latest").id[-1] == "3"


def test_an_old_one_that_is_taken_in_is_not_the_newest(catalog: Catalog) -> None:
    session = catalog.sessions.begin(SessionKind.BACKUP, "orders", "4711:99:boot")
    catalog.replicas.add(replica(session.id, age=DAY))
    catalog.replicas.add(replica("2026-11-10-1", age=9 * DAY))
    assert [each.id for each in catalog.replicas.list()] == [session.id, "2026-11-10-1"]
