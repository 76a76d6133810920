# SPDX-License-Identifier: Apache-2.0
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Window
from slackwater.model.replica import BackupComponents, Replica, ReplicaKind, ReplicaState
from slackwater.model.retention import Keep
from slackwater.policy import retention
from slackwater.policy.retention import Decision, expired, rotate

BEGIN = datetime(2026, 11, 22, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
DAYS = timedelta(days=1)


def replica(
    number: int,
    state: ReplicaState = ReplicaState.GOOD,
    *,
    pinned: bool = False,
    verified: bool = False,
    kind: ReplicaKind = ReplicaKind.BACKUP,
    consistency: Consistency = Consistency.APPLICATION,
    specification: str = "orders",
    created: datetime | None = None,
    taken_back: bool = False,
) -> Replica:
    document = BackupComponents(
        schema_version=1,
        owner="o",
        session=f"2026-11-22-{number}",
        kind=kind,
        specification=specification,
        created=created or BEGIN + timedelta(minutes=number),
        hold=Hold.ATOMIC,
        reason="",
        consistency=consistency,
        window=Window(),
        components=(),
        copies=(),
        replica="2026-11-21-1" if kind is ReplicaKind.UNDO and not taken_back else "",
    )
    return Replica(document, state, pinned, BEGIN if verified else None)


def kept(decisions: Iterable[Decision]) -> list[int]:
    return [int(each.replica.rsplit("-", 1)[1]) for each in decisions if each.keep]


def test_the_newest_stay() -> None:
    assert kept(rotate([replica(n) for n in range(1, 12)], Keep(last=3))) == [11, 10, 9]


def test_fewer_than_are_kept_all_stay() -> None:
    assert kept(rotate([replica(1), replica(2)], Keep(last=6))) == [2, 1]
    assert rotate([], Keep(last=6)) == ()


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
    assert rotate(given_replicas, Keep(last=1)) == (
        Decision("2026-11-22-8", False, "its deletion was decided before and is not finished"),
        Decision("2026-11-22-7", True, "good replica 1 of the newest 1"),
        Decision("2026-11-22-6", True, "missing; it does not count, and rotation leaves it alone"),
        Decision("2026-11-22-5", True, "set aside by a recovery; rotation leaves it alone"),
        Decision("2026-11-22-4", True, "the newest that is application-consistent"),
        Decision("2026-11-22-3", False, "older than the newest 1"),
        Decision("2026-11-22-2", True, "pinned; it does not count"),
        Decision("2026-11-22-1", False, "older than the newest 1"),
    )


def test_rules_stand_side_by_side_each_with_its_reason() -> None:
    """The 28th of December 2026 is a Monday; the year ends on a Thursday, in the middle of week 53."""
    moments = ["12-20 02", "12-27 02", "12-28 02", "12-30 02", "12-31 02", "12-31 23", "01-01 02", "01-01 03"]
    replicas = [
        replica(number, created=datetime.strptime(f"{2027 if text < '02' else 2026}-{text} +0100", "%Y-%m-%d %H %z"))
        for number, text in enumerate(moments, start=1)
    ]
    newest = (
        "good replica 1 of the newest 1, last of its day (1 of 3), last of its week (1 of 2),"
        " last of its month (1 of 2), last of its year (1 of 1)"
    )
    decisions = rotate(replicas, Keep(last=1, daily=3, weekly=2, monthly=2, yearly=1), zone=BERLIN)
    assert [(each.replica[11:], each.keep, each.reason) for each in decisions] == [
        ("8", True, newest),
        ("7", False, "not among 1 last, 3 daily, 2 weekly, 2 monthly, 1 yearly"),
        ("6", True, "last of its day (2 of 3), last of its month (2 of 2)"),
        ("5", False, "not among 1 last, 3 daily, 2 weekly, 2 monthly, 1 yearly"),
        ("4", True, "last of its day (3 of 3)"),
        ("3", False, "not among 1 last, 3 daily, 2 weekly, 2 monthly, 1 yearly"),
        ("2", True, "last of its week (2 of 2)"),
        ("1", False, "not among 1 last, 3 daily, 2 weekly, 2 monthly, 1 yearly"),
    ]  # fmt: skip


def test_days_are_those_of_the_zone() -> None:
    """Two backups of one day in Berlin, of two in UTC."""
    moments = (datetime(2026, 7, 1, 22, 30, tzinfo=UTC), datetime(2026, 7, 2, 1, tzinfo=UTC))
    pair = [replica(number, created=at) for number, at in enumerate(moments, start=1)]
    assert kept(rotate(pair, Keep(daily=5), zone=BERLIN)) == [2]
    assert kept(rotate(pair, Keep(daily=5), zone=UTC)) == [2, 1]


def test_pinned_ones_do_not_take_the_place_of_others() -> None:
    replicas = [replica(4, pinned=True), replica(3), replica(2, pinned=True), replica(1)]
    assert kept(rotate(replicas, Keep(last=1))) == [4, 3, 2]
    assert kept(rotate(replicas, Keep(hourly=1), min_redundancy=2)) == [4, 3, 2, 1]


def test_what_is_missing_does_not_push_a_good_one_out() -> None:
    replicas = [replica(3, ReplicaState.MISSING), replica(2, ReplicaState.MISSING), replica(1)]
    assert kept(rotate(replicas, Keep(last=1))) == [3, 2, 1]


def test_never_fewer_than_the_least() -> None:
    decisions = rotate([replica(n) for n in range(1, 6)], Keep(daily=7), min_redundancy=3)
    assert kept(decisions) == [5, 4, 3]
    assert [each.reason for each in decisions[1:4]] == [
        *["so that 3 good ones stay (min_redundancy)"] * 2,
        "not among 7 daily",
    ]


def test_where_replicas_are_verified_only_those_that_are_count() -> None:
    replicas = [replica(n, verified=n in (1, 3)) for n in range(1, 8)]
    decisions = rotate(replicas, Keep(last=2), verifies=True)
    assert kept(decisions) == [7, 6, 3, 1]
    assert decisions[0].reason == "not verified, so it does not count; good replica 1 of the newest 2"
    assert decisions[2] == Decision("2026-11-22-5", False, "older than the newest 2")
    assert kept(rotate(replicas, Keep(last=2))) == [7, 6], "the twin, where nothing is ever verified"


def test_what_is_not_proven_does_not_go_while_too_little_is() -> None:
    replicas = [replica(n, verified=n == 3) for n in range(1, 5)]
    decisions = rotate(replicas, Keep(last=1), min_redundancy=2, verifies=True)
    assert kept(decisions) == [4, 3, 2, 1]
    assert decisions[3].reason == "not verified, so it does not count; fewer than 2 are verified"


def test_keeping_none_and_mixing_specifications_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or more"):
        Keep()
    with pytest.raises(ValueError, match="1 or more"):
        Keep(last=-1, daily=2)
    with pytest.raises(ValueError, match="one specification"):
        rotate([replica(1), replica(2, specification="other")], Keep(last=1))


# -- a year of the calendar --------------------------------------------------------------------------------------------

YEAR = Keep(hourly=25, daily=14, weekly=8, monthly=12, yearly=2)


def gap_in_a_simulated_year() -> str:
    """Backups over a change of the year and three changes of the clock; what is first not as it should be.

    Every hour around the changes of the clock, every sixth at other times. Rotation comes after every backup and sees
    only what the earlier ones left, as in life.
    """
    at, end = datetime(2025, 10, 24, tzinfo=UTC), datetime(2026, 10, 27, tzinfo=UTC)
    made: list[datetime] = []
    left: list[Replica] = []
    while at < end:
        made.append(at)
        left.append(replica(len(made), created=at))
        stay = {each.replica for each in rotate(left, YEAR, zone=BERLIN) if each.keep}
        left = [each for each in left if each.id in stay]
        if [each.document.created for each in left][-25:] != made[-25:]:
            return f"the last 25 at {at.astimezone(BERLIN)}"
        if len(left) > 25 + 14 + 8 + 12 + 2:
            return f"too many at {at.astimezone(BERLIN)}"
        at += HOUR if at.month in (3, 10) and at.day > 22 else HOUR * 6
    days = [each.document.created.astimezone(BERLIN).strftime("%Y-%m-%d") for each in left[:-25]]
    return "" if days == LEFT else str(days)


LEFT = [
    "2025-11-30", "2025-12-31", "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31", "2026-06-30",
    "2026-07-31", "2026-08-31", "2026-09-13", "2026-09-20", "2026-09-27", "2026-09-30", "2026-10-04", "2026-10-11",
    *(f"2026-10-{day}" for day in range(14, 26)),
]  # fmt: skip
"""Twelve months, eight weeks and fourteen days, the present ones among the last 25 hours."""


def test_a_year_leaves_what_the_rules_say_and_both_changes_of_the_clock_cost_no_hour() -> None:
    assert gap_in_a_simulated_year() == ""


def test_the_twin_that_takes_the_hour_that_comes_twice_for_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    periods: Mapping[str, Any] = {**retention._PERIODS, "hourly": ("hour", lambda at: (at.date(), at.hour))}
    monkeypatch.setattr(retention, "_PERIODS", periods)
    assert gap_in_a_simulated_year().startswith("the last 25 at 2025-10-26 02")


# -- what always holds -------------------------------------------------------------------------------------------------

replicas_of_one = st.lists(
    st.builds(
        replica,
        st.integers(1, 60),
        st.sampled_from(ReplicaState),
        pinned=st.booleans(),
        verified=st.booleans(),
        kind=st.sampled_from(ReplicaKind),
        consistency=st.sampled_from(Consistency),
        created=st.integers(0, 4000).map(lambda hours: datetime(2026, 3, 1, tzinfo=UTC) + HOUR * hours),
    ),
    max_size=25,
    unique_by=(lambda each: each.id, lambda each: each.document.created),
)
counts = st.integers(0, 4)
rules = (
    st.tuples(counts, counts, counts, counts, counts, counts).filter(any).map(lambda given_counts: Keep(*given_counts))
)


def whole(replicas: Iterable[Replica]) -> list[Replica]:
    return [r for r in replicas if r.document.kind is ReplicaKind.BACKUP and r.state is ReplicaState.GOOD]


@given(replicas_of_one, rules, st.integers(1, 4), st.booleans(), st.randoms(use_true_random=False))
def test_what_always_holds(
    replicas: list[Replica], keep: Keep, least: int, verifies: bool, chance: random.Random
) -> None:
    def decided(some: Iterable[Replica]) -> tuple[Decision, ...]:
        return rotate(some, keep, min_redundancy=least, verifies=verifies, zone=BERLIN)

    decisions = decided(replicas)
    stay = {each.replica for each in decisions if each.keep}
    assert {each.replica for each in decisions} == {each.id for each in replicas}
    assert all(each.reason for each in decisions)

    good = [each for each in whole(replicas) if each.verified or not verifies]
    newest = max(good, key=lambda each: each.document.created, default=None)
    assert newest is None or newest.id in stay, "the newest good one"
    counted = [each.id for each in good if not each.pinned]
    assert len(stay & set(counted)) >= min(least, len(counted)), "the least"
    assert not whole(replicas) or stay & {each.id for each in whole(replicas)}, "the last one of all"
    consistent = {each.id for each in good if each.document.consistency is Consistency.APPLICATION}
    assert not consistent or stay & consistent, "the last application-consistent one"
    for each in replicas:
        aside = each.document.kind is ReplicaKind.UNDO and each.state is not ReplicaState.DELETING
        if aside or (each.pinned and each in whole(replicas)):
            assert each.id in stay
        if each.id not in stay:
            assert each.state is ReplicaState.DELETING or (each in whole(replicas) and not each.pinned)

    shuffled = list(replicas)
    chance.shuffle(shuffled)
    assert decided(shuffled) == decisions, "the order they come in"
    left = [each for each in replicas if each.id in stay]
    assert {each.replica for each in decided(left) if not each.keep} == set(), "once is enough"


@given(replicas_of_one, rules, st.integers(1, 4), st.booleans())
def test_pinning_never_costs_another_its_place(replicas: list[Replica], keep: Keep, least: int, verifies: bool) -> None:
    def stays(some: Iterable[Replica]) -> set[str]:
        decisions = rotate(some, keep, min_redundancy=least, verifies=verifies, zone=BERLIN)
        return {each.replica for each in decisions if each.keep}

    for index, each in enumerate(replicas):
        pinned = [*replicas[:index], replace(each, pinned=True), *replicas[index + 1 :]]
        assert stays(replicas) <= stays(pinned)


def test_what_was_made_while_the_clock_was_ahead_costs_nobody_a_place() -> None:
    replicas = [replica(1), replica(2), replica(3, created=BEGIN + 1000 * DAYS), replica(4)]
    decisions = rotate(replicas, Keep(last=2), now=BEGIN + HOUR)
    assert kept(decisions) == [3, 4, 2]
    assert decisions[0].reason == "made while the clock was ahead; it does not count"
    assert kept(rotate(replicas, Keep(last=2))) == [3, 4], "the twin, which believes the clock"


def clocked(*hours: int) -> tuple[list[Replica], list[str]]:
    """Replicas 1, 2, … in the order in which they were made, each with what the clock said, and that order."""
    made = [replica(number, created=BEGIN + hour * HOUR) for number, hour in enumerate(hours, start=1)]
    return made, [each.id for each in made]


@pytest.mark.parametrize(
    ("hours", "stays", "uncounted"),
    [
        ((1, 2, 3, 4), [4, 3], set()),
        ((1, 9, 3, 4), [2, 4, 3], {2}),  # ahead for one
        ((1, 2, -9000, 3, 4), [5, 4, 3], {3}),  # back for one
        ((1, 2, 9, 3), [3, 4, 2], {3}),  # of two that contradict each other the older is not believed
        ((9, 1), [1, 2], {1}),
        ((1, 8, 9, 2, 3, 4), [3, 2, 6, 5], {2, 3}),
    ],
    ids=str,
)
def test_where_clocks_contradict_nothing_goes_by_them(
    hours: tuple[int, ...], stays: list[int], uncounted: set[int]
) -> None:
    made, ran = clocked(*hours)
    decisions = rotate(made, Keep(last=2), ran=ran)
    assert kept(decisions) == stays
    assert {int(each.replica[-1]) for each in decisions if "contradicts" in each.reason} == uncounted


def test_by_the_clock_alone_a_newer_one_would_go() -> None:
    """The twin: 2 was made while the clock was ahead, and seems newer than 3."""
    made, ran = clocked(1, 9, 3, 4)
    assert kept(rotate(made, Keep(last=2))) == [2, 4]
    assert 3 in kept(rotate(made, Keep(last=2), ran=ran))


@given(hours=st.lists(st.integers(-50, 50), min_size=1, max_size=12), last=st.integers(1, 4))
def test_whatever_the_clocks_said_the_one_made_last_stays_or_counts_as_contrary(hours: list[int], last: int) -> None:
    made, ran = clocked(*hours)
    decisions = {each.replica: each for each in rotate(made, Keep(last=last), ran=ran)}
    gone = [each for each in made if not decisions[each.id].keep]
    counted = [each for each in made if "contradicts" not in decisions[each.id].reason]
    assert [each.document.created for each in counted] == sorted(each.document.created for each in counted)
    stayed = [each for each in counted if decisions[each.id].keep]
    assert len(stayed) == min(last, len(counted))
    assert all(ran.index(old.id) < ran.index(new.id) for old in gone for new in stayed), "the older ones go"


def test_what_a_recovery_set_aside_goes_by_its_age_alone() -> None:
    undo = replica(1, kind=ReplicaKind.UNDO)
    pinned = replica(2, kind=ReplicaKind.UNDO, pinned=True)
    missing = replica(3, ReplicaState.MISSING, kind=ReplicaKind.UNDO)
    going = replica(4, ReplicaState.DELETING, kind=ReplicaKind.UNDO)
    backup = replica(5)

    def left(age: timedelta, **more: Any) -> list[int]:
        week_s = 7 * DAYS.total_seconds()
        now = undo.document.created + age
        return kept(rotate([undo, pinned, missing, going, backup], Keep(last=1), now=now, undo_keep_s=week_s, **more))

    assert left(7 * DAYS) == [5, 3, 2, 1]
    assert left(7 * DAYS + HOUR) == [5, 3, 2]
    assert left(-DAYS) == [5, 3, 2, 1]  # made while the clock was ahead
    assert left(365 * DAYS, young=[undo.id]) == [5, 3, 2, 1]  # the clock is ahead now
    assert kept(rotate([undo], Keep(last=1))) == [1]


def test_what_was_kept_of_a_recovery_that_was_taken_back_goes_by_no_age() -> None:
    """What its application acknowledged there is nowhere else."""
    only = replica(1, kind=ReplicaKind.UNDO, taken_back=True)
    (decision,) = rotate([only], Keep(last=1), now=BEGIN + 365 * DAYS, undo_keep_s=HOUR.total_seconds())
    assert decision.keep
    assert "taken back" in decision.reason
    assert not expired(only, 0, BEGIN + 365 * DAYS)
