# SPDX-License-Identifier: Apache-2.0
"""A specification that keeps its log, as its user sees it: the window opens, is cut, and closes; what goes is said."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from slackwater.demo.cluster import Cluster, give_to_owner
from slackwater.demo.lab import Answer, Lab
from tests.e2e.luck_support import MIB, NAME, in_memory, obeyed, spawned, write_specification
from tests.e2e.spawner import Spawner

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

SMALL_LOG = {"max_wal_size": "32MB", "min_wal_size": "32MB", "max_slot_wal_keep_size": "512MB"}
"""What the server keeps by itself, and what it may keep for us."""


@dataclass
class World:
    """A quiet database whose log is kept."""

    lab: Lab
    spawner: Spawner
    cluster: Cluster

    def do(self, *words: str) -> Answer:
        return obeyed(spawned(self.spawner, *words))

    def specify(self, recovery: str) -> None:
        write_specification(self.lab, NAME, self.cluster.name, recovery=recovery, replica="keep = 6")

    def back_up(self) -> str:
        return str(self.do("backup", NAME).document["replica"])

    def sql(self, *orders: str) -> str:
        with self.cluster.connect(autocommit=True) as connection:
            for order in orders:
                row = connection.execute(order.encode())
            found = row.fetchone() if row.description else None
        return str(found[0]) if found else ""

    def write(self) -> None:
        """Some segments, which the server recycles when nobody keeps them."""
        fill = "SELECT count(pg_logical_emit_message(false, 'x', repeat('x', 1048560))) FROM generate_series(1, 32)"
        for _ in range(2):
            self.sql("INSERT INTO t VALUES (1)", fill, "CHECKPOINT")

    def slots(self) -> str:
        return self.sql("SELECT coalesce(string_agg(wal_status, ' '), '') FROM pg_replication_slots")

    def windows(self) -> list[dict[str, object]]:
        listed: list[dict[str, object]] = self.do("recover", NAME, "--list").document["windows"]
        (status,) = self.do("status", NAME).document["specifications"]
        assert [each["replica"] for each in status["windows"]] == [each["replica"] for each in listed]
        return listed

    def notes(self, session: str) -> str:
        shown = self.do("session", "show", session).document["session"]
        return " ".join(str(each["text"]) for each in shown["messages"])


SLOT = 'logs = "slot"\nlogs_max = "512MiB"\n'


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with in_memory() as lab, Spawner(lab.environment()) as spawner:
        give_to_owner(archive := f"{lab.folder}/archive")
        kept = {"archive_mode": "on", "archive_command": f"cp %p {archive}/%f"}
        cluster = lab.cluster(lab.btrfs(1536 * MIB).subvolume("data"), options={**SMALL_LOG, **kept})
        cluster.start()
        made = World(lab, spawner, cluster)
        made.sql("CREATE TABLE t (i int)")
        made.specify(SLOT)
        yield made


def test_the_window_is_shown_and_who_cuts_it_says_so(world: World) -> None:
    first = world.back_up()
    world.write()
    second = world.back_up()
    world.write()
    third = world.back_up()
    world.write()
    assert [(each["replica"], each["until"]) for each in world.windows()] == [
        (third, None), (second, None), (first, None),
    ]  # fmt: skip
    shown = world.lab.slackwater("status", NAME, json=False).output
    assert "to the last commit" in shown
    session = world.do("replica", "delete", second, "--yes").document["session"]
    assert "can be recovered to any more" in world.notes(session)
    last, cut = world.windows()
    assert (last["replica"], last["until"]) == (third, None)
    assert cut["replica"] == first
    assert cut["until"] is not None
    assert str(cut["until"]) < str(last["since"])
    assert cut["why"]
    # Rotation says what it cuts, and keeps to what it was asked for.
    write_specification(world.lab, NAME, world.cluster.name, recovery=SLOT, replica="keep = 1")
    told = world.do("backup", NAME).document
    assert {each["replica"] for each in told["rotated"]} == {first, third}
    assert "can be recovered to any more" in world.notes(told["session"])


def test_at_the_bound_the_window_closes_and_opens_again(world: World) -> None:
    world.specify(SLOT)
    world.back_up()
    world.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '48MB'", "SELECT pg_reload_conf()")
    for _ in range(3):
        world.write()
    assert world.slots() == "lost"
    assert world.windows()[0]["why"]
    assert "closed" in world.lab.slackwater("status", NAME, json=False).output
    refused = spawned(world.spawner, "recover", NAME, "--to", "latest", "--preview")
    assert refused.status == 5
    codes = [each["code"] for each in world.do("backup", NAME, "--preview").document["findings"]]
    assert "log-lost" in codes
    world.back_up()
    assert world.slots() == "reserved"
    assert world.windows()[0]["until"] is None
    world.sql("ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")


def test_what_may_not_be_bounded_is_refused_before(world: World) -> None:
    world.specify('logs = "slot"\nlogs_max = "1MiB"\n')
    refused = spawned(world.spawner, "backup", NAME)
    assert (refused.status, refused.document["error"]["code"]) == (5, "log-unbounded")


def test_what_was_set_aside_goes_when_it_is_old(world: World) -> None:
    world.specify(SLOT)
    world.back_up()
    undo = str(world.do("recover", NAME, "--yes").document["undo_replica"])
    assert world.slots() == "reserved"  # the recovered server keeps its log
    (status,) = world.do("status", NAME).document["specifications"]
    assert [each["replica"] for each in status["undo"]] == [undo]
    assert not world.do("reconcile").document["expired"]
    world.specify(SLOT + 'undo_keep = "100ms"\n')
    time.sleep(0.2)
    assert not world.do("reconcile").document["expired"]  # nothing but the clock says that so much time has passed
    world.do("replica", "pin", undo)
    world.back_up()
    time.sleep(0.2)
    assert not world.do("reconcile").document["expired"]
    world.do("replica", "unpin", undo)
    assert world.do("reconcile").document["expired"] == [undo]
    assert undo not in [each["id"] for each in world.do("replica", "list").document["replicas"]]


def test_a_slot_that_nobody_asks_for_is_dropped(world: World) -> None:
    world.specify(SLOT)
    world.back_up()
    world.sql("SELECT pg_create_physical_replication_slot('theirs')")
    world.specify('logs = "none"\n')
    (told,) = world.do("reconcile").document["logs"]
    assert "slackwater_log_" in told
    assert world.sql("SELECT string_agg(slot_name, ' ') FROM pg_replication_slots") == "theirs"


def test_an_archive_is_asked_for_what_the_server_has_recycled(world: World) -> None:
    world.specify('logs = "archive"\n')
    refused = spawned(world.spawner, "backup", NAME)
    assert (refused.status, refused.document["error"]["code"]) == (5, "no-archive")
    archive = f"{world.lab.folder}/archive"
    assert archive in refused.document["error"]["hint"]
    world.specify(f'logs = "archive"\narchive = "cp {archive}/%f %p"\n')
    replica = world.back_up()
    for _ in range(3):
        world.write()
    world.sql("CREATE TABLE gone (i int)")
    assert world.windows()[0]["until"] is None
    before = world.sql("SELECT count(*) FROM t")
    with world.cluster.connect() as connection, connection.transaction():
        row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        connection.execute("DROP TABLE gone")
    assert row is not None
    os.rename(archive, f"{archive}.away")
    away = spawned(world.spawner, "recover", NAME, "--to", f"before:{row[0]}", "--yes")
    assert (away.status, away.document["error"]["code"]) == (5, "unreachable")
    assert "cannot be asked" in away.document["error"]["sentence"]
    os.rename(f"{archive}.away", archive)
    done = world.do("recover", NAME, "--to", f"before:{row[0]}", "--yes").document
    assert done["replica"] == replica
    assert world.sql("SELECT count(*) FROM t") == before
    assert world.sql("SELECT to_regclass('gone') IS NOT NULL") == "True"
