# SPDX-License-Identifier: Apache-2.0
"""The order of freezing: what lies on another one comes before it, whatever the order in which they were named."""

import itertools

import pytest

from slackwater.errors import RefusedError
from slackwater.model.storage import Filesystem
from slackwater.system.topology import order


def filesystem(name: str) -> Filesystem:
    return Filesystem(name, f"fsid-{name}", f"/{name}")


#: c in a file on b, b in a volume on a, and d in a file on a; x lies between and is not frozen; e lies alone.
UNDER = {"c": {"b", "a", "x"}, "b": {"x", "a"}, "x": {"a"}, "d": {"a"}, "a": set[str](), "e": set[str]()}


def wrong(found: tuple[Filesystem, ...], under: dict[str, set[str]]) -> list[str]:
    """The oracle: who would be frozen although something that lies on it is not yet."""
    ranks = {each.superblock: each.rank for each in found}
    return [f"{up} after {down}" for up in ranks for down in ranks if down in under[up] and ranks[up] >= ranks[down]]


@pytest.mark.parametrize("names", [each for n in range(6) for each in itertools.permutations("abcde", n)])
def test_what_lies_on_another_one_is_frozen_before_it(names: tuple[str, ...]) -> None:
    found = order([filesystem(each) for each in names], UNDER)
    assert {each.superblock for each in found} == set(names)
    assert wrong(found, UNDER) == []
    assert sorted({each.rank for each in found}) == list(range(len({each.rank for each in found})))
    assert [each.rank for each in found] == sorted(each.rank for each in found)


def test_the_oracle_sees_the_wrong_order() -> None:
    found = order([filesystem(each) for each in "abc"], {each: set[str]() for each in UNDER})
    assert wrong(found, UNDER)


def test_each_is_frozen_once() -> None:
    assert order([filesystem("a"), filesystem("a")], {}) == (filesystem("a"),)


@pytest.mark.parametrize("under", [{"a": {"a"}}, {"a": {"b"}, "b": {"a"}}, {"a": {"b"}, "b": {"c"}, "c": {"a"}}])
def test_a_circle_is_refused(under: dict[str, set[str]]) -> None:
    with pytest.raises(RefusedError, match="circle") as refused:
        order([filesystem(each) for each in "abc"], under)
    assert "/a" in refused.value.sentence
