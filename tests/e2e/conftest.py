# SPDX-License-Identifier: Apache-2.0
"""What end-to-end tests need of the machine; the same rules as for the tests of single parts."""

from collections.abc import Iterator

import pytest

from slackwater.demo.lab import Lab
from tests.e2e.luck_support import in_memory
from tests.e2e.spawner import Spawner
from tests.matrix.record import Record, write
from tests.platform.conftest import pytest_runtest_setup
from tests.seeds import seed

__all__ = ["pytest_runtest_setup"]

_RECORDS: dict[str, Record] = {}
"""By the name under which it is written; a file of the matrix has one, `RECORD`."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A laboratory for all tests of a file, its disks in memory."""
    with in_memory() as made:
        yield made


@pytest.fixture(scope="module")
def spawner(lab: Lab) -> Iterator[Spawner]:
    """Commands of its Slackwater."""
    with Spawner(lab.environment()) as made:
        yield made


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Iterator[Record]:
    """What the file's tests have seen so far, with the seed of all that they draw; written after each of them."""
    name = request.module.RECORD
    kept = _RECORDS.setdefault(name, Record(str(seed())))
    print(f"seed {kept.seed}")
    yield kept
    write(name, kept.document())
