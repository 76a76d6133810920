# SPDX-License-Identifier: Apache-2.0
"""Which undo replica `recover --undo` takes: that of the last recovery, whatever the clock said, or none."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from slackwater.catalog.catalog import Catalog
from slackwater.errors import NotFoundError
from slackwater.model.session import Outcome, SessionKind
from slackwater.sessions import recover
from tests.simulation.records import real_catalog
from tests.simulation.virtual import VirtualClock
from tests.simulation.world import World, enter


def recoveries(*hours: float) -> tuple[Catalog, list[str]]:
    """A catalog with completed recoveries that began at these hours of its clock, and their ids."""
    world = World(1)
    enter(world)
    world.faults = SimpleNamespace(armed=False)  # type: ignore[assignment]
    clock = VirtualClock(world)
    catalog = real_catalog(clock)
    catalog._database.live = False  # type: ignore[attr-defined]
    made = []
    for hour in hours:
        world.wall_offset_s = hour * 3600
        session = catalog.sessions.begin(SessionKind.RECOVERY, "orders", "1:2:3")
        catalog.sessions.finish(session, Outcome.COMPLETED)
        made.append(session.id)
    return catalog, made


def asked(catalog: Catalog, undo: str, *pending: str) -> None:
    cell: Any = SimpleNamespace(catalog=catalog, host=SimpleNamespace(pending=lambda: pending))
    replica: Any = SimpleNamespace(id=undo)
    recover._refuse_earlier(cell, "orders", replica)


@pytest.mark.parametrize("hours", [(10, 12), (12, 10)])
def test_the_last_is_the_last_whatever_the_clock_said(hours: tuple[float, float]) -> None:
    catalog, (first, second) = recoveries(*hours)
    asked(catalog, second)
    with pytest.raises(NotFoundError) as refused:
        asked(catalog, first)
    assert second in refused.value.sentence
    assert first in refused.value.hint


def test_one_that_is_not_put_in_order_yet_or_was_adopted_stands_against_none() -> None:
    catalog, (first, second) = recoveries(10, 12)
    asked(catalog, first, second)
    asked(catalog, f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%d}-1")
