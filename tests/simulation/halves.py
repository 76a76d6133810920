# SPDX-License-Identifier: Apache-2.0
"""The sessions that every run of the tests simulates, always of the same worlds, in two files for two workers."""

from tests.simulation.bulk import Tally, keep, many, told

CHUNKS = 10
"""In each half."""
WORLDS = 100
"""In each chunk, of fifty sessions each."""


def chunk(half: str, number: int) -> None:
    """Live a chunk's worlds, and fail with the seeds of those in which something is wrong."""
    first = 1 + WORLDS * (number + CHUNKS * ("even", "odd").index(half))
    tally = many(range(first, first + WORLDS), Tally())
    keep(f"{half}-{number}", tally, first)
    assert not tally.broken, "\n".join(told(each) for each in tally.broken[:10])
    assert tally.sessions >= 50 * WORLDS
    for kind in ("backup", "recover", "delete", "verify", "clone", "mount"):  # else nothing was simulated
        assert tally.ended[f"{kind} done"] > WORLDS // 20, f"hardly any {kind} came to its end: {tally.ended}"
    assert tally.ended["backup done"] > 8 * WORLDS
    assert len(tally.faults) == 17, f"a kind of fault never struck: {tally.faults}"
