# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL with data, log and a tablespace on volumes of their own: nothing is held, and nothing is lost."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from slackwater.demo import oracle
from slackwater.demo.cluster import Cluster, give_to_owner
from slackwater.demo.lab import Answer, Lab
from slackwater.demo.load import Acknowledged, Load
from tests.e2e.luck_support import MIB, in_memory, look, obeyed, spawned, until
from tests.e2e.spawner import Command, Spawner
from tests.e2e.support import boot_s_of
from tests.platform.storm import storm

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

SETTINGS = {"max_wal_size": "32MB", "min_wal_size": "32MB", "archive_mode": "on", "archive_command": "false"}
"""Segments are recycled at each checkpoint, and nothing is ever archived."""
OURS = "application_name = 'slackwater' AND query LIKE '%statement_timeout%'"
"""The connection of a bridge, after the backup has begun."""


@dataclass
class World:
    lab: Lab
    spawner: Spawner
    cluster: Cluster
    load: Load

    def do(self, *words: str) -> Answer:
        return obeyed(spawned(self.spawner, *words))

    def ask(self, query: str) -> list[tuple[object, ...]]:
        with self.cluster.connect(autocommit=True) as connection:
            return connection.execute(query.encode()).fetchall()

    def timeline(self) -> str:
        return str(self.ask("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")[0][0])

    def quiet(self) -> bool:
        """Nothing of a bridge is left in the server."""
        return (
            self.ask("SELECT 1 FROM pg_replication_slots")
            == []
            == self.ask(f"SELECT 1 FROM pg_stat_activity WHERE {OURS}")
        )

    def whole(self, acknowledged: Acknowledged) -> None:
        with self.load.connect() as connection:
            verdict = oracle.check(connection, acknowledged)
        assert verdict.ok, verdict.findings
        assert verdict.found > 0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with in_memory() as lab, Spawner(lab.environment()) as spawner:
        disk = lab.btrfs(1536 * MIB)
        data, log, space = (disk.subvolume(name) for name in ("data", "log", "space"))
        cluster = lab.cluster(data, log, options=SETTINGS)
        give_to_owner(space)
        cluster.start()
        with Load(cluster, f"{lab.folder}/load", writers=2) as load:
            with load.connect() as connection:
                connection.execute(f"CREATE TABLESPACE space LOCATION '{space}'")
                connection.execute("ALTER TABLE accounts SET TABLESPACE space")
                connection.execute("ALTER TABLE commits SET TABLESPACE space")
            yield World(lab, spawner, cluster, load)


def test_under_load_and_checkpoints_and_back_again(world: World) -> None:
    load, ref = world.load, world.cluster.ref
    load.wait(50)
    with storm(world.cluster):
        taken = world.do("backup", ref).document
    assert (taken["plan"]["hold"], taken["consistency"]) == ("log-bridge", "application")
    assert taken["window"]["frozen_ms"] == 0
    assert [each["stage"] for each in taken["plan"]["placements"]] == [1, 2, 1]
    (began,) = [each["started"] for each in taken["phases"] if each["name"] == "snapshot"]
    before = load.acknowledged(before=boot_s_of(began))
    until(world.quiet, 10.0)
    with open(f"{world.lab.disks[0].path}/.slackwater/{taken['replica']}/RECOVER.txt", encoding="utf-8") as f:
        assert "START WAL LOCATION" in f.read()
    load.wait(20)
    first = world.timeline()
    load.pause()
    later = load.acknowledged()
    with load.connect() as connection:
        connection.execute("DROP TABLE journal")
    undo = world.do("recover", ref, "--yes").document
    assert undo["replica"] == taken["replica"]
    world.whole(before)
    second = world.timeline()
    assert second > first
    assert world.quiet()
    left = {each for each in os.listdir(world.cluster.data_dir) if "label" in each or "_map" in each}
    assert not left
    load.resume()
    load.wait(20)
    load.pause()
    world.whole(load.acknowledged())
    world.do("recover", ref, "--undo", "--yes")
    assert world.timeline() == first
    with load.connect() as connection:
        assert connection.execute("SELECT to_regclass('journal')").fetchone() == (None,)
        assert connection.execute("SELECT count(*) FROM commits").fetchall()[0][0] >= sum(
            span.last - span.first + 1 for spans in later.values() for span in spans
        )
    world.do("recover", ref, "--replica", str(taken["replica"]), "--yes")
    world.whole(before)
    assert world.timeline() > second
    load.resume()
    load.wait(20)


@pytest.mark.parametrize("fault", ["the connection is ended", "the server is killed", "the command is killed"])
def test_what_ends_the_bridge_between_the_stages_ends_the_session(world: World, fault: str) -> None:
    kept, seen = world.do("replica", "list").document["replicas"], look_quietly(world)
    while not strike(world, session := world.spawner.spawn("backup", world.cluster.ref), fault):
        world.do("replica", "delete", str(obeyed(session.answer()).document["replica"]), "--yes")
    if fault != "the command is killed":
        answer = session.answer()
        assert answer.status == 1, answer
        assert answer.document["error"]["data"]
    if not world.cluster.running:
        world.cluster.start()
    world.do("reconcile")
    until(world.quiet, 10.0)
    assert world.do("replica", "list").document["replicas"] == kept
    assert look_quietly(world) == seen
    world.load.wait(20)


def look_quietly(world: World) -> frozenset[str]:
    return frozenset(line for line in look(world.lab) if line.startswith(("place", "subvolume", "mount")))


def strike(world: World, session: Command, fault: str) -> bool:
    """Wait for the bridge, and strike while the command stands still; False when it had come to the bridge's end."""
    with world.cluster.connect(autocommit=True) as connection:
        while not (found := connection.execute(f"SELECT pid FROM pg_stat_activity WHERE {OURS}").fetchall()):
            if session.poll() is not None:
                return False
        session.send(signal.SIGSTOP)
        in_time = connection.execute(f"SELECT pid FROM pg_stat_activity WHERE {OURS}").fetchall() == found
        if in_time and fault == "the connection is ended":
            connection.execute("SELECT pg_terminate_backend(%s)", found[0])
    if in_time and fault == "the server is killed":
        world.cluster.kill9()
    session.send(signal.SIGKILL if in_time and fault == "the command is killed" else signal.SIGCONT)
    return in_time
