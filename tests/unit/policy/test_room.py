# SPDX-License-Identifier: Apache-2.0
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackwater.model.facts import Severity
from slackwater.model.quantities import Amount, Bytes, Share
from slackwater.model.storage import Room
from slackwater.policy.room import enough

GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "min_free", "fits"),
    [
        (3 * GIB, Share(10), True),
        (3 * GIB - 1, Share(10), False),
        (20 * GIB, Bytes(20 * GIB), True),
        (20 * GIB - 1, Bytes(20 * GIB), False),
        (0, Bytes(0), True),
        (0, Share(0), True),
        (-1, Share(0), False),
    ],
)
def test_the_reserve_is_exact(free: int, min_free: Amount, fits: bool) -> None:
    assert (enough(Room(30 * GIB, free), min_free) is None) is fits


def test_the_refusal_has_the_numbers_and_the_way_out() -> None:
    found = enough(Room(30 * GIB, GIB), Share(10), "/srv/db")
    assert found is not None
    assert (found.code, found.severity) == ("min-free", Severity.REFUSAL)
    assert found.sentence == ("1 GiB of 30 GiB (3.3%) are free on /srv/db; [replica] min_free asks for 10% (3 GiB).")
    assert "slackwater replica delete" in found.hint
    exact = enough(Room(30 * GIB, GIB), Bytes(2 * GIB))
    assert exact is not None
    assert exact.sentence.endswith("are free; [replica] min_free asks for 2 GiB.")


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 60), st.integers(0, 9999))
def test_more_room_is_never_worse(total: int, free: int, hundredths: int) -> None:
    share = Share(hundredths / 100)
    if enough(Room(total, free), share) is None:
        assert enough(Room(total, free + 1), share) is None
        assert enough(Room(total, free), Share(hundredths / 200)) is None
