# SPDX-License-Identifier: Apache-2.0
"""The moments in which a recovery, or an older replica, is needed most: none is refused, and nothing is lost."""

import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slackwater.demo.lab import Answer
from slackwater.system.command import CommandError, run
from tests.e2e.luck_support import (
    NAME,
    World,
    add_table,
    holder,
    new_world,
    obeyed,
    reach,
    specification,
    tables,
    until,
)
from tests.e2e.spawner import Command
from tests.e2e.strikes import JournalWatch, Progress
from tests.e2e.support import LOOK_S, is_guest

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

TRIES = 20


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


def recover(world: World, target: str = NAME, *options: str) -> Answer:
    """A recovery that comes to its end."""
    done = world.run("recover", target, "--yes", *options, check=False)
    for _ in range(TRIES):
        if not is_guest(done):
            break
        time.sleep(LOOK_S)
        done = world.run("recover", target, "--yes", *options, check=False)
    obeyed(done)
    assert done.document["outcome"] == "completed"
    return done


def warnings(answer: Answer) -> str:
    return " ".join(each["text"] for each in answer.document["messages"] if each["severity"] == "warning")


# -- what cannot be asked ------------------------------------------------------------------------------------------


def wipe(world: World) -> None:
    run("bash", "-c", f"rm -rf {world.cluster.data_dir}/*")


def lose_control_file(world: World) -> None:
    os.unlink(f"{world.cluster.data_dir}/global/pg_control")


def stop(world: World) -> None:
    """Nothing but that it does not run."""


@pytest.mark.parametrize("disaster", [stop, lose_control_file, wipe])
def test_a_database_that_is_dead_and_destroyed(world: World, disaster: Any) -> None:
    world.cluster.kill9()
    disaster(world)
    previewed = world.run("recover", NAME, "--preview")
    assert previewed.status == 0
    said = warnings(recover(world))
    assert ("is recovered by what the replica's document says" in said) == (disaster is not stop)
    assert tables(world.cluster) == ["sales"]


def test_a_database_whose_directory_was_removed_under_it(world: World) -> None:
    wipe(world)
    assert "postmaster.pid" in warnings(recover(world))
    assert tables(world.cluster) == ["sales"]


def test_a_database_of_sqlite_that_was_overwritten(world: World) -> None:
    path = Path(world.disk.subvolume("lite"), "app.db")
    run(sys.executable, "-c", f"import sqlite3; sqlite3.connect('{path}').execute('CREATE TABLE t (n)')")
    with holder(world.lab, "tail", "-f", str(path)):
        until(lambda: str(path) in json.dumps(world.run("discover").document))
        world.run("backup", f"sqlite:{path}")
    whole = path.read_bytes()
    path.write_bytes(b"garbage" * 1000)
    assert "is not found on this host now" in warnings(recover(world, f"sqlite:{path}"))
    assert path.read_bytes() == whole


@contextlib.contextmanager
def let_in(world: World, rule: str) -> Iterator[None]:
    """The rule comes first in pg_hba.conf."""
    path = Path(f"{world.cluster.config_dir}/pg_hba.conf")
    text = path.read_text(encoding="utf-8")
    connection = world.cluster.connect(autocommit=True)
    path.write_text(f"{rule}\n{text}", encoding="utf-8")
    connection.execute("SELECT pg_reload_conf()")
    connection.close()
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")
        run("pg_ctlcluster", world.cluster.version, world.cluster.tag, "reload")


def test_a_password_that_is_wrong(world: World) -> None:
    """The server's owner is asked instead, as who root may act."""
    password = Path(world.lab.folder, "password")
    password.touch(0o600)
    password.write_text("*:*:*:prober:right\n", encoding="ascii")
    with world.cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE ROLE prober LOGIN PASSWORD 'right' IN ROLE pg_monitor, pg_checkpoint")
    entry = f'user = "prober"\npassword_file = "{password}"'
    with let_in(world, "local all prober scram-sha-256"), specification(world, "locked", component=entry) as locked:
        world.run("backup", locked)
        add_table(world.cluster, "later")
        password.write_text("*:*:*:prober:wrong\n", encoding="ascii")
        assert "password" in warnings(recover(world, locked))
        assert tables(world.cluster) == ["sales"]


def test_a_server_that_lets_nobody_in(world: World) -> None:
    """What its files say has to do."""
    add_table(world.cluster, "later")
    with let_in(world, "local all all reject"):
        said = warnings(recover(world))
        assert "seen in its files" in said
    assert tables(world.cluster) == ["sales"]


# -- taken back after the application ran ----------------------------------------------------------------------------


def progress(world: World) -> Progress:
    with JournalWatch(f"{world.lab.state_dir}/journal.sqlite") as journal:
        return journal.progress(begun=True)


def acknowledged(world: World, name: str) -> None:
    """A client gets in, as soon as there is somebody, and its table is committed."""

    def done() -> bool:
        with contextlib.suppress(Exception):
            add_table(world.cluster, name)
            return True
        return False

    until(done, 30.0)


def interrupted(world: World, name: str) -> Command:
    """A recovery that stands still before its proof, while a client is told that its table is there; then Ctrl-C."""
    for _ in range(TRIES):
        command = world.spawner.spawn("recover", NAME, "--yes", "--progress", "json")
        while ("postgresql.start", "done") not in progress(world).effects and command.poll() is None:
            time.sleep(0.0005)
        command.send(signal.SIGSTOP)
        reach(command, "session")
        if not command.told("phase", "record") and command.poll() is None:
            acknowledged(world, name)
            command.send(signal.SIGINT)
            return command
        command.send(signal.SIGCONT)
        obeyed(command.answer())
        recover(world, NAME, "--undo")
    pytest.fail("no recovery was caught before its proof")


def kept(world: World, session: str) -> dict[str, Any]:
    """What is kept of a recovery that was taken back."""
    shown: dict[str, Any] = world.run("replica", "show", session).document["replica"]
    assert (shown["kind"], shown["state"], shown["replaced_by"]) == ("undo", "good", "")
    assert world.run("catalog", "check").document["differences"] == []
    return shown


def test_what_was_acknowledged_before_the_proof_is_kept(world: World) -> None:
    add_table(world.cluster, "before")
    recover(world, NAME)
    newest = recover(world, NAME, "--undo").document["undo_replica"]
    command = interrupted(world, "meanwhile")
    command.send(signal.SIGCONT)
    answer = command.answer()
    assert (answer.status, answer.document["error"]["code"]) == (1, "aborted"), answer
    assert f"kept as the undo replica {command.session}" in answer.document["error"]["data"]
    assert tables(world.cluster) == ["before", "sales"]
    kept(world, command.session)
    assert world.run("recover", NAME, "--undo", "--preview").document["replica"] == newest
    recover(world, NAME, "--replica", command.session)
    assert tables(world.cluster) == ["meanwhile", "sales"]
    recover(world, NAME, "--undo")
    assert tables(world.cluster) == ["before", "sales"]
    world.run("replica", "delete", command.session, "--yes")


@pytest.mark.parametrize("undone", [0, 2, 4])
def test_killed_while_it_takes_itself_back_it_loses_nothing(world: World, undone: int) -> None:
    before = tables(world.cluster)
    command = interrupted(world, "meanwhile")
    command.send(signal.SIGCONT)

    def taking_back() -> bool:
        seen = progress(world)
        states = [state for _, state in seen.effects]
        return seen.settled or (not seen.decided and states.count("undone") >= undone)

    while command.poll() is None and not taking_back():
        time.sleep(0.0002)
    command.send(signal.SIGKILL)
    command.wait()
    assert world.run("reconcile").document["unmended"] == []
    assert tables(world.cluster) == before
    kept(world, command.session)
    copy = f"{world.disk.path}/.slackwater/{command.session}/pg"
    assert os.path.isfile(f"{copy}/PG_VERSION")
    assert not os.path.exists(f"{copy}/postmaster.pid"), "it was stopped before it was sealed"
    if undone == 2:
        recover(world, NAME, "--replica", command.session)
        assert "meanwhile" in tables(world.cluster)
        recover(world, NAME, "--undo")
    world.run("replica", "delete", command.session, "--yes")


def test_a_recovery_that_others_started_and_that_starts_no_more_is_kept_too(world: World) -> None:
    before = tables(world.cluster)
    for _ in range(TRIES):
        command = world.spawner.spawn("recover", NAME, "--yes", "--progress", "json")
        while not (seen := progress(world)).decided and command.poll() is None:
            time.sleep(0.0002)
        command.send(signal.SIGKILL)
        command.wait()
        seen = progress(world)
        if seen.decided and ("postgresql.start", "intent") in seen.effects:
            break
        world.run("reconcile")
        recover(world, NAME, "--undo")
    with contextlib.suppress(CommandError):  # what the command had begun may be quicker
        world.cluster.start()  # as the init would
    acknowledged(world, "meanwhile")
    world.cluster.kill9()
    configuration = Path(f"{world.cluster.config_dir}/postgresql.conf")
    text = configuration.read_text(encoding="utf-8")
    configuration.write_text(f"{text}\nport = 'none'\n", encoding="utf-8")
    assert world.run("reconcile", check=False).status == 10
    configuration.write_text(text, encoding="utf-8")
    assert world.run("reconcile").document["unmended"] == []
    assert tables(world.cluster) == before
    kept(world, command.session)
    recover(world, NAME, "--replica", command.session)
    assert "meanwhile" in tables(world.cluster)
    recover(world, NAME, "--undo")
    (ended,) = [s for s in world.run("session", "list").document["sessions"] if s["id"] == command.session]
    assert ended["outcome"] == "aborted"


# -- a catalog that does not know -----------------------------------------------------------------------------------


@contextlib.contextmanager
def catalog_of_before(world: World) -> Iterator[None]:
    """What is done inside is unknown to the catalog afterwards: it is put back from a copy."""
    path = f"{world.lab.state_dir}/catalog.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = Path(path).read_bytes()
    yield
    for suffix in ("-wal", "-shm"):
        Path(path + suffix).unlink(missing_ok=True)
    Path(path).write_bytes(whole)


def copies(world: World) -> set[str]:
    return set(os.listdir(f"{world.disk.path}/.slackwater"))


def test_an_old_catalog_gives_no_id_out_that_the_storage_bears(world: World) -> None:
    world.run("reconcile")
    with catalog_of_before(world):
        lost = str(world.run("backup", NAME).document["replica"])
    before = copies(world)
    assert lost in before
    made = str(world.run("backup", NAME).document["replica"])
    assert made != lost
    assert copies(world) == before | {made}
    assert lost in world.run("reconcile").document["adopted"]
    assert world.run("catalog", "check").document["differences"] == []
    for each in (lost, made):
        world.run("replica", "delete", each, "--yes")


def test_a_replica_that_was_adopted_is_pinned_and_rotation_leaves_it_alone(world: World) -> None:
    with specification(world, "few", replica="keep = 1") as few:
        with catalog_of_before(world):
            old = str(world.run("backup", few).document["replica"])
            world.run("replica", "pin", old)
        reconciled = world.run("reconcile").document
        assert (reconciled["adopted"], reconciled["pinned"]) == ([old], [old])
        for _ in range(2):
            world.run("backup", few)
        kinds = {each["id"]: each["pinned"] for each in world.run("replica", "list", few).document["replicas"]}
        assert sorted(kinds.values()) == [False, True]
        assert kinds[old]
        world.run("replica", "unpin", old)
        for each in kinds:
            world.run("replica", "delete", each, "--yes")


def test_rotation_looks_for_those_it_relies_on(world: World) -> None:
    """Two are kept; the newer of them was destroyed behind our back: the older one is not the one too many."""
    with specification(world, "two", replica="keep = 2") as two:
        old, gone = (str(world.run("backup", two).document["replica"]) for _ in range(2))
        run("btrfs", "subvolume", "delete", f"{world.disk.path}/.slackwater/{gone}/pg")
        done = world.run("backup", two)
        assert gone in warnings(done)
        listed = {each["id"]: each["state"] for each in world.run("replica", "list", two).document["replicas"]}
        assert listed == {old: "good", gone: "missing", done.document["replica"]: "good"}
        assert os.path.isdir(f"{world.disk.path}/.slackwater/{old}/pg")
        for each in listed:
            world.run("replica", "delete", each, "--yes")
