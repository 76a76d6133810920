# SPDX-License-Identifier: Apache-2.0
"""A kept log at its bound, on a disk for less log than was written: what goes is the window, and that is told."""

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime

import psycopg
import pytest

from slackwater.system.clock import SYSTEM_CLOCK
from tests.e2e.luck_support import MIB, NAME, spawned
from tests.e2e.roll_support import World, new_world

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

DISK_MIB, BOUND_MIB = 320, 48
STEP_MIB = 20


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world("xfs", disk_mib=DISK_MIB, bound_mib=BOUND_MIB) as made:
        yield made


def test_the_disk_is_never_full_and_what_was_lost_is_told(world: World) -> None:
    world.load.wait(20)
    acknowledged, began = world.load.acknowledged(), SYSTEM_CLOCK.now()
    first = str(world.do("backup", NAME).document["replica"])
    free = _free_mib(world)
    for _ in range(free // STEP_MIB + 1):  # more than there is room for
        world.churn(STEP_MIB)
        world.load.wait(1)
        assert _log_mib(world) <= BOUND_MIB + STEP_MIB
        assert free - _free_mib(world) <= BOUND_MIB + 3 * STEP_MIB  # the replica holds what changed since, too
    assert _errors(world) == ""

    (gap,) = _gaps(world)
    assert gap["until"] is None
    assert began <= datetime.fromisoformat(str(gap["since"])) <= SYSTEM_CLOCK.now()
    assert "is missing or not whole" in str(gap["why"])
    shown = world.lab.slackwater("status", NAME, json=False, timeout_s=600).output
    assert "lost" in shown
    assert "closed" in shown
    # A backup opens the window again, and both ends of what was lost stay known.
    second = str(world.do("backup", NAME).document["replica"])
    world.load.wait(20)
    (gap,) = _gaps(world)
    windows = {each["replica"]: each for each in world.do("recover", NAME, "--list").document["windows"]}
    assert (gap["since"], gap["until"]) == (windows[first]["until"], windows[second]["since"])
    assert windows[second]["until"] is None
    # It is true: beyond that nobody is taken, and everything up to it is there.
    refused = spawned(world.spawner, "recover", NAME, "--replica", first, "--to", "latest", "--yes")
    assert (refused.status, refused.document["error"]["code"]) == (5, "unreachable")
    world.pause()
    world.recover("replica", "--replica", first)
    world.whole(acknowledged)
    world.load.resume()


def test_a_bound_that_is_taken_away_closes_the_window_and_never_stops_the_server(world: World) -> None:
    """The twin is a slot that nobody looks after."""
    world.do("backup", NAME)
    with world.load.connect() as connection:
        connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = -1")
        connection.execute("SELECT pg_reload_conf()")
    refused = spawned(world.spawner, "backup", NAME)
    assert (refused.status, refused.document["error"]["code"]) == (5, "log-unbounded")
    assert "max_slot_wal_keep_size does not bound it" in refused.complaint
    told = _errors(world)
    for _ in range(_free_mib(world) // STEP_MIB + 1):
        world.churn(STEP_MIB)
    assert _errors(world) == told
    (*_, gap) = _gaps(world)
    assert gap["until"] is None
    with world.load.connect() as connection:
        connection.execute("SELECT pg_create_physical_replication_slot('nobody', true)")
    with pytest.raises(psycopg.Error):
        world.churn(DISK_MIB)
    assert "No space left on device" in world.cluster.log_tail(200)


def _free_mib(world: World) -> int:
    room = os.statvfs(world.cluster.data_dir)
    return room.f_bavail * room.f_frsize // MIB


def _log_mib(world: World) -> int:
    found = 0
    with os.scandir(f"{world.cluster.data_dir}/pg_wal") as entries:
        for each in entries:
            with contextlib.suppress(FileNotFoundError):  # a checkpoint takes some away
                found += each.stat().st_size if each.is_file() else 0
    return found // MIB


def _errors(world: World) -> str:
    """What the tellers had to complain of."""
    folder = f"{world.lab.folder}/load"
    return "".join(open(f"{folder}/{name}").read() for name in os.listdir(folder) if name.startswith("log-"))


def _gaps(world: World) -> list[dict[str, object]]:
    (status,) = world.do("status", NAME).document["specifications"]
    gaps: list[dict[str, object]] = status["gaps"]
    return gaps
