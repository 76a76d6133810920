# SPDX-License-Identifier: Apache-2.0
"""Rounds of a backup, a mistake, and a lost disk on one database, which loses no commit that it acknowledged.

Each round: a backup, ten times as much log as the server keeps by itself, a table dropped under load, a recovery to
right before that; so much log again, the data files lost, a recovery to the last commit. What a recovery sets aside is
deleted at once: it would be a further source of the log, and it is the slot or the archive that is tried.
"""

import os

from tests.e2e.luck_support import MIB, NAME
from tests.e2e.roll_support import KEPT_MIB, SEGMENT_MIB, World


def go_around(world: World, times: int) -> None:
    """So many rounds in a row; then the very first replica goes all the way, through every second timeline since."""
    first = ""
    for number in range(times):
        replica = str(world.do("backup", NAME).document["replica"])
        first = first or replica
        right_before_the_mistake(world, replica)
        to_the_last_commit(world, replica)
        log = f"{world.position() // MIB} MiB of log"
        print(f"round {number + 1}: {world.load.count()} commits, {log}, timeline {timeline(world)}", flush=True)
    world.pause()
    acknowledged = world.load.acknowledged()
    assert timeline(world) == 1 + 2 * times
    told = world.recover("latest", "--replica", first).document
    world.whole(acknowledged)
    forget(world, told)


def right_before_the_mistake(world: World, replica: str) -> None:
    """Drop a table under load, long after the replica, find that in the list, and go back to right before it."""
    position, begin = world.position(), _much_later(world)
    xid, acknowledged = world.drop()
    world.pause()
    assert world.position() - position >= 10 * KEPT_MIB * MIB
    _kept(world, begin)
    since = _slot(world)
    listed = world.do("recover", NAME, "--list").document
    assert not [each for each in listed["unread"] if each.startswith(replica)]  # an archive is asked behind that alone
    assert [each["what"] for each in listed["losses"] if each["target"] == f"before:{xid}"] == [
        ["dropped public.journal in ledger"]
    ]
    told = world.recover(f"before:{xid}").document
    assert told["replica"] == replica
    if not world.archive:
        assert since == _slot(world)  # and not where its copy was
    world.whole(acknowledged)
    forget(world, told)


def to_the_last_commit(world: World, replica: str) -> None:
    """Lose every file but those of the log, long after the replica, and come back to the last commit."""
    _kept(world, _much_later(world))
    world.destroy_data()
    world.pause()
    acknowledged = world.load.acknowledged()
    told = world.recover("latest").document
    assert told["replica"] == replica
    world.whole(acknowledged)
    forget(world, told)


def forget(world: World, told: dict[str, str]) -> None:
    """Delete what a recovery set aside, and go on."""
    world.do("replica", "delete", told["undo_replica"], "--yes")
    world.load.resume()


def segments(world: World) -> list[str]:
    """The log that the server has."""
    return sorted(each for each in os.listdir(f"{world.cluster.data_dir}/pg_wal") if len(each) == 24)


def timeline(world: World) -> int:
    """The one that it is on."""
    return int(world.one("SELECT timeline_id FROM pg_control_checkpoint()"))


def _much_later(world: World) -> str:
    """Ten times as much log as the server keeps by itself, under load; returns the segment in which it began."""
    begin = world.one("SELECT pg_walfile_name(pg_current_wal_lsn())")
    world.load.wait(20)
    world.churn()
    world.load.wait(20)
    return begin


def _kept(world: World, begin: str) -> None:
    """The slot has kept all from a segment on; or nobody but the archive has that segment any more."""
    if world.archive:
        world.archive.idle()
        with world.load.connect() as connection:
            connection.execute("CHECKPOINT")
        assert begin not in segments(world)
        return
    kept = [each for each in segments(world) if begin <= each]
    assert begin in kept
    assert len(kept) >= 10 * KEPT_MIB // SEGMENT_MIB


def _slot(world: World) -> str:
    """From where on our slot keeps the log; empty where there is none."""
    return world.one("SELECT coalesce(max(restart_lsn::text), '') FROM pg_replication_slots")
