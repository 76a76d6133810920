# SPDX-License-Identifier: Apache-2.0
"""The matrix on PostgreSQL: every kind of session at every entry of journal and catalog, each with one signal.

Which, a seed draws that is printed: each run has another share of the product, and `make chaos` draws from all of it.
"""

import random
from collections.abc import Iterator

import pytest

from tests.matrix.cells import IN_WINDOW
from tests.matrix.kinds import Kind, kinds_of
from tests.matrix.posting import ServerSite, server_site
from tests.matrix.record import Record
from tests.matrix.rounds import SIGNALS, strike

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(900)]

RECORD = "cells-postgresql"


@pytest.fixture(scope="module")
def site() -> Iterator[ServerSite]:
    with server_site("btrfs") as made:
        yield made


@pytest.mark.parametrize("kind", kinds_of("postgresql"), ids=lambda each: each.name)
def test_a_session_struck_at_any_moment_costs_nothing(site: ServerSite, record: Record, kind: Kind) -> None:
    rng = random.Random(f"{record.seed} {kind.name}")
    assert strike(site, kind, record, list(SIGNALS), rng, window=[rng.choice(IN_WINDOW)], one_drawn=True) == []
