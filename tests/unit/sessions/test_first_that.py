# SPDX-License-Identifier: Apache-2.0
"""The newest of many replicas from which a target can be reached is found by asking few of them."""

import anyio
import pytest

from slackwater.sessions.recover import first_that


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_the_first_that_can_is_found_and_few_are_asked(count: int) -> None:
    for first in range(count + 1):
        asked: list[int] = []

        async def ask(each: int, first: int = first, asked: list[int] = asked) -> str | None:
            asked.append(each)
            return f"from {each}" if each >= first else None

        found = anyio.run(first_that, range(count), ask)
        assert found == ((first, f"from {first}") if first < count else None)
        assert len(asked) == len(set(asked)) <= (6 if first == count else 11)
