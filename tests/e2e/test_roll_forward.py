# SPDX-License-Identifier: Apache-2.0
"""To the last commit, to a time, to right before a mistake: on Btrfs, on XFS, and with data and log apart."""

import os
from collections.abc import Iterator

import pytest

from tests.e2e.luck_support import NAME, spawned
from tests.e2e.roll_support import LAYOUTS, World, new_world

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@pytest.fixture(scope="module", params=LAYOUTS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with new_world(request.param) as made:
        yield made


def test_right_before_the_mistake_and_back_and_to_the_last_commit(world: World) -> None:
    world.load.wait(30)
    world.do("backup", NAME)
    world.load.wait(30)
    world.churn()
    world.load.wait(30)
    world.pause()
    xid, before = world.drop()

    shown = world.do("recover", NAME, "--to", f"before:{xid}", "--preview").document
    assert (shown["target"], shown["forward"]["against"]) == (f"before:{xid}", "")
    first = world.recover(f"before:{xid}").document
    world.whole(before)
    # The next one begins at the same replica, and goes on by what was written since.
    world.load.resume()
    world.load.wait(60)
    world.pause()
    after = world.load.acknowledged()
    second = world.recover("latest").document
    world.whole(after)
    assert second["replica"] == first["replica"]
    timelines = [next(iter(each["reached"].values()))["timeline"] for each in (first, second)]
    assert len(set(timelines)) == 2
    # Undone twice: the mistake is there again.
    world.do("recover", NAME, "--undo", "--yes")
    world.do("recover", NAME, "--replica", str(first["undo_replica"]), "--yes")
    assert world.one("SELECT to_regclass('journal') IS NULL") == "True"
    world.recover(f"before:{xid}")
    world.whole(before)
    world.do("replica", "delete", str(first["replica"]), "--yes")  # no other test needs so much log


def test_to_a_time(world: World) -> None:
    world.do("backup", NAME)
    world.load.resume()
    world.load.wait(30)
    world.pause()
    then = world.load.acknowledged()
    time = world.one("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    world.load.resume()
    world.load.wait(30)
    world.pause()
    world.one("SELECT pg_switch_wal()")
    told = world.recover(time).document
    assert told["target"].startswith(time[:19])
    world.whole(then)
    assert not world.verdict(world.load.acknowledged()).ok  # what was acknowledged after the time is not in it
    world.recover("latest", "--replica", str(told["replica"]))


def test_a_hole_in_the_log_stops_nothing(world: World) -> None:
    """It is found before anything is stopped, and the last moment that can be reached is named."""
    world.do("backup", NAME)
    world.load.resume()
    world.load.wait(20)
    world.one("SELECT pg_switch_wal()")
    world.load.wait(20)
    missing = world.one("SELECT pg_walfile_name(pg_current_wal_lsn())")
    world.one("SELECT pg_switch_wal()")
    world.load.wait(20)
    log = os.path.realpath(f"{world.cluster.data_dir}/pg_wal")
    os.rename(f"{log}/{missing}", f"{log}/kept")
    refused = spawned(world.spawner, "recover", NAME, "--to", "latest", "--yes")
    assert refused.status == 5
    assert missing in refused.document["error"]["sentence"]
    assert "last moment that can be reached" in refused.document["error"]["sentence"]
    world.load.wait(10)  # nobody was stopped
    os.rename(f"{log}/kept", f"{log}/{missing}")
    world.pause()
    acknowledged = world.load.acknowledged()
    world.recover("latest")
    world.whole(acknowledged)
