# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from slackwater.policy.windows import Gap, RecoveryWindow, Span, covered, gaps, lost

BEGIN = datetime(2026, 11, 22, tzinfo=UTC)
NOW = BEGIN + timedelta(hours=100)


def at(hour: int) -> datetime:
    return BEGIN + timedelta(hours=hour)


def window(since: int, until: int | None) -> RecoveryWindow:
    return RecoveryWindow(f"2026-11-22-{since}", at(since), None if until is None else at(until))


def spans(*hours: tuple[int, int]) -> tuple[Span, ...]:
    return tuple((at(since), at(until)) for since, until in hours)


def test_what_overlaps_is_one_and_an_open_one_ends_now() -> None:
    windows = [window(50, None), window(20, 30), window(25, 40), window(10, 10)]
    assert covered(windows, NOW) == spans((10, 10), (20, 40), (50, 100))
    assert covered([], NOW) == ()


def test_what_goes_with_a_replica() -> None:
    before = [window(50, None), window(20, None), window(10, None)]
    assert lost(before, before, NOW) == ()
    assert lost(before, before[:2], NOW) == spans((10, 20))
    assert lost(before, [window(50, None), window(10, 15)], NOW) == spans((15, 50))
    assert lost(before, [], NOW) == spans((10, 100))
    assert lost([window(5, 5), *before], before, NOW) == ()


def test_what_is_lost_between_and_after_the_windows() -> None:
    assert gaps([], NOW) == ()
    assert gaps([window(50, None), window(20, None)], NOW) == ()
    closed = [replace(window(50, 60), why="gone"), window(40, 40), replace(window(20, 30), why="cut")]
    assert gaps(closed, NOW) == (Gap(at(30), at(40), "cut"), Gap(at(40), at(50), ""), Gap(at(60), None, "gone"))
    assert gaps([window(70, None), *closed], NOW)[-1] == Gap(at(60), at(70), "gone")
    # What ends at the same hole ends together: the younger replica has what lies behind the last commit in its log.
    same = [replace(window(50, 50), why="gone"), replace(window(20, 49), why="gone")]
    assert gaps(same, NOW) == (Gap(at(50), None, "gone"),)


ENDS = st.none() | st.integers(0, 40)
WINDOWS = st.lists(
    st.builds(lambda since, more: window(since, None if more is None else since + more), st.integers(0, 60), ENDS),
    max_size=6,
)


def inside(moment: datetime, found: tuple[Span, ...]) -> bool:
    return any(since <= moment < until for since, until in found)


@given(WINDOWS)
def test_a_moment_since_the_first_window_is_in_one_or_lost(windows: list[RecoveryWindow]) -> None:
    found = tuple((each.since, each.until or NOW) for each in gaps(windows, NOW))
    for hour in range(100):
        moment = at(hour) + timedelta(minutes=30)
        begun = any(each.since <= moment for each in windows)
        assert inside(moment, found) == (begun and not inside(moment, covered(windows, NOW)))


@given(WINDOWS, WINDOWS)
def test_each_moment_is_there_still_or_lost(before: list[RecoveryWindow], after: list[RecoveryWindow]) -> None:
    gone = lost(before, after, NOW)
    for hour in range(100):
        moment = at(hour) + timedelta(minutes=30)
        had, has = inside(moment, covered(before, NOW)), inside(moment, covered(after, NOW))
        assert inside(moment, gone) == (had and not has)
