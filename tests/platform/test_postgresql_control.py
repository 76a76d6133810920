# SPDX-License-Identifier: Apache-2.0
"""Stopping and starting real servers: twice, undone, and when little is left of them."""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from slackwater.errors import RefusedError, SlackwaterError
from slackwater.journal.effects import EffectKinds, fields_of
from slackwater.system.processes import ancestors, stat_of
from slackwater.writers._postgresql import control
from slackwater.writers._postgresql.find import postmaster_on, processes_on
from slackwater.writers.postgresql import PostgresqlWriter
from tests.platform.postgresql_support import OWNER, VERSIONS, Cluster, identify, new_cluster

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

WRITER = PostgresqlWriter()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with new_cluster() as cluster:
        cluster.initdb()
        cluster.start()
        yield cluster


def segment_of(cluster: Cluster) -> list[str]:
    return (cluster.data / "postmaster.pid").read_text().splitlines()[6].split()


def attached(number: str) -> str | None:
    with open("/proc/sysvipc/shm") as f:
        rows = [line.split() for line in f]
    return next((row[6] for row in rows if row[1] == number), None)


def sleeping_client(cluster: Cluster) -> "subprocess.Popen[bytes]":
    """Somebody who is connected, and asks for something that takes long."""
    client = subprocess.Popen(
        [cluster.programs / "psql", "-h", cluster.home, "-d", "postgres", "-qc", "select pg_sleep(100)"],
        user=OWNER.pw_uid, group=OWNER.pw_gid, extra_groups=[], cwd="/", stderr=subprocess.DEVNULL,
    )  # fmt: skip
    ends = time.monotonic() + 10
    while cluster.value("select count(*) from pg_stat_activity where query like '%pg_sleep(100)'") != 1:
        assert time.monotonic() < ends
    return client


@pytest.mark.parametrize("version", VERSIONS)
def test_stop_and_start_each_twice_and_undone(version: int) -> None:
    with new_cluster(version) as cluster:
        cluster.initdb()
        cluster.start()
        component = identify(WRITER, cluster)
        _, number = segment_of(cluster)
        stop, start = WRITER.stop_effect(component), WRITER.start_effect(component)
        assert stop.was_running
        assert WRITER.processes(component) >= {cluster.pid}
        before = len(WRITER.processes(component))
        assert before >= 5

        assert stop.make() == stop.make() == {}
        assert WRITER.processes(component) == frozenset()
        assert attached(number) is None
        stop.undo()
        stop.undo()
        assert cluster.value("select 1") == 1

        stop.make()
        first = start.make()
        assert start.make() == first == {"pid": cluster.pid, "accepting": True}
        start.undo()
        start.undo()
        assert postmaster_on(str(cluster.data)) is None


def test_effects_come_back_from_the_journal_as_they_were(cluster: Cluster) -> None:
    component = identify(WRITER, cluster)
    kinds = EffectKinds(WRITER.effects)
    for effect in (WRITER.stop_effect(component), WRITER.start_effect(component), WRITER.settle_effect(component)):
        assert kinds.load(effect.kind, fields_of(effect)) == effect
        assert "data" in effect.describe()


def test_what_did_not_run_is_not_started_by_an_undo(cluster: Cluster) -> None:
    component = identify(WRITER, cluster)
    WRITER.stop_effect(component).make()
    planned_stopped = control.control_fields("x", component.facts)
    stop = type(WRITER.stop_effect(component))(**planned_stopped, was_running=False)
    stop.make()
    stop.undo()
    assert postmaster_on(str(cluster.data)) is None


def test_a_server_starts_away_from_us_with_the_options_it_had(cluster: Cluster) -> None:
    cluster.stop()
    with open(cluster.home / "log", "a") as log:
        subprocess.Popen(
            [cluster.programs / "postgres", "-D", cluster.data, "-c", "work_mem=7MB", "--application_name=it's"],
            user=OWNER.pw_uid, group=OWNER.pw_gid, extra_groups=[], stdout=log, stderr=log, cwd="/",
        )  # fmt: skip
    ends = time.monotonic() + 10
    while not (server := postmaster_on(str(cluster.data))) or server.lock.status != "ready":
        assert time.monotonic() < ends
        time.sleep(0.02)
    component = identify(WRITER, cluster)
    WRITER.stop_effect(component).make()
    WRITER.start_effect(component).make()
    assert cluster.value("show work_mem") == "7MB"
    (name,) = cluster.sql("select reset_val from pg_settings where name = 'application_name' and reset_val <> ''") or [
        ("",)
    ]
    assert name[0] in {"it's", ""}
    assert os.getsid(cluster.pid) != os.getsid(0)
    assert os.getpgid(cluster.pid) != os.getpgid(0)
    assert os.getpid() not in ancestors(cluster.pid)
    held = [os.readlink(f"/proc/{cluster.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{cluster.pid}/fd")]
    ours = {os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)} - {"/dev/null"}
    assert not ours & set(held)
    assert str(cluster.home / "log") in held


def test_the_first_server_dead_and_backends_left(cluster: Cluster) -> None:
    """An orphan goes on writing into files that were set aside, so it is part of what must end."""
    component = identify(WRITER, cluster)
    writing = sleeping_client(cluster)
    pid = cluster.value("select pid from pg_stat_activity where query like '%pg_sleep(100)'")
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGSTOP)  # it cannot even see that its postmaster is dead
    os.kill(cluster.pid, signal.SIGKILL)
    ends = time.monotonic() + 10
    while processes_on(str(cluster.data)) != {pid}:
        assert time.monotonic() < ends
        time.sleep(0.02)
    _, number = segment_of(cluster)
    assert attached(number) == "1"
    assert WRITER.processes(component) == {pid}
    WRITER.stop_effect(component).make()
    assert processes_on(str(cluster.data)) == set()  # what ends holds nothing some moments before it is gone
    assert attached(number) in {None, "0"}
    assert control.until(lambda: (stat := stat_of(pid)) is None or stat.dead, 10)
    writing.wait(10)
    WRITER.start_effect(component).make()
    assert cluster.value("select 1") == 1


def test_a_server_that_is_being_stopped_ends_before_it_is_started(cluster: Cluster) -> None:
    """A smart shutdown waits for its clients: as one that writes a large checkpoint, it is there and takes nobody."""
    component = identify(WRITER, cluster)
    first = cluster.pid
    client = sleeping_client(cluster)
    ends = time.monotonic() + 10
    os.kill(first, signal.SIGTERM)
    while not (server := postmaster_on(str(cluster.data))) or server.lock.status != "stopping":
        assert time.monotonic() < ends
        time.sleep(0.02)
    WRITER.stop_effect(component).undo()
    assert cluster.pid != first
    assert cluster.value("select 1") == 1
    client.wait(10)


def test_a_server_without_its_files_is_stopped(cluster: Cluster) -> None:
    component = identify(WRITER, cluster)
    shutil.rmtree(cluster.data)
    assert WRITER.processes(component)
    now = identify(WRITER, cluster)
    assert [each.code for each in now.refusals] == ["lock-file-gone"]
    WRITER.stop_effect(now).make()
    assert WRITER.processes(component) == frozenset()


def test_a_server_whose_files_were_overwritten_is_stopped(cluster: Cluster) -> None:
    component = identify(WRITER, cluster)
    cluster.sql("create table t as select generate_series(1, 10000)")
    for path in (cluster.data / "global").iterdir():
        if path.is_file():
            path.write_bytes(b"\xff" * 8192)
    (cluster.data / "postmaster.pid").unlink()
    WRITER.stop_effect(component).make()
    assert WRITER.processes(component) == frozenset()


def test_the_same_path_in_another_mount_namespace_is_not_ours(cluster: Cluster) -> None:
    """A container's server has the data directory that ours has: not a hair of it is touched."""
    component = identify(WRITER, cluster)
    WRITER.stop_effect(component).make()
    script = (
        f"mount --make-rprivate / && cp -a {cluster.data} {cluster.home}/other && mount --bind {cluster.home}/other "
        f"{cluster.data} && exec setpriv --reuid={OWNER.pw_uid} --regid={OWNER.pw_gid} --clear-groups "
        f"{cluster.programs}/postgres -D {cluster.data}"
    )
    other = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        ends = time.monotonic() + 10
        while not (cluster.home / ".s.PGSQL.5432").exists():
            assert time.monotonic() < ends
            time.sleep(0.02)
        (found,) = [each for each in WRITER.identify() if str(cluster.data) in each.ref.name]
        assert [each.code for each in found.refusals] == ["in-container"]
        assert found.main_pid == other.pid
        with pytest.raises(RefusedError, match="never asked how"):
            WRITER.stop_effect(found)
        assert WRITER.processes(component) == frozenset()
        WRITER.stop_effect(component).make()
        assert other.poll() is None
    finally:
        other.terminate()
        other.wait(10)


def test_a_start_that_fails_says_why_and_keeps_quiet_about_data(cluster: Cluster) -> None:
    component = identify(WRITER, cluster)
    WRITER.stop_effect(component).make()
    cluster.configure("max_connections = nonsense\n")
    with open(cluster.home / "log", "a") as f:
        f.write("2026-11-22 10:00:00 UTC [1] ERROR:  the secret is in DETAIL\n")
    with pytest.raises(SlackwaterError) as caught:
        WRITER.start_effect(component).make()
    assert caught.value.reason == "not-started"
    assert "FATAL" in caught.value.sentence
    assert "secret" not in caught.value.sentence
    WRITER.start_effect(component).undo()


@pytest.fixture
def debian() -> Iterator[Cluster]:
    """A cluster in Debian's own way: configuration under /etc, started by pg_ctlcluster."""
    name = f"sw-{secrets.token_hex(3)}"
    port = 20000 + secrets.randbelow(10000)
    with new_cluster() as cluster:
        try:
            subprocess.run(
                ["pg_createcluster", "15", name, "-d", cluster.data, "-s", cluster.home, "-p", str(port),
                 "-l", cluster.home / "log", "-o", "listen_addresses=", "-o", "shared_buffers=16MB",
                 "-o", "dynamic_shared_memory_type=mmap"],
                check=True, capture_output=True,
            )  # fmt: skip
            cluster.name, cluster.port = name, port
            yield cluster
        finally:
            subprocess.run(["pg_dropcluster", "--stop", "15", name], check=False, capture_output=True)


def test_an_untouched_debian_cluster_stopped_and_running(debian: Cluster) -> None:
    (component,) = [each for each in WRITER.identify() if each.ref.name == f"15/{debian.name}"]
    assert not component.running
    assert component.findings == ()
    assert component.files[0].path == str(debian.data)
    names = {f"/etc/postgresql/15/{debian.name}/{each}.conf" for each in ("postgresql", "pg_hba", "pg_ident")}
    assert set(component.configuration) == names
    expected = WRITER.prepare(component)
    stop = WRITER.stop_effect(component)
    stop.make()
    stop.undo()
    assert postmaster_on(str(debian.data)) is None

    started = WRITER.start_effect(component).make()
    (running,) = [each for each in WRITER.identify() if each.ref.name == f"15/{debian.name}"]
    assert running.running
    assert running.main_pid == started["pid"]
    assert running.refusals == ()
    assert (running.facts["control"], running.facts["cluster"]) == ("pg_ctlcluster", debian.name)
    assert names <= set(running.configuration)
    assert running.facts["log_file"] == str(debian.home / "log")
    reached = WRITER.confirm(running, expected, timeout_s=10)
    assert reached["timeline"] == 1
    with pytest.raises(SlackwaterError, match="was started meanwhile"):
        WRITER.prepare(component)

    stop = WRITER.stop_effect(running)
    stop.make()
    stop.make()
    assert WRITER.processes(running) == frozenset()
    with pytest.raises(SlackwaterError, match="was stopped meanwhile"):
        WRITER.prepare(running)
    stop.undo()
    assert debian.value("select 1") == 1
    WRITER.start_effect(running).undo()
