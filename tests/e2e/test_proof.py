# SPDX-License-Identifier: Apache-2.0
"""Proof: trials, verifications and clones on real servers; and nothing of it ever reaches the original."""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from slackwater.demo.cluster import connect
from slackwater.system import mounts, namespaces
from slackwater.system.command import run
from tests.e2e.luck_support import in_memory, reach
from tests.e2e.proof_support import ROWS, Proving, flip_bit, flip_page, until, without_files, without_log
from tests.e2e.spawner import Spawner

if TYPE_CHECKING:
    import psycopg

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@pytest.fixture(scope="module")
def world() -> Iterator[Proving]:
    """Without data checksums, so that only what pg_amcheck knows can find a page that was flipped."""
    with in_memory() as lab, Spawner(lab.environment()) as spawner:
        disk = lab.btrfs()
        data, log, space = (disk.subvolume(name) for name in ("data", "log", "space"))
        cluster = lab.cluster(data, log)
        shutil.chown(space, "postgres", "postgres")
        cluster.start()
        made = Proving(lab, spawner, disk, cluster, space)
        made.sql(f"create tablespace elsewhere location '{space}'")
        for table, where in (("stock", "pg_default"), ("far", "elsewhere")):
            made.sql(f"create table {table} (id int primary key, n int, filler text) tablespace {where}")
            made.sql(f"insert into {table} select i, i, repeat('x', 60) from generate_series(1, {ROWS}) i")
        made.sql("checkpoint")
        yield made


PASSING = re.compile(r"(-wal|-shm)$|/slackwater/guard/|pg_ctlcluster")
"""What comes and goes by itself; Debian's command for a start looks on for some seconds."""


def left(world: Proving) -> frozenset[str]:
    """What is there, but for what comes and goes by itself."""
    return frozenset(each for each in world.lab.inventory().lines if not PASSING.search(each))


def test_a_trial_keeps_nothing_and_writes_a_receipt(world: Proving) -> None:
    world.obeyed("reconcile")
    before = left(world)
    receipt = world.obeyed("try", world.cluster.ref)
    assert receipt["size_bytes"] > 20 << 20
    assert [each["name"] for each in receipt["plan"]["volumes"]] == ["data", "log", "space"]
    assert receipt["plan"]["reason"]
    assert receipt["longest_gap_ms"] >= receipt["window"]["held_ms"], "a client waits at least as long as writes do"
    assert receipt["back_ms"] > 0
    (checks,) = receipt["verification"]["found"].values()
    assert checks["amcheck"] == "tables and indexes of all databases are sound"
    assert checks["checksums"] == "off in this cluster"
    until(lambda: left(world) == before)
    assert world.obeyed("replica", "list")["replicas"] == []
    (session,) = [each for each in world.obeyed("session", "list")["sessions"] if each["kind"] == "trial"]
    assert session["outcome"] == "completed"


def test_a_backup_verifies_itself_and_asks_the_question_of_its_specification(world: Proving) -> None:
    asked = f'query = "select sum(n) from far"\nexpect = "{ROWS * (ROWS + 1) // 2}"'
    world.specify("proven", replica='verify = "always"\nkeep = 1', verify=asked)
    first, second = (world.obeyed("backup", "proven") for _ in range(2))
    assert first["verification"]["passed"]
    assert first["verification"]["recovery_ms"] > 0
    assert next(iter(first["verification"]["found"].values()))["question"].startswith("answered as expected")
    assert [each["replica"] for each in second["rotated"]] == [first["replica"]], "the old goes when the new is proven"
    stands = world.replica(second["replica"])
    assert (stands["state"], stands["verified"]) == ("good", second["verification"]["at"])

    world.specify("proven", replica='verify = "always"\nkeep = 1', verify=asked.replace('expect = "', 'expect = "9'))
    third = world.command("backup", "proven")
    assert third.status == 20, third
    assert not third.document["verification"]["passed"]
    assert "was expected" in third.document["verification"]["error"]
    assert third.document["rotated"] == []
    assert world.replica(third.document["replica"])["state"] == "failed"
    assert world.replica(second["replica"])["state"] == "good", "what is proven stays while the new one is not"
    shown = world.command("recover", "proven", "--preview")
    assert shown.document["replica"] == second["replica"], "what failed is not taken by itself"
    forced = world.command("recover", "proven", "--replica", third.document["replica"], "--preview").document
    assert "verification-failed" in {each["code"] for each in forced["findings"]}

    world.specify("proven", replica='verify = "daily"\nkeep = 3')
    assert world.obeyed("backup", "proven")["verification"] is None, "one of today was verified"
    for each in world.obeyed("replica", "list", "proven")["replicas"]:
        world.obeyed("replica", "delete", each["id"], "--yes")


def test_damage_that_nothing_else_notices_is_found_by_a_verification(world: Proving) -> None:
    world.specify("plain", replica="keep = 9")
    page = world.sql("select pg_relation_filepath('stock')")
    replicas = [world.obeyed("backup", "plain")["replica"] for _ in range(4)]
    flipped, unlogged, homeless, beheaded = replicas
    assert world.obeyed("replica", "verify", flipped)["verification"]["passed"], "the twin without damage"

    world.damage(flipped, "data", flip_page(page), unnoticed=False)
    assert "written to" in world.failed(20, "replica-altered", "replica", "verify", flipped)
    world.damage(flipped, "data", flip_page(page), unnoticed=True)
    assert "pg_amcheck" in world.failed(20, "damaged", "replica", "verify", flipped)

    world.damage(unlogged, "log", without_log, unnoticed=True)
    assert "did not start" in world.failed(20, "not-started", "replica", "verify", unlogged)

    world.damage(homeless, "space", without_files, unnoticed=True)
    assert "pg_amcheck" in world.failed(20, "damaged", "replica", "verify", homeless)

    world.damage(beheaded, "data", lambda root: os.unlink(f"{root}/global/pg_control"), unnoticed=True)
    assert "pg_control" in world.failed(20, "control-file", "replica", "verify", beheaded)

    assert {world.replica(each)["state"] for each in replicas} == {"failed"}
    assert all(world.replica(each)["verification"]["error"] for each in replicas)
    world.obeyed("reconcile")
    assert {world.replica(each)["state"] for each in replicas} == {"failed"}, "a reconcile does not make them good"
    world.failed(4, "no-replica", "recover", "plain", "--preview")
    assert world.obeyed("status")["specifications"][-1]["last_good"] == ""
    for each in replicas:
        world.obeyed("replica", "delete", each, "--yes")


def test_a_clone_is_written_to_and_the_live_database_stays_as_it_is(world: Proving) -> None:
    replica = world.obeyed("backup", world.cluster.ref)["replica"]
    before, files = left(world), world.live_files()
    made = world.obeyed("clone", "create", replica, "--name", "test")["clone"]
    assert made["running"]
    assert made["replica"] == replica
    (door,) = made["reached"].values()
    tablespace = world.sql("select oid from pg_tablespace where spcname = 'elsewhere'")
    link = f".slackwater/{made['id']}/clone-data/pg_tblspc/{tablespace}"
    assert os.readlink(f"{world.disk.path}/{link}") == world.space, "the clone still holds the link into production"

    inside = namespaces.inside(namespaces.mark_of(_owner(world), made["id"]))
    with _connected(door) as clone:
        settings = "listen_addresses", "archive_mode", "max_wal_senders", "max_logical_replication_workers"
        assert [_one(clone, f"show {each}") for each in settings] == ["", "off", "0", "0"]
        clone.execute("update far set n = n + 1")
        clone.execute("checkpoint")
        assert _one(clone, "select sum(n) from far") == str(ROWS * (ROWS + 1) // 2 + ROWS)
    lines = run(*inside, "cat", "/proc/net/dev").output.splitlines()[2:]
    assert {line.partition(":")[0].strip() for line in lines} <= {"lo"}
    for path in (world.lab.folder, world.disk.path, world.lab.state_dir):
        assert run(*inside, "touch", f"{path}/stray", check=False).status != 0, "all else can only be read"
    assert world.live_files() == files
    assert {each["component"] for each in world.obeyed("discover")["components"]} >= {world.cluster.ref}
    assert not [e for e in world.obeyed("discover")["components"] if "container" in e["component"] and "data" in str(e)]
    world.failed(5, "name-taken", "clone", "create", replica, "--name", "test")
    assert not world.obeyed("catalog", "check")["differences"]

    # A recovery ends the engine: with other volumes in these places the clone's links would lead into those.
    (listed,) = world.obeyed("clone", "list")["clones"]
    assert (listed["name"], listed["running"], listed["expires"] is not None) == ("test", True, True)
    foreseen = world.command("recover", world.cluster.ref, "--preview")
    assert (foreseen.status, "clone-over" in {each["code"] for each in foreseen.document["findings"]}) == (0, True)
    world.obeyed("recover", world.cluster.ref, "--yes")
    assert not world.obeyed("clone", "list")["clones"][0]["running"]
    assert world.sql("select sum(n) from far") == str(ROWS * (ROWS + 1) // 2)
    world.obeyed("recover", world.cluster.ref, "--undo", "--yes")

    world.obeyed("clone", "delete", "test", "--yes")
    for each in world.obeyed("replica", "list")["replicas"]:
        if each["kind"] == "undo":
            world.obeyed("replica", "delete", each["id"], "--yes")
    until(lambda: left(world) == before)

    world.obeyed("clone", "create", replica, "--name", "brief", "--ttl", "1s")
    time.sleep(1.1)
    assert world.obeyed("reconcile")["clones"] == ["brief"]
    until(lambda: left(world) == before)


def test_without_namespaces_the_same_clone_would_write_into_the_live_database(world: Proving) -> None:
    """The sabotaged twin: the oracle of the test above sees what the namespaces keep from happening."""
    replica = world.obeyed("backup", world.cluster.ref)["replica"]
    files, place = world.live_files(), f"{world.lab.folder}/naked"
    world.obeyed("replica", "mount", replica, place, "--read-write")
    data, sockets = f"{place}/data", f"{world.lab.folder}/naked-socket"
    os.unlink(f"{data}/postmaster.pid")
    os.unlink(f"{data}/pg_wal")
    os.symlink(f"{place}/log", f"{data}/pg_wal")
    os.mkdir(sockets)
    shutil.chown(sockets, "postgres", "postgres")
    config = f"-c config_file={world.cluster.config_dir}/postgresql.conf -c data_directory={data} -c external_pid_file="
    options = f"{config} -c unix_socket_directories={sockets} -c listen_addresses= -c port=5432"
    words = (f"{world.cluster.binaries}/pg_ctl", "-w", "-D", data, "-l", f"{sockets}/log")
    run(*words, "start", "-o", options, user="postgres", group="postgres", fold_output=True)
    with _connected({"socket_directory": sockets, "port": 5432}) as clone:
        clone.execute("update far set n = n + 1")
        clone.execute("checkpoint")
    run(*words, "stop", "-m", "fast", user="postgres", group="postgres", fold_output=True)
    assert world.live_files() != files
    assert world.obeyed("replica", "unmount", place + "/data", "--yes")["clones"] == []
    assert world.obeyed("replica", "unmount", replica, "--yes")["clones"] == [f"mount-{_last_mount(world, replica)}"]
    world.obeyed("recover", world.cluster.ref, "--replica", replica, "--yes")  # undoes the harm in data and log...
    assert world.sql("select sum(n) from far") == str(ROWS * (ROWS + 1) // 2)  # ...and in the tablespace


def test_what_is_killed_leaves_nothing(world: Proving) -> None:
    replica = world.obeyed("backup", world.cluster.ref)["replica"]
    before, place = left(world), f"{world.lab.folder}/killed"
    verify, clone = ("replica", "verify", replica), ("clone", "create", replica, "--name", "killed")
    mount = ("replica", "mount", replica, place, "--read-write")
    for words, event, text, sign in (
        (verify, "phase", "start", signal.SIGKILL),
        (verify, "phase", "verify", signal.SIGKILL),
        (clone, "phase", "clone", signal.SIGINT),
        (clone, "phase", "start", signal.SIGKILL),
        (mount, "session", "", signal.SIGKILL),
        (("try", world.cluster.ref), "phase", "verify", signal.SIGKILL),
    ):
        session = world.spawn(*words)
        reach(session, event, text)
        time.sleep(0.1)
        session.send(sign)
        ended = session.wait()
        world.obeyed("reconcile")
        if words == mount and world.replica(replica)["presented"]:
            assert ended in (0, -signal.SIGKILL)
            world.obeyed("replica", "unmount", replica, "--yes")  # it had come to its end
        until(lambda: left(world) == before)
        assert not os.path.exists(place), words
        assert world.obeyed("clone", "list")["clones"] == [], words
    assert world.replica(replica)["verification"] is None
    assert next(each["id"] for each in world.obeyed("replica", "list", world.cluster.ref)["replicas"]) == replica


def test_a_replica_is_mounted_read_only_and_stays_while_somebody_looks(world: Proving) -> None:
    world.specify("looked-at", replica="keep = 1")
    replica = world.obeyed("backup", "looked-at")["replica"]
    before, place = left(world), f"{world.lab.folder}/look/into"
    done = world.obeyed("replica", "mount", replica, place)
    assert {each["volume"]: each["path"] for each in done["mounts"]}[world.space] == f"{place}/space"
    shown = mounts.at(f"{place}/data")
    assert shown is not None
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(shown.options)
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir(f"{place}/data/x")
    assert world.replica(replica)["presented"]
    world.failed(5, "mounted", "replica", "delete", replica, "--yes")
    newer = world.obeyed("backup", "looked-at")
    assert newer["rotated"] == [], "what is looked at stays"
    world.failed(5, "occupied", "replica", "mount", replica, place)
    os.mkdir(f"{world.lab.folder}/full")
    os.mkdir(f"{world.lab.folder}/full/data")
    with open(f"{world.lab.folder}/full/data/x", "w", encoding="utf-8"):
        pass
    world.failed(5, "occupied", "replica", "mount", replica, f"{world.lab.folder}/full")
    world.failed(4, "not-mounted", "replica", "unmount", f"{world.lab.folder}/full")
    with open(f"{place}/data/PG_VERSION", encoding="utf-8"):
        assert "held" not in world.failed(5, "busy-mount", "replica", "unmount", f"{place}/data")
    run("umount", f"{place}/space")
    assert world.replica(replica)["presented"]
    world.obeyed("replica", "unmount", replica)
    assert not world.replica(replica)["presented"]
    assert not os.path.exists(f"{world.lab.folder}/look"), "the folders that were made are gone"
    shutil.rmtree(f"{world.lab.folder}/full")
    newest = world.obeyed("backup", "looked-at")
    assert {each["replica"] for each in newest["rotated"]} == {replica, newer["replica"]}

    used = newest["replica"]
    world.obeyed("replica", "mount", used, place, "--read-write")
    with open(f"{place}/data/note", "w", encoding="utf-8") as f:
        f.write("mine")
    world.obeyed("replica", "unmount", used, "--yes")
    assert world.replica(used)["used"]
    shown_again = world.command("recover", "looked-at", "--replica", used, "--preview").document
    assert "used" in {each["code"] for each in shown_again["findings"]}
    assert world.obeyed("replica", "verify", used)["verification"]["passed"], "what was written was not written to it"
    for each in world.obeyed("replica", "list", "looked-at")["replicas"]:
        world.obeyed("replica", "delete", each["id"], "--yes")
    assert left(world) < before


def test_a_clone_on_xfs_is_a_directory_of_files_that_share_their_extents(world: Proving) -> None:
    disk = world.lab.xfs()
    cluster = world.lab.cluster(f"{disk.path}/pg")
    cluster.start()
    xfs = Proving(world.lab, world.spawner, world.disk, cluster, f"{disk.path}/pg/base")
    xfs.sql(f"create table far as select i as n from generate_series(1, {ROWS}) i")
    receipt = xfs.obeyed("try", cluster.ref)
    assert receipt["plan"]["volumes"][0]["provider"] == "reflink"
    assert receipt["verification"]["passed"]
    assert [each for each in os.listdir(disk.path) if each != "pg"] == []
    replica = xfs.obeyed("backup", cluster.ref)["replica"]
    files = xfs.live_files()
    (door,) = xfs.obeyed("clone", "create", replica, "--name", "xfs")["clone"]["reached"].values()
    with _connected(door) as clone:
        clone.execute("update far set n = n + 1")
        clone.execute("checkpoint")
    assert xfs.live_files() == files
    xfs.obeyed("recover", cluster.ref, "--yes")
    assert xfs.sql("select sum(n) from far") == str(ROWS * (ROWS + 1) // 2)
    assert not xfs.obeyed("clone", "list")["clones"][0]["running"]
    xfs.obeyed("clone", "delete", "xfs", "--yes")
    cluster.stop()


def test_one_bit_in_somebodys_data_is_found_by_the_checksums(world: Proving) -> None:
    cluster = world.lab.cluster(world.disk.subvolume("summed"), checksums=True)
    cluster.start()
    other = Proving(world.lab, world.spawner, world.disk, cluster, world.space)
    other.sql(f"create table stock as select i as n, repeat('x', 60) as filler from generate_series(1, {ROWS}) i")
    other.sql("create index summed on stock using hash (n)")  # of which pg_amcheck knows nothing
    page = other.sql("select pg_relation_filepath('summed')")
    replica = other.obeyed("backup", cluster.ref)["replica"]
    (checks,) = other.obeyed("replica", "verify", replica)["verification"]["found"].values()
    assert checks["checksums"].startswith("good in ")
    other.damage(replica, "summed", flip_bit(page), unnoticed=True)
    assert "pg_checksums" in other.failed(20, "damaged", "replica", "verify", replica)
    cluster.stop()


def _owner(world: Proving) -> str:
    with open(f"{world.lab.state_dir}/owner", encoding="ascii") as f:
        return f.read().strip()


def _last_mount(world: Proving, replica: str) -> str:
    sessions = world.obeyed("session", "list")["sessions"]
    return str([e["id"] for e in sessions if e["kind"] == "mount" and e["replica"] == replica][-1])


def _one(connection: "psycopg.Connection[Any]", query: str) -> str:
    row = connection.execute(query.encode()).fetchone()
    return str(row[0]) if row else ""


def _connected(door: Mapping[str, object]) -> "psycopg.Connection[Any]":
    return connect(str(door["socket_directory"]), int(str(door["port"])), "postgres", autocommit=True)
