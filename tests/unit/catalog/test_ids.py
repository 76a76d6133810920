# SPDX-License-Identifier: Apache-2.0
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackwater.catalog.ids import day_of, order, resolve, split
from slackwater.errors import NotFoundError, UsageError

IDS = ["2026-11-21-1", "2026-11-22-1", "2026-11-22-2", "2026-11-22-10", "2026-12-01-1"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-22-2", "2026-11-22-2"),
        ("2026-11-22-1", "2026-11-22-1"),
        ("2026-11-22-10", "2026-11-22-10"),
        ("2026-12", "2026-12-01-1"),
        ("2026-11-21", "2026-11-21-1"),
        ("latest", "2026-11-22-2"),
    ],
)
def test_what_is_typed_is_found(text: str, meant: str) -> None:
    assert resolve(text, reversed(IDS), latest="2026-11-22-2") == meant


def test_what_could_be_several_is_answered_with_them() -> None:
    with pytest.raises(UsageError) as caught:
        resolve("2026-11-22", IDS)
    assert caught.value.sentence == "'2026-11-22' could be any of 3 replicas."
    assert caught.value.hint == "Write more of it: 2026-11-22-1, 2026-11-22-2, 2026-11-22-10"


def test_many_candidates_are_cut_to_the_newest() -> None:
    with pytest.raises(UsageError, match="any of 40 sessions") as caught:
        resolve("2", [f"2026-11-22-{n}" for n in range(1, 41)], noun="session")
    assert caught.value.hint.startswith("Write more of it: 2026-11-22-33, ")
    assert caught.value.hint.endswith("2026-11-22-40, and older ones")


@pytest.mark.parametrize("text", ["2027", "", "22-1", "LATEST", "2026-11-22-100"])
def test_what_is_not_there_is_not_guessed(text: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        resolve(text, IDS, latest=IDS[0])
    assert caught.value.exit_status == 4
    assert "replica list" in caught.value.hint


def test_there_may_be_no_latest() -> None:
    with pytest.raises(NotFoundError, match="no good replica yet"):
        resolve("latest", IDS)


def test_ids_sort_by_number() -> None:
    assert sorted(set(IDS), key=order) == IDS


def test_the_day_is_that_of_utc() -> None:
    assert day_of(datetime(2026, 11, 22, 23, 30, tzinfo=timezone(timedelta(hours=-5)))) == "2026-11-23"


@pytest.mark.parametrize("text", ["2026-11-22", "2026-11-22-0", "2026-11-22-01", "2026-11-22-1 ", "x", "2026-11-22-١"])
def test_what_is_no_id_is_not_taken_apart(text: str) -> None:
    assert split(text) is None


@given(
    st.lists(st.from_regex("20[0-9]{2}-[01][0-9]-[0-3][0-9]-[1-9][0-9]{0,2}", fullmatch=True), min_size=1), st.data()
)
def test_a_whole_id_always_means_itself(ids: list[str], data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(ids))
    assert resolve(one, ids) == one
    day, number = split(one) or ("", 0)
    assert f"{day}-{number}" == one
