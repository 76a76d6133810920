# SPDX-License-Identifier: Apache-2.0
"""The simulation itself: a world is its seed, on whatever catalog, and faults strike everywhere."""

import os
import subprocess
import sys
from pathlib import Path

from tests.simulation.kernel import simulated
from tests.simulation.worlds import live

SEEDS = (1, 2, 3)


def test_a_seed_has_one_trace() -> None:
    with simulated() as folder:
        first = [live(seed, folder).trace for seed in SEEDS]
        again = [live(seed, folder).trace for seed in reversed(SEEDS)][::-1]
    assert first == again
    assert first[0] != first[1]


def test_a_seed_has_the_same_trace_in_another_process() -> None:
    root = Path(__file__).parents[2]
    told = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--all", "4"], check=True, capture_output=True, cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1
    assert b"FAULT" in told.pop()


def test_the_catalogs_twin_leads_to_the_same_story() -> None:
    with simulated() as folder:
        for seed in range(20, 26):
            twin, real = (live(seed, folder, real=real) for real in (False, True))
            assert twin.trace == real.trace
            assert not real.violations
