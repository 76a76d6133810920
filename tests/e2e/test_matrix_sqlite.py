# SPDX-License-Identifier: Apache-2.0
"""The matrix on SQLite, on Btrfs: every kind of session, SIGKILL and SIGSTOP at every entry of journal and catalog.

A bank with two databases works meanwhile; its oracle judges what runs, and each replica that was left. What was stopped
goes on, is killed, or is taken over by `session abort --kill`: one of the three is drawn for each moment, by a seed
that is printed. SIGTERM and Ctrl-C at every entry are in `test_matrix_sqlite_asked.py`.
"""

import random
from collections.abc import Iterator

import pytest

from tests.matrix.banking import BankSite, bank_site
from tests.matrix.cells import IN_WINDOW
from tests.matrix.kinds import KINDS, Kind
from tests.matrix.record import Record
from tests.matrix.rounds import strike

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

RECORD = "cells-sqlite"


@pytest.fixture(scope="module")
def site() -> Iterator[BankSite]:
    with bank_site("btrfs") as made:
        yield made


@pytest.mark.parametrize("kind", KINDS, ids=lambda each: each.name)
def test_a_session_killed_or_stopped_at_any_moment_costs_nothing(site: BankSite, record: Record, kind: Kind) -> None:
    rng = random.Random(f"{record.seed} {kind.name}")
    assert strike(site, kind, record, ["SIGKILL", "SIGSTOP"], rng, window=IN_WINDOW) == []
