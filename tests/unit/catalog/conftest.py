# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.catalog.catalog import Catalog
from tests.unit.catalog.samples import StandingClock


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "catalog.sqlite")


@pytest.fixture
def catalog(path: str, clock: StandingClock) -> Iterator[Catalog]:
    with Catalog.open(path, create=True, clock=clock) as opened:
        yield opened
