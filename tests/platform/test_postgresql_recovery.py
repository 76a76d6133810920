# SPDX-License-Identifier: Apache-2.0
"""A copy made ready, started and confirmed: nothing lost, a timeline of its own, and an archive that is not upset."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from slackwater.errors import RefusedError, SlackwaterError
from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Facts
from slackwater.writers._postgresql.controlfile import format_lsn, parse_lsn
from slackwater.writers.postgresql import PostgresqlWriter
from tests.platform.postgresql_support import OWNER, VERSIONS, Cluster, as_owner, identify, new_cluster

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

WRITER = PostgresqlWriter()


class Recovery:
    """A cluster, and what a session would do with it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.component = identify(WRITER, cluster)
        self.known: list[Facts] = []
        self.copies = 0

    def replica(self) -> tuple[Path, Facts]:
        """An image of one instant of a server that writes, and what was seen just before."""
        expected = WRITER.prepare(self.component)
        self.copies += 1
        with self.cluster.still():
            return self.cluster.copy_to(self.cluster.home / f"replica{self.copies}"), expected

    def switch(self, replica: Path) -> Facts:
        """Rewrite a clone, and put it in the place of the data directory."""
        clone, data = self.cluster.home / "clone", self.cluster.data
        subprocess.run(["cp", "-a", "--", str(replica), str(clone)], check=True)
        learnt = rewrite(self.component, clone, self.known)
        self.known.append(learnt)
        WRITER.stop_effect(self.component).make()
        self.copies += 1
        data.rename(self.cluster.home / f"aside{self.copies}")
        clone.rename(data)
        return learnt

    def recover(self, replica: Path, expected: Facts) -> Facts:
        learnt = self.switch(replica)
        WRITER.start_effect(self.component).make()
        reached = WRITER.confirm(self.component, {**expected, **learnt}, timeout_s=20)
        WRITER.settle_effect(self.component).make()
        return reached


def rewrite(component: Component, clone: Path, known: Sequence[Facts] = ()) -> Facts:
    """Through a descriptor, as a provider that has the clone out of everybody's sight hands it out."""
    fd = os.open(clone, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return WRITER.rewrite(component, {component.files[0].path: f"/proc/self/fd/{fd}"}, {}, known, "2026-11-22-1")
    finally:
        os.close(fd)


@pytest.fixture(params=VERSIONS)
def any_version(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with new_cluster(request.param) as cluster:
        cluster.initdb()
        yield cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with new_cluster() as cluster:
        cluster.initdb()
        yield cluster


def test_a_hot_image_recovers_each_time_on_a_timeline_nobody_used(any_version: Cluster) -> None:
    any_version.start()
    any_version.sql("create table t (i int)")
    any_version.sql("select pg_create_physical_replication_slot('pinned', true)")
    recovery = Recovery(any_version)
    any_version.sql("insert into t select generate_series(1, 1000)")
    replica, expected = recovery.replica()
    any_version.sql("drop table t")

    first = recovery.recover(replica, expected)
    assert first["timeline"] == 2
    assert any_version.value("select count(*) from t") == 1000
    assert any_version.sql("select * from pg_replication_slots") == []
    assert recovery.recover(replica, expected)["timeline"] == 3
    # The third time nothing remembers but the live log.
    recovery.known.clear()
    assert recovery.recover(replica, expected)["timeline"] == 4
    assert any_version.value("select count(*) from t") == 1000

    left = {each.name for each in any_version.data.iterdir()}
    assert not left & {"slackwater.histories", "recovery.signal", "standby.signal"}
    assert "slackwater" not in (any_version.data / "postgresql.auto.conf").read_text()
    any_version.stop()
    any_version.start()
    assert any_version.value("show hot_standby") == "on"
    assert any_version.value("select count(*) from pg_settings where pending_restart") == 0


def test_a_cold_copy_also_gets_a_timeline_of_its_own(cluster: Cluster) -> None:
    cluster.start()
    cluster.sql("create table t as select generate_series(1, 10) as i")
    recovery = Recovery(cluster)
    cluster.stop()
    replica = cluster.copy_to(cluster.home / "cold")
    cold = Component(
        recovery.component.ref, "stopped", running=False, files=recovery.component.files, survives_power_cut=True,
        facts=recovery.component.facts,
    )  # fmt: skip
    expected = WRITER.prepare(cold)
    assert recovery.recover(replica, expected)["timeline"] == 2
    assert cluster.value("select count(*) from t") == 10


def test_without_a_rewrite_history_is_forked_under_the_same_number(cluster: Cluster) -> None:
    """The sabotaged twin of the two above: what confirm would have to find."""
    cluster.start()
    recovery = Recovery(cluster)
    replica, expected = recovery.replica()
    learnt = recovery.switch(replica)
    (cluster.data / "recovery.signal").unlink()
    WRITER.start_effect(recovery.component).make()
    with pytest.raises(SlackwaterError) as caught:
        WRITER.confirm(recovery.component, {**expected, **learnt}, timeout_s=10)
    assert caught.value.reason == "wrong-timeline"
    assert "timeline 1, and 2 was expected" in caught.value.sentence


def archived(cluster: Cluster, at_least: int) -> list[str]:
    """Wait until the archiver has done something new, and see that nothing failed."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        done, failed, last = cluster.sql("select archived_count, failed_count, last_failed_wal from pg_stat_archiver")[
            0
        ]
        assert failed == 0, last
        if int(str(done)) >= at_least:
            return sorted(os.listdir(cluster.home / "archive"))
        time.sleep(0.05)
    raise AssertionError(f"nothing was archived: {sorted(os.listdir(cluster.home / 'archive'))}")


def archiving(cluster: Cluster) -> Recovery:
    archive = cluster.home / "archive"
    archive.mkdir()
    os.chown(archive, OWNER.pw_uid, OWNER.pw_gid)
    command = f"test ! -f {archive}/%f && cp %p {archive}/%f"
    cluster.configure(f"archive_mode = on\narchive_command = '{command}'\nwal_level = replica\n")
    cluster.start()
    cluster.sql("create table t (i int)")
    return Recovery(cluster)


def test_an_archive_that_refuses_to_overwrite_goes_on_over_recoveries_from_one_replica(cluster: Cluster) -> None:
    recovery = archiving(cluster)
    cluster.sql("insert into t select generate_series(1, 1000); select pg_switch_wal()")
    cluster.sql("insert into t select generate_series(1, 1000)")
    replica, expected = recovery.replica()
    for timeline in (2, 3, 4):
        cluster.sql("insert into t values (0); select pg_switch_wal()")
        assert recovery.recover(replica, expected)["timeline"] == timeline
        cluster.sql("insert into t values (1)")
        cluster.sql("select pg_switch_wal()")
        names = archived(cluster, 2)
        assert f"{timeline:08X}.history" in names
        assert any(name.startswith(f"{timeline:08X}0") for name in names)
    assert not any(name.endswith(".partial") for name in names)
    # Only the server's own histories are in the archive, never the ones that keep a number.
    assert all("slackwater" not in (cluster.home / "archive" / name).read_text() for name in names if "history" in name)
    assert cluster.value("select count(*) from t") == 2001


def test_without_the_marks_the_archive_stands_still_at_the_second_recovery(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sabotaged twin: the engine archives the last segment's first part under the same name once more."""
    monkeypatch.setattr("slackwater.writers._postgresql.rewrite.mark_archived", lambda *_: ())
    recovery = archiving(cluster)
    replica, expected = recovery.replica()
    recovery.recover(replica, expected)
    assert any(name.endswith(".partial") for name in archived(cluster, 1))
    recovery.recover(replica, expected)
    cluster.sql("select pg_switch_wal()")
    with pytest.raises(AssertionError, match=r"\.partial"):
        archived(cluster, 2)


def test_a_segment_archived_after_the_image_is_not_archived_again(cluster: Cluster) -> None:
    recovery = archiving(cluster)
    cluster.sql("alter system set archive_command = 'false'")
    cluster.sql("select pg_reload_conf()")
    cluster.sql("insert into t values (1); select pg_switch_wal()")
    replica, expected = recovery.replica()
    waiting = [name for name in os.listdir(replica / "pg_wal/archive_status") if name.endswith(".ready")]
    assert waiting, "the image was to hold a segment that waits"
    auto = replica / "postgresql.auto.conf"
    auto.write_text("".join(line for line in auto.open() if "archive_command" not in line))
    cluster.sql("alter system reset archive_command")
    cluster.sql("select pg_reload_conf()")
    ends = time.monotonic() + 10
    while not set(os.listdir(cluster.home / "archive")) >= {name.removesuffix(".ready") for name in waiting}:
        assert time.monotonic() < ends
        cluster.sql("select pg_switch_wal()")
        time.sleep(0.1)
    recovery.recover(replica, expected)
    cluster.sql("insert into t values (1)")
    cluster.sql("select pg_switch_wal()")
    archived(cluster, 2)


def test_the_administrators_own_restore_command_is_asked_for_further_histories(cluster: Cluster) -> None:
    archive = cluster.home / "their's"
    archive.mkdir()
    os.chown(archive, OWNER.pw_uid, OWNER.pw_gid)
    for number in (2, 3, 4):
        (archive / f"{number:08X}.history").write_text("1\t0/0\tsomebody else's\n")
    cluster.configure(f"restore_command = 'cp \"{cluster.home}/their''s/%f\" \"%p\"'\n")
    cluster.start()
    recovery = Recovery(cluster)
    replica, expected = recovery.replica()
    learnt = recovery.switch(replica)
    assert (learnt["timeline"], learnt["timeline_exact"]) == (2, False)
    WRITER.start_effect(recovery.component).make()
    assert WRITER.confirm(recovery.component, {**expected, **learnt}, timeout_s=10)["timeline"] == 5
    WRITER.settle_effect(recovery.component).make()
    assert "their's" in str(cluster.value("show restore_command"))


def test_a_log_of_level_minimal_keeps_its_timeline_and_says_so(cluster: Cluster) -> None:
    cluster.configure("wal_level = minimal\nmax_wal_senders = 0\n")
    cluster.start()
    cluster.sql("create table t as select 1")
    recovery = Recovery(cluster)
    replica, expected = recovery.replica()
    learnt = recovery.switch(replica)
    assert (learnt["timeline"], learnt["timeline_switch"]) == (1, False)
    assert "minimal" in str(learnt["why"])
    WRITER.start_effect(recovery.component).make()
    assert WRITER.confirm(recovery.component, {**expected, **learnt}, timeout_s=10)["timeline"] == 1
    WRITER.settle_effect(recovery.component).make()
    assert cluster.value("select count(*) from t") == 1


def test_fewer_connections_than_at_the_backup_do_not_stop_the_recovery(cluster: Cluster) -> None:
    cluster.configure("max_connections = 40\n")
    cluster.start()
    recovery = Recovery(cluster)
    replica, expected = recovery.replica()
    with open(replica / "postgresql.conf", "a") as f:
        f.write("max_connections = 20\n")
    assert recovery.recover(replica, expected)["timeline"] == 2


def test_confirm_finds_what_is_short_missing_or_gone(cluster: Cluster) -> None:
    cluster.start()
    recovery = Recovery(cluster)
    replica, expected = recovery.replica()
    learnt = recovery.switch(replica)
    WRITER.start_effect(recovery.component).make()
    wanted = {**expected, **learnt}
    reached = WRITER.confirm(recovery.component, wanted, timeout_s=10)
    assert reached["pid"] == cluster.pid

    one_further = format_lsn(parse_lsn(str(reached["lsn"])) + 1)
    for twin, reason in (
        ({**wanted, "lsn": one_further}, "short"),
        ({**wanted, "timeline": 3}, "wrong-timeline"),
        ({**wanted, "system_identifier": "1"}, "other-cluster"),
    ):
        with pytest.raises(SlackwaterError) as caught:
            WRITER.confirm(recovery.component, twin, timeout_s=5)
        assert caught.value.reason == reason
    WRITER.stop_effect(recovery.component).make()
    with pytest.raises(SlackwaterError, match="does not run"):
        WRITER.confirm(recovery.component, wanted, timeout_s=5)


def test_a_replica_that_lacks_the_end_of_its_log_is_found_short(cluster: Cluster) -> None:
    """A torn image: the last segment ends in zeros where the log before the window was."""
    cluster.start()
    cluster.sql("create table t (i int)")
    recovery = Recovery(cluster)
    before = parse_lsn(str(cluster.value("select pg_current_wal_lsn()")))
    cluster.sql("insert into t select generate_series(1, 5000)")
    with cluster.still():
        replica = cluster.copy_to(cluster.home / "torn")
    expected = WRITER.prepare(recovery.component)
    number = before // 2**24
    (segment,) = (each for each in (replica / "pg_wal").iterdir() if each.name.endswith(f"{number:08X}"))
    with open(segment, "r+b") as f:
        f.seek(before % 2**24 + 20000)
        f.write(b"\0" * 500000)
    learnt = recovery.switch(replica)
    WRITER.start_effect(recovery.component).make()
    with pytest.raises(SlackwaterError) as caught:
        WRITER.confirm(recovery.component, {**expected, **learnt}, timeout_s=10)
    assert caught.value.reason == "short"
    assert "acknowledged" in caught.value.sentence


def test_confirm_and_settle_do_not_take_a_server_in_recovery_for_a_recovered_one(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("slackwater.writers._postgresql.effects._END_OF_RECOVERY_S", 0.5)
    cluster.start()
    recovery = Recovery(cluster)
    replica, expected = recovery.replica()
    learnt = recovery.switch(replica)
    conf = cluster.data / "postgresql.auto.conf"
    # A recovery that never ends: the first history that the engine asks for takes longer than anybody waits.
    conf.write_text(conf.read_text().replace("*) cp", "*) sleep 100 ; cp"))
    as_owner(str(cluster.programs / "pg_ctl"), "-D", str(cluster.data), "-l", str(cluster.home / "log"), "-W", "start")
    time.sleep(0.5)
    with pytest.raises(SlackwaterError, match="still in recovery"):
        WRITER.confirm(recovery.component, {**expected, **learnt}, timeout_s=1)
    with pytest.raises(SlackwaterError, match="not finished"):
        WRITER.settle_effect(recovery.component).make()
    assert (cluster.data / "slackwater.histories").is_dir()


def test_rewrite_again_after_a_kill_in_the_middle_gives_the_same(cluster: Cluster) -> None:
    cluster.start()
    recovery = Recovery(cluster)
    replica, _ = recovery.replica()
    first = rewrite(recovery.component, replica, [{"timeline": 6}])
    again = rewrite(recovery.component, replica, [{"timeline": 6}])
    assert first["timeline"] == again["timeline"] == 7
    assert sorted(os.listdir(replica / "slackwater.histories"))[0] == "00000002.history"
    assert len(os.listdir(replica / "slackwater.histories")) == 5
    assert (replica / "postgresql.auto.conf").read_text().count("restore_command") == 1
    for path in (replica / "postgresql.auto.conf", replica / "recovery.signal", replica / "slackwater.histories"):
        found = path.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o077) == (OWNER.pw_uid, OWNER.pw_gid, 0)


def test_rewrite_never_reaches_out_of_the_clone(cluster: Cluster) -> None:
    cluster.start()
    component = identify(WRITER, cluster)
    with cluster.still():
        clone = cluster.copy_to(cluster.home / "clone")
    before = sorted((cluster.data / "pg_wal").rglob("*"))
    shutil.rmtree(clone / "pg_wal")
    (clone / "pg_wal").symlink_to(cluster.data / "pg_wal")
    with pytest.raises(RefusedError, match="pg_wal"):
        rewrite(component, clone)
    assert sorted((cluster.data / "pg_wal").rglob("*")) == before

    (clone / "pg_wal").unlink()
    shutil.copytree(cluster.data / "pg_wal", clone / "pg_wal")
    live_text = (cluster.data / "postgresql.auto.conf").read_text()
    (clone / "postgresql.auto.conf").unlink()
    (clone / "postgresql.auto.conf").symlink_to(cluster.data / "postgresql.auto.conf")
    rewrite(component, clone)
    assert (cluster.data / "postgresql.auto.conf").read_text() == live_text

    other = Component(
        ComponentRef("postgresql", "other"), "", running=False, files=component.files, survives_power_cut=True,
        facts={**component.facts, "system_identifier": "1"},
    )  # fmt: skip
    with pytest.raises(RefusedError, match="another cluster"):
        rewrite(other, clone)
