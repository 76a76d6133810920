# SPDX-License-Identifier: Apache-2.0
"""Round after round on one busy database whose log the real pgBackRest or the real Barman keeps; see `rounds_support`.

Afterwards the archive is continuous, by the word of its own program and segment by segment. `SLACKWATER_ROUNDS` says
how many rounds; else it is one, and with Barman, which takes half a second for each file, the second half of one.
"""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.e2e.luck_support import NAME
from tests.e2e.roll_support import World, new_world
from tests.e2e.rounds_support import go_around, to_the_last_commit
from tests.platform.archive_support import Barman, Kept, PgBackRest

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

ROUNDS = int(os.environ.get("SLACKWATER_ROUNDS", "0"))


@pytest.fixture(params=[PgBackRest, Barman], ids=["pgbackrest", "barman"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    kind: type[Kept] = request.param
    if shutil.which(kind.__name__.lower()) is None:
        pytest.skip(f"{kind.__name__} is not installed: make system")
    with new_world("btrfs", replica=f"keep = {ROUNDS + 2}", archive=kind) as made:
        yield made


@pytest.mark.timeout(900 + 300 * ROUNDS)
def test_round_after_round_no_acknowledged_commit_is_lost(world: World) -> None:
    since = world.position()
    assert world.archive
    if ROUNDS or not isinstance(world.archive, Barman):
        go_around(world, ROUNDS or 1)
    else:
        to_the_last_commit(world, str(world.do("backup", NAME).document["replica"]))
    world.pause()
    world.archive.idle()
    world.archive.checked()
    assert world.archive.lacking(since) == []
