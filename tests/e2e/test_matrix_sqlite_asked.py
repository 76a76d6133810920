# SPDX-License-Identifier: Apache-2.0
"""The matrix on SQLite, on XFS: every kind of session, asked to end at every entry of journal and catalog.

By SIGTERM and by Ctrl-C. See `test_matrix_sqlite.py`.
"""

import random
from collections.abc import Iterator

import pytest

from tests.matrix.banking import BankSite, bank_site
from tests.matrix.kinds import KINDS, Kind
from tests.matrix.record import Record
from tests.matrix.rounds import strike

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

RECORD = "cells-sqlite-asked"


@pytest.fixture(scope="module")
def site() -> Iterator[BankSite]:
    with bank_site("xfs") as made:
        yield made


@pytest.mark.parametrize("kind", KINDS, ids=lambda each: each.name)
def test_a_session_asked_to_end_at_any_moment_does_so_and_costs_nothing(
    site: BankSite, record: Record, kind: Kind
) -> None:
    assert strike(site, kind, record, ["SIGTERM", "Ctrl-C"], random.Random(f"{record.seed} {kind.name}")) == []
