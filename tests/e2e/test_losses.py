# SPDX-License-Identifier: Apache-2.0
"""A mistake is found by `recover --list`, and what it shows is typed as it stands: on Btrfs, and on XFS."""

import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from slackwater.demo.cluster import Cluster
from slackwater.demo.lab import Lab
from tests.e2e.luck_support import MIB, NAME, in_memory, obeyed, reach, spawned, until, write_specification
from tests.e2e.spawner import Spawner
from tests.e2e.test_logs_kept import SMALL_LOG

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

PASSING = re.compile(r"(-wal|-shm)$|/slackwater/guard/|pg_ctlcluster")


@dataclass
class World:
    """Two databases, of which nobody takes care."""

    lab: Lab
    spawner: Spawner
    cluster: Cluster
    replica: str = ""

    def do(self, *words: str) -> dict[str, Any]:
        return obeyed(spawned(self.spawner, *words)).document

    def sql(self, *orders: str, database: str = "postgres") -> str:
        with self.cluster.connect(database, autocommit=True) as connection:
            for order in orders:
                row = connection.execute(order.encode())
            found = row.fetchone() if row.description else None
        return str(found[0]) if found else ""

    def losses(self) -> dict[str, list[str]]:
        """What `--list` shows: targets, and what each goes before."""
        listed = self.do("recover", NAME, "--list")
        assert listed["unnamed"] == ""
        return {each["target"]: each["what"] for each in listed["losses"]}

    def left(self) -> frozenset[str]:
        """What is there, but for what comes and goes by itself."""
        return frozenset(each for each in self.lab.inventory().lines if not PASSING.search(each))


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with in_memory() as lab, Spawner(lab.environment()) as spawner:
        on_btrfs = request.param == "btrfs"
        cluster = lab.cluster(
            lab.btrfs(1536 * MIB).subvolume("data") if on_btrfs else f"{lab.xfs(2048 * MIB).path}/main",
            options=SMALL_LOG,
        )
        cluster.start()
        made = World(lab, spawner, cluster)
        write_specification(lab, NAME, cluster.name, recovery='logs = "slot"\nlogs_max = "512MiB"\n')
        made.sql("CREATE DATABASE shop", "CREATE TABLE orders AS SELECT generate_series(1, 3000) AS i")
        made.sql("CREATE TABLE payments AS SELECT generate_series(1, 7) AS i", database="shop")
        made.replica = made.do("backup", NAME)["replica"]
        yield made


@pytest.mark.parametrize("world", ["btrfs", "xfs"], indirect=True)
def test_what_was_lost_is_named_and_back_again(world: World) -> None:
    assert world.losses() == {}
    world.sql("VACUUM FULL payments", database="shop")
    world.sql("TRUNCATE payments", "INSERT INTO payments VALUES (0)", "DROP TABLE payments", database="shop")
    world.sql("DELETE FROM orders WHERE i <= 2000", "DROP DATABASE shop")
    losses = world.losses()
    assert list(losses.values()) == [
        ["dropped database shop"],
        ["deleted 2,000 rows of public.orders in postgres"],
        ["dropped public.payments in shop"],
        ["emptied public.payments in shop"],
    ]
    shown = world.lab.slackwater("recover", NAME, "--list", json=False).output
    for target, (what,) in losses.items():
        assert re.search(rf"{target} +{re.escape(what[:15])}", shown)
    counts = []
    for target in losses:
        world.do("recover", NAME, "--to", target, "--yes")
        orders = world.sql("SELECT count(*) FROM orders")
        databases = world.sql("SELECT count(*) FROM pg_database WHERE datname = 'shop'")
        table = "SELECT to_regclass('payments') IS NOT NULL"
        there = databases == "1" and world.sql(table, database="shop") == "True"
        counts.append((orders, there and world.sql("SELECT count(*) FROM payments", database="shop")))
    assert counts == [("1000", False), ("3000", False), ("3000", "1"), ("3000", "7")]
    kinds = [each["kind"] for each in world.do("session", "list")["sessions"]]
    assert "listing" in kinds


@pytest.mark.parametrize("world", ["btrfs"], indirect=True)
def test_it_leaves_nothing_also_when_it_is_killed(world: World) -> None:
    world.sql("DELETE FROM orders")
    before = world.left()
    assert ["deleted 3,000 rows of public.orders in postgres"] in world.losses().values()
    until(lambda: world.left() == before)
    for event, text, sign in (("phase", "clone", signal.SIGKILL), ("phase", "start", signal.SIGKILL),
                              ("phase", "start", signal.SIGINT)):  # fmt: skip
        session = world.spawner.spawn("recover", NAME, "--list", "--progress", "json")
        reach(session, event, text)
        time.sleep(0.1)
        session.send(sign)
        session.wait()
        world.do("reconcile")
        until(lambda: world.left() == before)


@pytest.mark.parametrize("world", ["btrfs"], indirect=True)
def test_where_nobody_can_be_asked_numbers_are_shown_and_why(world: World) -> None:
    world.sql("DROP TABLE orders")
    lock = world.spawner.spawn("backup", NAME, "--progress", "json")
    reach(lock, "phase", "prepare")
    lock.send(signal.SIGSTOP)
    try:
        listed = world.do("recover", NAME, "--list")
    finally:
        lock.send(signal.SIGCONT)
        lock.wait()
    assert "Another session runs" in listed["unnamed"]
    assert re.fullmatch(r"removed file \d+ of database \d+", listed["losses"][0]["what"][0])
