# SPDX-License-Identifier: Apache-2.0
"""A recovery to the last commit that fails, in every way that can be had: it goes back by itself, nothing is lost.

Afterwards the application runs on the data it had, with all that it acknowledged; the same recovery, once nothing
stands against it any more, works.
"""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from glob import glob
from typing import Any

import pytest

from slackwater.demo.cluster import Cluster
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Answer, Lab
from slackwater.system.command import run
from tests.e2e.luck_support import (
    MIB,
    NAME,
    failed,
    filesystem,
    holder,
    in_memory,
    obeyed,
    reach,
    spawned,
    standing,
    until,
    write_specification,
)  # fmt: skip
from tests.e2e.spawner import Command, Spawner
from tests.e2e.strikes import JournalWatch

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

LATEST = ("recover", NAME, "--to", "latest", "--yes")


@dataclass
class World:
    """A database whose every row is known, and a replica that has the first of them."""

    lab: Lab
    disk: BtrfsDisk
    spawner: Spawner
    cluster: Cluster
    replica: str = ""
    rows: int = 0

    def run(self, *words: str, check: bool = True) -> Answer:
        return obeyed(spawned(self.spawner, *words), check=check)

    def replicas(self) -> dict[str, dict[str, Any]]:
        return {each["id"]: each for each in self.run("replica", "list").document["replicas"]}

    def query(self, text: str) -> str:
        with self.cluster.connect(autocommit=True) as connection:
            done = connection.execute(text.encode())
            row = done.fetchone() if done.description else None
        return str(row[0]) if row else ""

    def write(self, count: int = 20) -> None:
        """Commit rows, one by one."""
        with self.cluster.connect(autocommit=True) as connection:
            for _ in range(count):
                self.rows += 1
                connection.execute("INSERT INTO sales VALUES (%s)", (self.rows,))

    def in_between(self) -> str:
        """A segment of the log with rows in it and others after it; returns its name."""
        self.query("SELECT pg_switch_wal()")
        self.write()
        name = self.query("SELECT pg_walfile_name(pg_current_wal_lsn())")
        self.query("SELECT pg_switch_wal()")
        self.write()
        return name

    def whole(self) -> None:
        """It runs, and has every row."""
        assert self.query("SELECT count(*) || ' ' || coalesce(max(n), 0) FROM sales") == f"{self.rows} {self.rows}"
        self.write(1)

    def again(self) -> str:
        """The same recovery once more, and all is there."""
        done = self.run(*LATEST).document
        self.whole()
        return str(done["undo_replica"])

    def caught(self, phase: str) -> Command:
        """A recovery that stands still at the beginning of a phase."""
        for _ in range(20):
            command = self.spawner.spawn(*LATEST, "--progress", "json")
            reach(command, "phase", phase)
            command.send(signal.SIGSTOP)
            if command.poll() is None and not command.told("phase", "stop"):
                return command
            command.send(signal.SIGCONT)  # it had gone on to where it stops the server
            obeyed(command.answer(120.0))
        pytest.fail(f"no recovery was caught as it began to {phase}")

    def runs(self, session: str) -> bool:
        """Whether a session has not ended yet, by the catalog: as long as that says so it has the lock."""
        with contextlib.closing(sqlite3.connect(f"{self.lab.state_dir}/catalog.sqlite")) as catalog:
            sql = "SELECT 1 FROM sessions WHERE id = ? AND outcome = 'running'"
            return bool(catalog.execute(sql, (session,)).fetchall())

    @contextlib.contextmanager
    def not_stopped(self) -> Iterator[None]:
        """What is inside does not stop the server."""
        with self.cluster.connect(autocommit=True) as connection:
            yield
            connection.execute("SELECT 1")
        self.whole()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with in_memory() as lab, Spawner(lab.environment()) as spawner:
        disk = lab.btrfs(1024 * MIB)
        cluster = lab.wheel_cluster(18, disk.subvolume("pg"), options={"wal_keep_size": "256MB"})
        cluster.start()
        write_specification(lab, NAME, cluster.name)
        made = World(lab, disk, spawner, cluster)
        made.query("CREATE TABLE sales (n int)")
        made.replica = str(made.run("backup", NAME).document["replica"])
        made.write()
        yield made


def resumed(command: Command, code: str, status: int = 1) -> dict[str, str]:
    """Let it go on, and give the error that it ends with."""
    command.send(signal.SIGCONT)
    return failed(command.answer(120.0), status, code)


# -- refused, with the application running -----------------------------------------------------------------------------


def test_a_target_in_the_future(world: World) -> None:
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    with world.not_stopped():
        error = failed(world.run("recover", NAME, "--to", tomorrow, "--yes", check=False), 5, "unreachable")
    assert "future" in error["sentence"]


def test_a_hole_that_appears_while_the_clone_is_made(world: World) -> None:
    missing = world.in_between()
    log = f"{world.cluster.data_dir}/pg_wal"
    command = world.caught("prepare")
    os.rename(f"{log}/{missing}", f"{log}/kept")
    with world.not_stopped():
        error = resumed(command, "unreachable", status=5)
    assert missing in error["sentence"]
    os.rename(f"{log}/kept", f"{log}/{missing}")


def test_a_later_replica_that_cannot_be_looked_at_is_named(world: World) -> None:
    """What is missing may lie there."""
    missing = world.in_between()
    later = str(world.run("backup", NAME).document["replica"])
    where, hidden = f"{world.disk.path}/.slackwater/{later}", f"{world.disk.path}/hidden"
    log = f"{world.cluster.data_dir}/pg_wal"
    os.rename(f"{log}/{missing}", f"{log}/kept")
    words = ("recover", NAME, "--to", "latest", "--replica", world.replica, "--preview")
    assert world.run(*words).document["forward"]["against"] == ""
    os.rename(where, hidden)
    refused = world.run(*words, check=False)
    os.rename(hidden, where)
    (finding,) = [each for each in refused.document["findings"] if each["code"] == "unreachable"]
    assert missing in finding["sentence"]
    assert f"cannot be looked at now: the replica {later} (" in finding["sentence"]
    assert world.run(*words).status == 0
    os.rename(f"{log}/kept", f"{log}/{missing}")


@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
def test_a_replica_that_is_deleted_while_the_recovery_waits(world: World, named: bool) -> None:
    newest = next(
        name for name, each in world.replicas().items() if (each["kind"], each["state"]) == ("backup", "good")
    )
    answer = None
    while answer is None:
        chosen = str(world.run("backup", NAME).document["replica"])
        words = (*LATEST, "--wait", "60s", "--progress", "json", *(("--replica", chosen) if named else ()))
        with contextlib.ExitStack() as stack:
            if named:
                stack.enter_context(world.not_stopped())
            deletion = ("replica", "delete", chosen, "--yes")
            with standing(world, *deletion) as (_, session):  # type: ignore[arg-type]  # it asks for the spawner
                if not world.runs(session):
                    continue  # it was done before it could be stopped
                waiting = world.spawner.spawn(*words)
                reach(waiting, "note", "Waiting up to")
            answer = waiting.answer(120.0)
            if named:
                failed(answer, 4, "not-found")
    if not named:  # whichever is the newest when it begins
        assert obeyed(answer).document["replica"] == newest
    world.whole()


def test_a_second_recovery_while_one_runs(world: World) -> None:
    first = world.caught("check")
    with world.not_stopped():
        error = failed(world.run(*LATEST, check=False), 3, "busy")
    assert "recovery of orders" in error["sentence"]
    first.send(signal.SIGCONT)
    obeyed(first.answer(120.0))
    world.whole()


# -- stopped, and started again on what it had -----------------------------------------------------------------------


def test_a_volume_that_somebody_holds(world: World) -> None:
    """Before it is stopped it is refused; who comes later is seen when the application is stopped."""
    sleeper = ("sleep", "300")
    where = f"{world.cluster.data_dir}/base"
    with holder(world.lab, *sleeper, cwd=where) as process, world.not_stopped():
        error = failed(world.run(*LATEST, check=False), 5, "held")
        assert str(process.pid) in error["sentence"]
    command = world.caught("prepare")
    with holder(world.lab, *sleeper, cwd=where) as process:
        error = resumed(command, "held")
        assert str(process.pid) in error["sentence"]
        assert "started again" in error["data"]
        world.whole()


IMPATIENT = """\
import sys
from slackwater.writers._postgresql import control
control.FAST_S = control.IMMEDIATE_S = control.KILL_S = 1.0
control.START_S = 30.0
from slackwater.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def stuck(world: World) -> Iterator[None]:
    """One of the server's processes waits for a disk that does not answer, and nobody can end it."""
    place = filesystem(world.lab, "ext4", 32 * MIB, "stuck")
    os.chmod(place, 0o777)  # noqa: S103
    copy = f"COPY (SELECT 1) TO '{place}/one'"
    psql = ("runuser", "-u", "postgres", "--", "psql", "-h", world.cluster.socket_dir, "-p", str(world.cluster.port))
    run("fsfreeze", "--freeze", place)
    try:
        with holder(world.lab, *psql, "-c", copy):
            until(
                lambda: world.query("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT 1)%'") > "0"
            )
            yield
    finally:
        run("fsfreeze", "--unfreeze", place)


def test_a_server_that_does_not_stop(world: World) -> None:
    """Nothing is switched. It is started again, as soon as that is possible."""
    with stuck(world):
        command = (sys.executable, "-c", IMPATIENT, *LATEST, "--json")
        done = run(*command, check=False, environment=world.lab.environment(), timeout_s=120.0)
        error = json.loads(done.output)["error"]
        assert (done.status, error["code"]) == (1, "not-stopped"), done
        assert "are still there" in error["sentence"]
        assert "The volumes are as they were" in error["data"]
        assert "slackwater reconcile" in error["hint"]
    assert world.run("reconcile").document["unmended"] == []
    world.whole()


@contextlib.contextmanager
def broken_replica(world: World) -> Iterator[tuple[str, Callable[[], None]]]:
    """One on which the server does not start: a setting of that time names a library that is gone by now.

    Yields: the replica, and how the setting is put right where the server has it.
    """
    settings = f"{world.cluster.data_dir}/postgresql.auto.conf"

    def put_right() -> None:
        with open(settings, encoding="utf-8") as f:
            good = [line for line in f if "not_there" not in line]
        with open(settings, "w", encoding="utf-8") as f:
            f.writelines(good)

    with open(settings, "a", encoding="utf-8") as f:
        f.write("shared_preload_libraries = 'not_there'\n")
    broken = str(world.run("backup", NAME).document["replica"])
    put_right()
    world.write()
    yield broken, put_right
    world.run("replica", "delete", broken, "--yes")


def test_a_server_that_does_not_start_on_the_replica(world: World) -> None:
    with broken_replica(world) as (broken, _):
        answer = world.run(*LATEST, "--replica", broken, check=False)
    assert "not_there" in failed(answer, 1, "not-started")["sentence"]
    world.whole()


def stays(world: World, replica: str) -> str:
    """A recovery that fails after its switch, and was told to stay there; returns its session."""
    answer = world.run(*LATEST, "--replica", replica, "--stay", check=False)
    error = failed(answer, 1, "not-started")
    assert "stays where it is" in error["data"]
    assert not world.cluster.pids()
    session = error["hint"].rpartition(" ")[2]
    assert world.run("status").document["pending"] == [session]
    return session


def test_told_to_stay_it_is_put_right_and_finished(world: World) -> None:
    """Nothing else is begun until then, and a reconcile that finds it broken leaves it as it is."""
    with broken_replica(world) as (broken, put_right):
        session = stays(world, broken)
        assert "session abort" in failed(world.run("backup", NAME, check=False), 5, "half-switched")["hint"]
        (unmended,) = world.run("reconcile", check=False).document["unmended"]
        assert "not_there" in unmended
        assert not world.cluster.pids()
        put_right()
        (mended,) = world.run("reconcile").document["sessions"]
        assert (mended["session"], mended["whole"], mended["compared"]) == (session, True, True)
        world.whole()
        assert world.replicas()[session]["kind"] == "undo"
        world.run("recover", NAME, "--undo", "--yes")
        world.rows -= 1  # what was written on the recovered one is in the newest undo replica
        world.whole()


@pytest.mark.parametrize("killed", [False, True], ids=["failed", "killed"])
def test_told_to_stay_it_is_taken_back_when_that_is_asked(world: World, killed: bool) -> None:
    with broken_replica(world) as (broken, _):
        if killed:
            command = world.spawner.spawn(*LATEST, "--replica", broken, "--stay", "--progress", "json")
            reach(command, "phase", "start")
            command.send(signal.SIGKILL)
            command.wait()
            session = command.session
        else:
            session = stays(world, broken)
        shown = world.run("session", "abort", session).document["session"]
        assert shown["id"] == session
        world.whole()
        assert world.run("status").document["pending"] == []
        assert world.replicas()[session]["kind"] == "undo"  # what it ran on is kept
        failed(world.run("session", "abort", session, check=False), 4, "not-found")


def test_a_volume_that_is_full_when_it_is_switched(world: World) -> None:
    filler = f"{world.disk.path}/filler"
    command = world.caught("prepare")
    run("dd", "if=/dev/zero", f"of={filler}", "bs=64K", check=False)
    run("dd", "if=/dev/zero", f"of={filler}", "bs=4K", "oflag=append", "conv=notrunc", check=False)
    command.send(signal.SIGCONT)
    answer = command.answer(120.0)
    os.unlink(filler)
    run("sync", "-f", world.disk.path)
    if answer.status:  # little is needed, and it may have had that much
        error = failed(answer, 1, answer.document["error"]["code"])
        assert "room" in error["hint"] or "No space" in error["sentence"] or "No space" in error["hint"], error
    assert world.run("reconcile").document["unmended"] == []
    world.whole()
    world.again()


def cut_short(log: str) -> None:
    """What an engine takes for the end of the log."""
    for name in os.listdir(log):
        os.unlink(f"{log}/{name}")


def exchanged(world: World, deed: Callable[[str], None]) -> Command:
    """A recovery that stands still between its exchange and its start, with something done to the log that it laid."""
    world.run("backup", NAME)
    world.query("SELECT pg_switch_wal()")
    world.write()
    log = f"{world.disk.path}/pg/slackwater.log"
    for _ in range(20):
        command = world.spawner.spawn(*LATEST, "--progress", "json")
        with JournalWatch(f"{world.lab.state_dir}/journal.sqlite") as journal:
            while command.poll() is None and not os.path.exists(log):
                time.sleep(0.0002)
            command.send(signal.SIGSTOP)
            begun = {kind for kind, state in journal.progress(begun=True).effects if state == "done"}
        if command.poll() is None and "postgresql.start" not in begun and not world.cluster.pids():
            deed(log)
            return command
        command.send(signal.SIGCONT)
        obeyed(command.answer(120.0))
    pytest.fail("no recovery was caught between its exchange and its start")


def test_a_log_that_ends_before_what_was_expected(world: World) -> None:
    """The engine calls that a success. It is put back; what it ran on is kept, since somebody may have used it."""
    known = set(world.replicas())
    command = exchanged(world, cut_short)
    error = resumed(command, "short")
    assert "short of" in error["sentence"]
    world.whole()
    new = [each for name, each in world.replicas().items() if name not in known and each["kind"] == "undo"]
    assert [world.run("replica", "show", each["id"]).document["replica"]["replaced_by"] for each in new[:1]] == [""]
    world.again()


@pytest.mark.parametrize("short", [False, True], ids=["whole", "short"])
def test_killed_after_the_switch_what_it_reached_is_compared_by_whoever_finishes(world: World, short: bool) -> None:
    command = exchanged(world, cut_short if short else lambda _: None)
    command.send(signal.SIGKILL)
    command.wait()
    (mended,) = world.run("reconcile").document["sessions"]
    assert (mended["session"], mended["whole"], mended["compared"]) == (command.session, True, not short)
    shown = world.run("session", "show", command.session).document["session"]
    (told,) = [each["text"] for each in shown["messages"] if "finished when it had been cut off" in each["text"]]
    assert shown["outcome"] == ("completed_with_failures" if short else "completed"), shown
    assert told == mended["comparison"]
    if short:
        assert "short of" in told
        world.run(*told.rpartition("slackwater ")[2].split(), "--yes")
    world.whole()


# -- timelines -------------------------------------------------------------------------------------------------------


def test_undone_redone_and_done_again_each_time_onto_another_timeline(world: World) -> None:
    """Nothing that is newer is lost by any of it, and what was set aside stays as it is."""
    later = str(world.run("backup", NAME).document["replica"])
    world.write()
    xid = world.query("WITH gone AS (DELETE FROM sales RETURNING 1) SELECT pg_current_xact_id() FROM gone LIMIT 1")
    before = ("recover", NAME, "--to", f"before:{xid}", "--replica", world.replica, "--yes")
    timelines = []
    undone = ""
    for number in range(3):
        done = world.run(*before).document
        assert world.query("SELECT count(*) FROM sales") == str(world.rows)
        timelines += [each["timeline"] for each in done["reached"].values()]
        undone = str(world.run("recover", NAME, "--undo", "--yes").document["undo_replica"])
        assert world.query("SELECT count(*) FROM sales") == "0", number
    assert len(set(timelines)) == 3
    world.run("recover", NAME, "--replica", undone, "--yes")  # the undo undone
    world.whole()
    known = world.replicas()
    assert all(known[each]["state"] == "good" for each in (world.replica, later))
    aside = {name for name, each in known.items() if each["kind"] == "undo"}
    assert undone in aside
    assert all(world.run("replica", "show", each).document["replica"]["read_only"] for each in aside)
    with pytest.raises(OSError, match="Read-only"):
        shutil.rmtree(glob(f"{world.disk.path}/.slackwater/{undone}/*/base")[0])
    world.run("recover", NAME, "--to", "latest", "--yes")
    world.whole()
