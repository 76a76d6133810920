# SPDX-License-Identifier: Apache-2.0
"""The power is cut in the middle of sessions and right after they said that they are done, on both filesystems.

At moments that every run tries, and at one on each that the run's seed draws.
"""

import random

import pytest

from tests.e2e.power_cuts import FILESYSTEMS, Cell, drawn, play, write
from tests.e2e.power_moments import done, effect, rotating, told
from tests.e2e.power_support import NAME, power
from tests.seeds import seed

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.uml, pytest.mark.timeout(1500)]

SEED = seed()
CELLS = {
    "btrfs": [
        Cell("rotation", rotating()),
        Cell("roll-forward", effect("btrfs.exchange", "done")),
        Cell("undo", told("start")),
        Cell("recovery", told("stop"), orderly=True),
    ],
    "xfs": [
        Cell("backup", effect("reflink.snapshot", "intent")), Cell("recovery", done()),
        Cell("recovery", effect("reflink.exchange", "done"), orderly=True),
    ],
}  # fmt: skip


SEEN: list[dict[str, str]] = []


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_what_was_said_before_the_power_went_is_so(filesystem: str) -> None:
    rng = random.Random(f"{SEED} {filesystem}")
    print(f"seed {SEED}")
    cells = [*CELLS[filesystem], next(drawn(rng, filesystem))]
    with power(filesystem, hold=FILESYSTEMS[filesystem]) as machine:
        seen = list(play(machine, cells, rng))
    assert [each["session"] for each in seen] == [each.session for each in cells]
    SEEN.extend(seen)
    write(SEEN, SEED)


def test_a_replica_whose_document_is_not_on_the_disk_is_seen() -> None:
    """The twin: it said that it was done, and what lies beside the copies did not come through the cut."""
    with power("btrfs") as machine:
        machine.boot()
        assert machine.now.ask("start") == ""
        machine.go()
        machine.load.pause()
        cut = machine.strike("backup", ("backup", NAME), done())
        assert cut.told.done is not None
        machine.sabotage = "no_document"
        with pytest.raises(AssertionError, match="no readable document"):
            machine.check(cut, database_first=True, look_into=False)
