# SPDX-License-Identifier: Apache-2.0
"""The whole way on every version of PostgreSQL that is here, and an archive that never refuses."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from slackwater.demo import oracle
from slackwater.demo.cluster import Cluster
from slackwater.demo.lab import Lab
from slackwater.demo.load import Acknowledged, Load
from tests.e2e.luck_support import MIB, in_memory, obeyed, spawned, until
from tests.e2e.spawner import Spawner

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with in_memory() as made:
        made.btrfs(1024 * MIB)
        yield made


@pytest.mark.parametrize("major", [15, 17, 18])
def test_a_lost_table_is_back_and_gone_again(lab: Lab, spawner: Spawner, major: int) -> None:
    path = lab.disks[0].subvolume(f"pg{major}")
    cluster: Cluster = lab.cluster(path) if major == 15 else lab.wheel_cluster(major, path)
    cluster.start()
    with Load(cluster, f"{lab.folder}/load{major}", writers=1) as load:
        load.wait(30)
        before = load.acknowledged()
        taken = do(spawner, "backup", cluster.ref)
        assert (taken["outcome"], taken["consistency"]) == ("completed", "application")
        load.wait(10)
        load.pause()
        with load.connect() as connection:
            connection.execute("DROP TABLE journal")
        first = timeline(cluster)
        back = do(spawner, "recover", cluster.ref, "--yes")
        assert back["replica"] == taken["replica"]
        whole(load, before)
        second = timeline(cluster)
        assert second > first
        load.resume()
        load.wait(10)
        load.pause()
        whole(load, load.acknowledged())
        do(spawner, "recover", cluster.ref, "--undo", "--yes")
        with load.connect() as connection:
            assert connection.execute("SELECT to_regclass('journal')").fetchone() == (None,)
        assert timeline(cluster) == first, "what was set aside goes on where it was"
        do(spawner, "recover", cluster.ref, "--replica", str(taken["replica"]), "--yes")
        whole(load, before)
        assert timeline(cluster) > second, "no timeline is used twice"
    cluster.stop()


def do(spawner: Spawner, *words: str) -> dict[str, Any]:
    return obeyed(spawned(spawner, *words)).document


def whole(load: Load, acknowledged: Acknowledged) -> None:
    """Everything acknowledged is there, and nothing is torn."""
    with load.connect() as connection:
        verdict = oracle.check(connection, acknowledged)
    assert verdict.ok, verdict.findings
    assert verdict.found > 0


def timeline(cluster: Cluster) -> int:
    with cluster.connect() as connection:
        ((name,),) = connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn())").fetchall()
    return int(name[:8], 16)


def test_an_archive_that_refuses_to_overwrite_never_has_to(lab: Lab, spawner: Spawner) -> None:
    archive = f"{lab.folder}/archive"
    os.mkdir(archive)
    os.chmod(archive, 0o777)  # noqa: S103
    command = f"test ! -f {archive}/%f && cp %p {archive}/%f"
    options = {"archive_mode": "on", "archive_command": command, "wal_level": "replica"}
    cluster = lab.cluster(lab.disks[0].subvolume("archived"), options=options)
    cluster.start()
    write_and_archive(cluster, archive)
    taken = do(spawner, "backup", cluster.ref)["replica"]
    write_and_archive(cluster, archive)
    for words in (("--yes",), ("--undo", "--yes"), ("--replica", taken, "--yes"), ("--undo", "--yes"), ("--yes",)):
        do(spawner, "recover", cluster.ref, *words)
        write_and_archive(cluster, archive)
    assert "archive command failed" not in cluster.log_tail(10_000)
    timelines = {name[:8] for name in os.listdir(archive)}
    assert len(timelines) == 4, "the first, and one for each recovery that was no undo"
    cluster.stop()


def write_and_archive(cluster: Cluster, archive: str) -> None:
    """Commit something, and wait until its segment is in the archive."""
    with cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS written (at timestamptz)")
        connection.execute("INSERT INTO written VALUES (now())")
        ((segment,),) = connection.execute("SELECT pg_walfile_name(pg_current_wal_lsn())").fetchall()
        connection.execute("SELECT pg_switch_wal()")
        until(lambda: os.path.exists(f"{archive}/{segment}"), 20.0)
        failures = connection.execute("SELECT failed_count FROM pg_stat_archiver").fetchall()
    assert failures == [(0,)]
