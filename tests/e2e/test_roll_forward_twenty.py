# SPDX-License-Identifier: Apache-2.0
"""Round after round on one database whose log is kept by a slot, on each layout; see `rounds_support`.

`SLACKWATER_ROUNDS` says how many; `test_roll_forward_archives.py` is the same with an archive.
"""

import os
from collections.abc import Iterator

import pytest

from tests.e2e.luck_support import NAME, spawned
from tests.e2e.roll_support import LAYOUTS, World, new_world
from tests.e2e.rounds_support import go_around, segments

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

ROUNDS = int(os.environ.get("SLACKWATER_ROUNDS", "2"))


@pytest.fixture(scope="module", params=LAYOUTS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with new_world(request.param, replica=f"keep = {ROUNDS + 2}") as made:
        yield made


@pytest.mark.timeout(600 + 180 * ROUNDS)
def test_round_after_round_no_acknowledged_commit_is_lost(world: World) -> None:
    go_around(world, ROUNDS)


def test_a_twin_whose_log_nobody_keeps_refuses_before_anything_is_stopped(world: World) -> None:
    """What the server keeps by itself is not enough, so it was the slot; and the oracle sees what is lost."""
    world.specify('logs = "none"\n')
    world.do("backup", NAME)
    assert world.one("SELECT count(*) FROM pg_replication_slots") == "0"
    world.load.wait(20)
    begin = world.one("SELECT pg_walfile_name(pg_current_wal_lsn())")
    world.churn()
    assert begin not in segments(world)
    world.load.wait(20)
    xid, acknowledged = world.drop()
    world.pause()
    server = world.one("SELECT pg_postmaster_start_time()")
    for target in (f"before:{xid}", "latest"):
        refused = spawned(world.spawner, "recover", NAME, "--to", target, "--yes")
        assert (refused.status, refused.document["error"]["code"]) == (5, "unreachable"), refused.output
        assert "is missing or not whole" in refused.document["error"]["sentence"]
    assert world.one("SELECT pg_postmaster_start_time()") == server
    world.recover("replica")
    assert world.verdict(acknowledged).missing > 0
