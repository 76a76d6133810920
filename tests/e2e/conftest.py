# SPDX-License-Identifier: Apache-2.0
"""What end-to-end tests need of the machine; the same rules as for the tests of single parts."""

from collections.abc import Iterator

import pytest

from tests.matrix.record import Record, write
from tests.platform.conftest import pytest_runtest_setup
from tests.seeds import seed

__all__ = ["pytest_runtest_setup"]

_RECORDS: dict[str, Record] = {}
"""By the name under which it is written; a file of the matrix has one, `RECORD`."""


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Iterator[Record]:
    """What the file's tests have seen so far, with the seed of all that they draw; written after each of them."""
    name = request.module.RECORD
    kept = _RECORDS.setdefault(name, Record(str(seed())))
    print(f"seed {kept.seed}")
    yield kept
    write(name, kept.document())
