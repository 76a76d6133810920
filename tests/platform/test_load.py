# SPDX-License-Identifier: Apache-2.0
"""The load counts what was acknowledged, and the oracle finds what is missing, torn or changed."""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from slackwater.demo import ledger
from slackwater.demo.cluster import DebianCluster
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Lab
from slackwater.demo.load import Load, LoadError
from slackwater.demo.oracle import Verdict, check
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.command import run

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@pytest.fixture
def load(module_lab: Lab, module_cluster: DebianCluster) -> Iterator[Load]:
    folder = os.path.join(module_lab.folder, f"load-{time.monotonic_ns()}")
    with module_cluster.connect(autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {ledger.DATABASE} WITH (FORCE)")
    with Load(module_cluster, folder) as load:
        load.wait(100)
        yield load


def judge(load: Load, before: float | None = None) -> Verdict:
    with load.connect() as connection:
        return check(connection, load.acknowledged(before))


def damage(load: Load, *statements: str) -> None:
    with load.connect() as connection:
        for statement in statements:
            connection.execute(statement)


def test_all_that_was_acknowledged_is_there_while_the_load_goes_on(load: Load) -> None:
    verdict = judge(load)
    assert verdict.ok, verdict
    assert verdict.found >= 100
    assert (verdict.missing, verdict.torn) == (0, 0)
    load.wait(10)


def test_the_oracle_has_amcheck(load: Load) -> None:
    with load.connect() as connection:
        assert connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'amcheck'").fetchone()


def test_acknowledged_before_a_moment_is_what_was_there_then(load: Load) -> None:
    load.pause()
    moment, count = SYSTEM_CLOCK.boot_s(), load.count()
    assert sum(span.last - span.first + 1 for spans in load.acknowledged().values() for span in spans) == count
    load.resume()
    load.wait(50)
    assert sum(span.last for spans in load.acknowledged(moment).values() for span in spans) == count


def test_it_goes_on_after_the_server_was_killed_and_nothing_is_lost(load: Load, module_cluster: DebianCluster) -> None:
    moment = SYSTEM_CLOCK.boot_s()
    module_cluster.kill9()
    before = load.acknowledged()
    time.sleep(0.5)
    module_cluster.start()
    load.wait(20)
    with load.connect() as connection:
        verdict = check(connection, before)
    assert verdict.ok, verdict
    assert judge(load).ok
    assert load.longest_gap_s(moment) > 0.5
    assert max(span.epoch for spans in load.acknowledged().values() for span in spans) >= 2


def test_a_frozen_server_shows_as_a_gap_and_not_as_a_loss(load: Load, module_cluster: DebianCluster) -> None:
    moment = SYSTEM_CLOCK.boot_s()
    pids = module_cluster.pids()
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.1)
        count = load.count()
        time.sleep(0.7)
        assert load.count() == count
        with pytest.raises(LoadError):
            load.pause(timeout_s=0.1)
    finally:
        load.resume()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    load.wait(20)
    assert 0.7 < load.longest_gap_s(moment) < 5
    assert judge(load).ok


def test_a_recovery_sets_commits_aside_and_its_undo_brings_them_back(lab: Lab, module_lab: Lab) -> None:
    """The server's subvolume is turned back by hand: what was acknowledged after the snapshot is not asked for any
    more.
    """
    disk = module_lab.btrfs()
    cluster = module_lab.wheel_cluster(17, disk.subvolume("pg"))
    cluster.start()
    with Load(cluster, os.path.join(lab.folder, "load")) as load:
        load.wait(100)
        taken = SYSTEM_CLOCK.boot_s()
        run("btrfs", "subvolume", "snapshot", f"{disk.path}/pg", f"{disk.path}/replica")
        load.wait(100)
        cluster.stop("immediate")
        stopped = SYSTEM_CLOCK.boot_s()
        os.rename(f"{disk.path}/pg", f"{disk.path}/undo")
        os.rename(f"{disk.path}/replica", f"{disk.path}/pg")
        os.unlink(f"{disk.path}/pg/postmaster.pid")
        cluster.start()
        load.wait(50)
        with load.connect() as connection:
            assert check(connection, load.acknowledged(taken)).ok
            assert check(connection, load.acknowledged()).ok
            too_much = check(connection, load.acknowledged(stopped))
        assert too_much.missing >= 80, "commits that were set aside are missing, if one asks for them"
        cluster.stop("immediate")
        os.rename(f"{disk.path}/pg", f"{disk.path}/gone")
        os.rename(f"{disk.path}/undo", f"{disk.path}/pg")
        cluster.start()
        load.wait(50)
        with load.connect() as connection:
            assert check(connection, load.acknowledged(stopped)).ok
            assert check(connection, load.acknowledged()).ok
    assert load.acknowledged()[1][0].first == 1


def test_a_missing_commit_is_reported(load: Load) -> None:
    load.pause()
    damage(load, "DELETE FROM commits WHERE teller = 1 AND number = 7")
    verdict = judge(load)
    assert (verdict.ok, verdict.missing) == (False, 1)


def test_commits_missing_at_the_end_are_reported(load: Load) -> None:
    """Neither a gap nor a contradiction: only who was told of them knows that they were there."""
    load.pause()
    damage(
        load,
        "CREATE TEMP TABLE gone AS SELECT max(number) AS number FROM commits WHERE teller = 2",
        "UPDATE accounts SET balance = balance - delta FROM journal NATURAL JOIN gone"
        " WHERE teller = 2 AND account = id",
        "DELETE FROM journal USING gone WHERE teller = 2 AND journal.number = gone.number",
        "DELETE FROM commits USING gone WHERE teller = 2 AND commits.number = gone.number",
    )
    verdict = judge(load)
    assert (verdict.missing, verdict.torn) == (1, 0), verdict


@pytest.mark.parametrize(
    ("sabotage", "finding"),
    [
        ("UPDATE accounts SET balance = balance + 1 WHERE id = 5", "Money"),
        ("UPDATE journal SET delta = delta + 1 WHERE teller = 1 AND number = 4", "balance is not the sum"),
        ("DELETE FROM journal WHERE teller = 1 AND number = 4", "in part"),
        ("DELETE FROM commits WHERE teller = 1 AND number = 1", "skips"),
        ("DELETE FROM accounts WHERE id = 9", "too few"),
        ("UPDATE commits SET epoch = 99 WHERE teller = 1 AND number = 3", "missing"),
        ("DROP TABLE accounts", "cannot read"),
    ],
)
def test_a_changed_row_is_reported(load: Load, sabotage: str, finding: str) -> None:
    load.pause()
    damage(load, sabotage)
    verdict = judge(load)
    assert not verdict.ok
    assert any(finding in line for line in verdict.findings), verdict


@pytest.mark.parametrize("checksums", [False, True])
@pytest.mark.parametrize("part", ["accounts", "accounts_pkey"])
def test_a_torn_page_is_reported(lab: Lab, disk: BtrfsDisk, checksums: bool, part: str) -> None:
    cluster = lab.wheel_cluster(18, disk.subvolume("pg"), checksums=checksums)
    cluster.start()
    with Load(cluster, os.path.join(lab.folder, "load")) as load:
        load.wait(100)
        load.pause()
        with load.connect() as connection:
            path = connection.execute("SELECT pg_relation_filepath(%s)", (part,)).fetchone()
            assert check(connection, load.acknowledged()).ok
    assert path is not None
    cluster.stop()
    tear(os.path.join(cluster.data_dir, path[0]))
    cluster.start()
    with load.connect() as connection:
        verdict = check(connection, load.acknowledged())
    assert verdict.torn > 0, verdict
    assert not verdict.ok


def tear(path: str) -> None:
    """Turn over every bit of the second half of each page but the first, which an index keeps for itself."""
    with open(path, "r+b") as f:
        for page in range(1, os.path.getsize(path) // 8192):
            f.seek(page * 8192 + 4096)
            half = f.read(4096)
            f.seek(page * 8192 + 4096)
            f.write(bytes(byte ^ 0xFF for byte in half))
