# SPDX-License-Identifier: Apache-2.0
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackwater.model.plan import Consistency, Hold, Window
from slackwater.model.replica import BackupComponents, Replica, ReplicaKind, ReplicaState
from slackwater.policy.retention import Decision, rotate

BEGIN = datetime(2026, 11, 22, tzinfo=UTC)


def replica(
    number: int,
    state: ReplicaState = ReplicaState.GOOD,
    *,
    pinned: bool = False,
    kind: ReplicaKind = ReplicaKind.BACKUP,
    consistency: Consistency = Consistency.APPLICATION,
    specification: str = "orders",
) -> Replica:
    document = BackupComponents(
        schema_version=1,
        owner="o",
        session=f"2026-11-22-{number}",
        kind=kind,
        specification=specification,
        created=BEGIN + timedelta(minutes=number),
        hold=Hold.ATOMIC,
        reason="",
        consistency=consistency,
        window=Window(),
        components=(),
        copies=(),
    )
    return Replica(document, state, pinned)


def kept(decisions: Iterable[Decision]) -> list[int]:
    return [int(each.replica.rsplit("-", 1)[1]) for each in decisions if each.keep]


def test_the_newest_stay() -> None:
    assert kept(rotate([replica(n) for n in range(1, 12)], 3)) == [11, 10, 9]


def test_fewer_than_are_kept_all_stay() -> None:
    assert kept(rotate([replica(1), replica(2)], 6)) == [2, 1]
    assert rotate([], 6) == ()


def test_every_decision_has_its_reason() -> None:
    given_replicas = [
        replica(8, ReplicaState.DELETING),
        replica(7, consistency=Consistency.CRASH),
        replica(6, ReplicaState.MISSING),
        replica(5, kind=ReplicaKind.UNDO),
        replica(4),
        replica(3),
        replica(2, pinned=True),
        replica(1),
    ]
    assert rotate(given_replicas, 1) == (
        Decision("2026-11-22-8", False, "its deletion was decided before and is not finished"),
        Decision("2026-11-22-7", True, "good replica 1 of the newest 1"),
        Decision("2026-11-22-6", True, "missing; it does not count, and rotation leaves it alone"),
        Decision("2026-11-22-5", True, "set aside by a recovery; rotation leaves it alone"),
        Decision("2026-11-22-4", True, "the newest that is application-consistent"),
        Decision("2026-11-22-3", False, "older than the newest 1"),
        Decision("2026-11-22-2", True, "pinned; it does not count"),
        Decision("2026-11-22-1", False, "older than the newest 1"),
    )


def test_pinned_ones_do_not_take_the_place_of_others() -> None:
    assert kept(rotate([replica(4, pinned=True), replica(3), replica(2, pinned=True), replica(1)], 1)) == [4, 3, 2]


def test_what_is_missing_does_not_push_a_good_one_out() -> None:
    replicas = [replica(3, ReplicaState.MISSING), replica(2, ReplicaState.MISSING), replica(1)]
    assert kept(rotate(replicas, 1)) == [3, 2, 1]


def test_keeping_none_and_mixing_specifications_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        rotate([replica(1)], 0)
    with pytest.raises(ValueError, match="one specification"):
        rotate([replica(1), replica(2, specification="other")], 1)


replicas_of_one = st.lists(
    st.builds(
        replica,
        st.integers(1, 60),
        st.sampled_from(ReplicaState),
        pinned=st.booleans(),
        kind=st.sampled_from(ReplicaKind),
        consistency=st.sampled_from(Consistency),
    ),
    max_size=25,
    unique_by=lambda each: each.id,
)


def good(replicas: Iterable[Replica]) -> list[Replica]:
    return [r for r in replicas if r.document.kind is ReplicaKind.BACKUP and r.state is ReplicaState.GOOD]


@given(replicas_of_one, st.integers(1, 8), st.randoms(use_true_random=False))
def test_what_always_holds(replicas: list[Replica], keep: int, chance: random.Random) -> None:
    decisions = rotate(replicas, keep)
    stay = {each.replica for each in decisions if each.keep}
    assert {each.replica for each in decisions} == {each.id for each in replicas}

    assert not good(replicas) or stay & {each.id for each in good(replicas)}, "the last good one"
    newest = max((each.id for each in good(replicas)), key=lambda i: int(i.rsplit("-", 1)[1]), default=None)
    assert newest is None or newest in stay, "the newest good one"
    consistent = {each.id for each in good(replicas) if each.document.consistency is Consistency.APPLICATION}
    assert not consistent or stay & consistent, "the last application-consistent one"
    for each in replicas:
        if each.document.kind is ReplicaKind.UNDO or (each.pinned and each in good(replicas)):
            assert each.id in stay
        if each.id not in stay:
            assert each.state is ReplicaState.DELETING or (each in good(replicas) and not each.pinned)

    shuffled = list(replicas)
    chance.shuffle(shuffled)
    assert rotate(shuffled, keep) == decisions, "the order they come in"
    left = [each for each in replicas if each.id in stay]
    assert {each.replica for each in rotate(left, keep) if not each.keep} == set(), "once is enough"


@given(replicas_of_one, st.integers(1, 8))
def test_pinning_never_costs_another_its_place(replicas: list[Replica], keep: int) -> None:
    stay = {each.replica for each in rotate(replicas, keep) if each.keep}
    for index, each in enumerate(replicas):
        pinned = [*replicas[:index], replace(each, pinned=True), *replicas[index + 1 :]]
        assert stay <= {d.replica for d in rotate(pinned, keep) if d.keep}
