# SPDX-License-Identifier: Apache-2.0
"""The other half of the sessions; the first half is another file, so that another worker has it."""

import pytest

from tests.simulation.halves import CHUNKS, chunk


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("number", range(CHUNKS))
def test_sessions_with_faults(number: int) -> None:
    chunk("odd", number)
