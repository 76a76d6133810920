# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL on XFS, where each file has an instant of its own: backed up at work, recovered, undone, and refused."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from slackwater.demo import oracle
from slackwater.demo.cluster import Cluster
from slackwater.demo.lab import Lab
from slackwater.demo.load import Acknowledged, Load
from slackwater.system.command import run
from tests.e2e.luck_support import MIB, against, in_memory, look, obeyed, spawned
from tests.e2e.spawner import Spawner

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with in_memory() as made:
        for _ in range(3):
            made.xfs(1024 * MIB)
        yield made


def do(spawner: Spawner, *words: str) -> dict[str, Any]:
    return obeyed(spawned(spawner, *words)).document


def whole(load: Load, acknowledged: Acknowledged) -> None:
    with load.connect() as connection:
        verdict = oracle.check(connection, acknowledged)
    assert verdict.ok, verdict.findings
    assert verdict.found > 0


def lose_a_table_and_have_it_back(lab: Lab, spawner: Spawner, cluster: Cluster, volumes: int) -> str:
    """The main job: nothing that was acknowledged before the backup is missing; undone, nothing of after it is."""
    with Load(cluster, f"{lab.folder}/load-{cluster.tag}", writers=2) as load:
        load.wait(30)
        before = load.acknowledged()
        taken = do(spawner, "backup", cluster.ref)
        assert (taken["outcome"], taken["consistency"]) == ("completed", "application")
        assert [each["provider"] for each in taken["plan"]["volumes"]] == ["reflink"] * volumes
        load.wait(10)
        load.pause()
        with load.connect() as connection:
            connection.execute("CREATE TABLE later ()")
            connection.execute("DROP TABLE journal")
        mounted = look(lab)
        do(spawner, "recover", cluster.ref, "--yes")
        whole(load, before)
        assert {each for each in mounted ^ look(lab) if each.startswith(("mount", "loop"))} == set()
        load.resume()
        load.wait(10)
        load.pause()
        whole(load, load.acknowledged())
        do(spawner, "recover", cluster.ref, "--undo", "--yes")
        with load.connect() as connection:
            row = connection.execute("SELECT to_regclass('journal'), to_regclass('later')").fetchone()
            assert row == (None, "later")
        do(spawner, "recover", cluster.ref, "--replica", str(taken["replica"]), "--yes")
        whole(load, before)
    assert do(spawner, "catalog", "check")["differences"] == []
    return str(taken["plan"]["hold"])


def test_data_and_log_in_one_directory(lab: Lab, spawner: Spawner) -> None:
    cluster = lab.cluster(f"{lab.xfs_disks[0].path}/main")
    cluster.start()
    hold = lose_a_table_and_have_it_back(lab, spawner, cluster, 1)
    assert hold == "log-bridge"
    cluster.stop()
    cold = do(spawner, "backup", cluster.ref)
    assert cold["plan"]["hold"] == "cold"
    for replica in do(spawner, "replica", "list")["replicas"]:
        do(spawner, "replica", "delete", replica["id"], "--yes")
    assert sorted(os.listdir(lab.xfs_disks[0].path)) == ["main"]


def test_data_log_and_tablespace_on_three_filesystems(lab: Lab, spawner: Spawner) -> None:
    data, log, space = (f"{disk.path}/{name}" for disk, name in zip(lab.xfs_disks, ("pg", "wal", "space"), strict=True))
    cluster = lab.wheel_cluster(18, data, log)
    run("install", "-d", "-o", "postgres", "-g", "postgres", "-m", "700", space)
    cluster.start()
    with cluster.connect(autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE space LOCATION '{space}'")
        connection.execute("ALTER SYSTEM SET default_tablespace = 'space'")
        connection.execute("SELECT pg_reload_conf()")
    hold = lose_a_table_and_have_it_back(lab, spawner, cluster, 3)
    assert hold == "log-bridge"
    cluster.stop()


def test_what_could_not_be_recovered_is_refused_before_and_says_what_to_do(lab: Lab, spawner: Spawner) -> None:
    """The data directory is the top of its filesystem: no clone can take its place."""
    disk = lab.xfs(512 * MIB)
    cluster = lab.wheel_cluster(18, disk.path)
    cluster.start()
    found = against(spawned(spawner, "backup", cluster.ref, "--preview"), "top-level")
    assert "into a directory below" in found["hint"]
    cluster.stop()
