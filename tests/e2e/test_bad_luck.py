# SPDX-License-Identifier: Apache-2.0
"""Bad input and bad luck, through the command: each costs nothing, says what to do next, and ends with its status."""

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterator

import pytest

from slackwater.system.command import run
from tests.e2e.luck_support import (
    MIB,
    NAME,
    Stray,
    World,
    against,
    as_nobody,
    failed,
    filesystem,
    holder,
    look,
    new_world,
    obeyed,
    reach,
    replica_of,
    specification,
    standing,
    state_of,
    tables,
    until,
)  # fmt: skip

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


@pytest.fixture(scope="module")
def stray(world: World) -> Stray:
    """It begins in a folder of the disk's top level."""
    cluster = world.lab.cluster(f"{world.disk.path}/stray")
    run("cp", "-a", cluster.data_dir, f"{world.lab.folder}/pristine")
    return Stray(cluster, f"{world.lab.folder}/pristine")


# -- names ---------------------------------------------------------------------------------------------------------


def test_a_component_that_does_not_exist(world: World) -> None:
    error = world.refused("backup", f"{world.cluster.ref}x", status=4, code="no-component")
    assert f"Did you mean {world.cluster.ref}" in error["hint"]
    assert failed(world.run("backup", "postgresql:15/no", "--preview", check=False), 4, "no-component")
    assert failed(world.run("backup", "oracle:xe", check=False), 4, "no-component")


def test_a_specification_or_replica_that_does_not_exist(world: World) -> None:
    error = world.refused("backup", "order", status=4, code="not-found")
    assert "Did you mean orders?" in error["hint"]
    world.refused("recover", NAME, "--replica", "2001-01-01-1", "--yes", status=4, code="not-found")
    world.refused("recover", NAME, "--undo", "--yes", status=4, code="no-replica")
    world.refused("replica", "delete", "2001-01-01-1", "--yes", status=4, code="not-found")
    world.refused("session", "abort", "2001-01-01-1", status=4, code="not-found")


def test_unknown_keys(world: World) -> None:
    with specification(world, "typo", replica='kep = 3\nmin_free = "5%"'):
        error = world.refused("backup", "typo", status=2, code="usage")
        assert "unknown key [replica] kep; did you mean keep?" in error["sentence"]
        assert "valid here: keep, " in error["sentence"]
        assert failed(world.run("backup", "typo", "--preview", check=False), 2, "usage") == error
        # The good ones beside it go on working, and the broken one is named where one looks.
        assert world.run("backup", NAME, "--preview").status == 0
        assert world.run("status").document["broken"] == ["typo"]
        listed = world.run("spec", "list").document["specifications"]
        assert {each["name"]: bool(each.get("error")) for each in listed} == {NAME: False, "typo": True}
        assert world.run("spec", "check", check=False).status == 2


# -- places --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ext4(world: World) -> str:
    return filesystem(world.lab, "ext4", 128 * MIB, "ext4")


def test_a_plain_directory_becomes_a_volume_by_the_hint(world: World, stray: Stray) -> None:
    error = world.refused("backup", stray.ref, status=5, code="top-level")
    assert against(world.run("backup", stray.ref, "--preview", check=False), "top-level")
    command = error["hint"].split(": ", 1)[1].split(", where")[0].replace("DIR", stray.cluster.data_dir)
    run("bash", "-ec", command)
    assert world.run("backup", stray.ref, "--preview").document["plan"]["hold"] == "cold"


def test_a_data_directory_beside_foreign_files(world: World, stray: Stray) -> None:
    shared = world.disk.subvolume("shared")
    stray.move(f"{shared}/data")
    os.mkdir(f"{shared}/photographs")
    error = world.refused("backup", stray.ref, status=5, code="foreign-files")
    assert f"{shared}/photographs/" in error["sentence"]
    assert "subvolume of its own" in error["hint"]
    with specification(world, "loose", stray.cluster.name, options='configuration_check = "disabled"') as loose:
        assert world.run("backup", loose, "--preview").document["findings"][0]["severity"] == "warning"


def test_a_stopped_one_on_another_filesystem_is_copied(world: World, stray: Stray, ext4: str) -> None:
    stray.move(f"{ext4}/data")
    plan = world.run("backup", stray.ref, "--preview").document["plan"]
    assert (plan["hold"], [each["provider"] for each in plan["volumes"]]) == ("cold", ["plain"])


def test_a_tablespace_on_another_filesystem(world: World, ext4: str) -> None:
    place = f"{ext4}/space"
    os.mkdir(place)
    run("chown", "postgres:", place)
    with world.cluster.connect(autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE away LOCATION '{place}'")
        try:
            error = world.refused("backup", NAME, status=5, code="copied-whole")
            assert place in error["sentence"]
            found = world.run("discover").document["components"]
            (own,) = [each for each in found if each["component"] == world.cluster.ref]
            assert not own["recoverable"]
            # The replica of before has no such tablespace: turning back would lose it.
            error = world.refused("recover", NAME, "--yes", status=5, code="layout-changed")
            assert place in error["sentence"]
        finally:
            connection.execute("DROP TABLESPACE away")
    assert world.run("backup", NAME, "--preview").status == 0


def test_a_nested_subvolume_becomes_a_directory_by_the_hint(world: World) -> None:
    nested = f"{world.cluster.data_dir}/base/nested"
    run("btrfs", "subvolume", "create", nested)
    error = world.refused("backup", NAME, status=5, code="nested-subvolume")
    assert nested in error["sentence"]
    error = world.refused("recover", NAME, "--yes", status=5, code="nested-subvolume")
    assert nested in error["sentence"]
    preview = against(world.run("backup", NAME, "--preview", check=False), "nested-subvolume")
    run("bash", "-ec", preview["hint"].split(": ", 1)[1])
    assert world.run("backup", NAME, "--preview").status == 0
    os.rmdir(nested)


def test_a_server_inside_a_container(world: World, stray: Stray) -> None:
    stray.move(f"{world.disk.subvolume('inside')}/data")
    server = (
        f"{stray.cluster.binaries}/postgres",
        "-D",
        stray.cluster.data_dir,
        "-c",
        f"config_file={stray.cluster.config_dir}/postgresql.conf",
    )
    user = "setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"
    contain = "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"
    with holder(world.lab, *contain, *user, *server):
        until(lambda: os.path.exists(f"{stray.cluster.data_dir}/postmaster.pid"))
        found = world.run("discover").document["components"]
        (inside,) = [each["component"] for each in found if each["component"].endswith(stray.cluster.data_dir)]
        error = world.refused("backup", inside, status=5, code="in-container")
        assert "container" in error["sentence"]
        # Its files are also those of a Debian cluster, which only looks stopped from here: never a cold replica.
        plan = world.run("backup", stray.ref, "--preview").document["plan"]
        assert plan["hold"] == "atomic"
        assert "nothing writes" not in plan["reason"]


def test_too_little_room_is_refused_before_anything(world: World) -> None:
    with specification(world, "roomy", replica='min_free = "99%"') as roomy:
        error = world.refused("backup", roomy, status=5, code="min-free")
        assert "[replica] min_free asks for 99%" in error["sentence"]
        assert against(world.run("backup", roomy, "--preview", check=False), "min-free")


def test_a_really_full_volume(world: World, stray: Stray) -> None:
    disk = world.lab.btrfs(256 * MIB)
    stray.move(disk.subvolume("full"))
    run("dd", "if=/dev/zero", f"of={disk.path}/filler", "bs=1M", check=False)
    run("sync", "-f", disk.path, check=False)
    assert "256 MiB" in world.refused("backup", stray.ref, status=5, code="min-free")["sentence"]
    with specification(world, "reckless", stray.cluster.name, replica='min_free = "0B"') as reckless:
        error = world.refused("backup", reckless, status=1, code="failed")
        assert "No space left on device" in error["sentence"]
        assert "undone" in error["data"]
        assert "Make room" in error["hint"]
    os.unlink(f"{disk.path}/filler")


# -- rights --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def role(world: World) -> str:
    """A role with a password and no rights, named in the cluster's pg_hba.conf."""
    path = f"{world.cluster.config_dir}/pg_hba.conf"
    with open(path, encoding="utf-8") as f:
        text = f.read()
    with open(path, "w", encoding="utf-8") as f:
        f.write("local all prober scram-sha-256\n" + text)
    with world.cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE ROLE prober LOGIN PASSWORD 'right'")
        connection.execute("SELECT pg_reload_conf()")
    return "prober"


def credentials(world: World, role: str, password: str) -> str:
    path = f"{world.lab.folder}/password"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
        f.write(f"*:*:*:{role}:{password}\n")
    return f'user = "{role}"\npassword_file = "{path}"'


def test_a_wrong_password(world: World, role: str) -> None:
    # Its name comes before that of the other specification of this component, which says nothing of passwords.
    assert NAME > "locked"
    with specification(world, "locked", component=credentials(world, role, "wrong")) as locked:
        error = world.refused("backup", locked, status=6, code="wrong-password")
        assert "password" in error["sentence"]
        assert "wrong" not in error["sentence"].replace("is wrong", "")  # it is not printed
        assert against(world.run("backup", locked, "--preview", check=False), "wrong-password")


def test_a_role_without_rights(world: World, role: str) -> None:
    with specification(world, "weak", component=credentials(world, role, "right")) as weak:
        error = world.refused("backup", weak, status=6, code="no-right")
        assert "GRANT pg_monitor" in error["hint"]
        with world.cluster.connect(autocommit=True) as connection:
            connection.execute(f"GRANT pg_monitor, pg_checkpoint TO {role}")
        assert world.run("backup", weak, "--preview").status == 0


@pytest.mark.parametrize(
    "words",
    [
        ("backup", NAME), ("recover", NAME, "--yes"), ("reconcile",), ("status",), ("replica", "list"),
        ("replica", "delete", "latest", "--yes"), ("spec", "create", "mine", "CLUSTER"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_root(world: World, words: tuple[str, ...]) -> None:
    before = state_of(world.lab)
    said = (world.cluster.ref if word == "CLUSTER" else word for word in words)
    error = failed(as_nobody(world.lab, *said), 6, "permission")
    assert "root" in error["hint"] or "sudo" in error["hint"]
    assert state_of(world.lab) == before


def test_looking_without_root(world: World) -> None:
    before = state_of(world.lab)
    assert "root" in against(as_nobody(world.lab, "backup", NAME, "--preview"), "permission")["hint"]
    shown = as_nobody(world.lab, "discover")
    assert shown.status == 0, shown.output
    (own,) = [each for each in shown.document["components"] if each["component"] == world.cluster.ref]
    assert not own["recoverable"]
    assert state_of(world.lab) == before


# -- several at once -----------------------------------------------------------------------------------------------


def test_two_sessions_at_once(world: World) -> None:
    with standing(world, "backup", NAME) as (_, first):
        before = state_of(world.lab)
        for command in (("backup", NAME), ("recover", NAME), ("replica", "delete", world.replica)):
            assert world.run(*command, "--preview").document["preview"]
        assert state_of(world.lab) == before, "a preview takes no lock and writes nothing"
        one_more = ("replica", "delete", world.replica, "--yes")
        for words in (("backup", NAME), ("recover", NAME, "--yes"), one_more, ("reconcile",)):
            error = world.refused(*words, status=3, code="busy")
            assert first in error["sentence"]
        world.refused("backup", NAME, "--wait", "300ms", status=3, code="busy")
        waiting = world.spawner.spawn("backup", NAME, "--wait", "60s", "--progress", "json")
        assert first in reach(waiting, "note", "Waiting up to")
        assert waiting.poll() is None
    second = obeyed(waiting.answer()).document["replica"]
    for replica in (first, second):
        world.run("replica", "delete", replica, "--yes")


@pytest.mark.parametrize("how", ["Ctrl-C", "Ctrl-C twice", "session abort"])
def test_a_backup_stopped_on_request(world: World, how: str) -> None:
    with world.costs_nothing():
        backup = world.spawner.spawn("backup", NAME, "--progress", "json")
        reach(backup, "phase", "prepare")
        backup.send(signal.SIGSTOP)
        session = reach(backup, "session")
        if how == "session abort":
            abort = world.spawner.spawn("session", "abort", session)
            until(lambda: pending(backup.pid, signal.SIGTERM))
        for _ in range(how.count("Ctrl-C") + how.count("twice")):
            backup.send(signal.SIGINT, group=True)
        backup.send(signal.SIGCONT)
        if how == "session abort":
            assert obeyed(abort.answer()).document["session"]["outcome"] == "aborted"
        error = failed(backup.answer(), 1, "aborted")
        assert "undone" in error["data"]
    (ended,) = [each for each in world.run("session", "list").document["sessions"] if each["id"] == session]
    assert ended["outcome"] == "aborted"


@pytest.mark.parametrize("after_ms", [60, 120, 250, 500])
def test_ctrl_c_before_anything_began(world: World, after_ms: int) -> None:
    """From the interpreter's start on; while its own modules are loaded (the first 30 ms) that is Python's affair."""
    with world.costs_nothing():
        command = world.lab.spawn("backup", NAME, "--preview")
        while command.poll() is None and worked_ms(command.pid) < after_ms:
            time.sleep(0.005)
        command.send_signal(signal.SIGINT)
        _, complaint = command.communicate(timeout=30)
    assert command.returncode in (0, 1, -signal.SIGINT)
    assert "Traceback" not in complaint or "/slackwater/" not in complaint


def worked_ms(pid: int) -> float:
    """How long a process has had a processor (proc_pid_stat(5)): on a busy machine less than has passed."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal waits for a process that stands still (proc(5))."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        masks = [int(line.split()[1], 16) for line in f if line.startswith(("ShdPnd", "SigPnd"))]
    return any(mask >> (number - 1) & 1 for mask in masks)


# -- behind our back -----------------------------------------------------------------------------------------------


def test_a_replica_deleted_behind_our_back(world: World) -> None:
    with replica_of(world, NAME) as replica:
        run("btrfs", "subvolume", "delete", f"{world.disk.path}/.slackwater/{replica}/pg")
        error = world.refused("recover", NAME, "--yes", status=5, code="replica-altered")
        assert f".slackwater/{replica}/pg" in error["sentence"]
        assert against(world.run("recover", NAME, "--preview", check=False), "replica-altered")
        assert differing(world) == [replica]
        assert world.run("reconcile").document["missing"] == [replica]
        listed = {each["id"]: each["state"] for each in world.run("replica", "list").document["replicas"]}
        assert listed[replica] == "missing"
        # What is left is what counts.
        assert world.run("status", NAME).document["specifications"][0]["last_good"] == world.replica
        assert world.run("recover", NAME, "--preview").document["replica"] == world.replica
        world.refused("recover", NAME, "--replica", replica, "--yes", status=5, code="replica-altered")
    assert differing(world) == []


@pytest.mark.parametrize("written", [False, True], ids=["made writable", "written"])
def test_a_replica_altered_behind_our_back(world: World, written: bool) -> None:
    with replica_of(world, NAME) as replica:
        copy = f"{world.disk.path}/.slackwater/{replica}/pg"
        run("btrfs", "property", "set", copy, "ro", "false")
        if written:
            with open(f"{copy}/PG_VERSION", "a", encoding="ascii") as f:
                f.write("\n")
            run("btrfs", "property", "set", copy, "ro", "true")
        error = world.refused("recover", NAME, "--yes", status=5, code="replica-altered")
        assert ("written to" if written else "no longer read-only") in error["sentence"]
        assert differing(world) == [replica]
    assert not os.path.exists(copy)


def differing(world: World) -> list[str]:
    """The replicas that `catalog check` names."""
    answer = world.run("catalog", "check", check=False)
    found = [str(each["replica"]) for each in answer.document["differences"]]
    assert answer.status == (1 if found else 0)
    return found


def test_a_volume_that_is_gone(world: World, stray: Stray) -> None:
    world.disk.subvolume("gone")
    mounted = world.disk.mount_subvolume("gone", f"{world.lab.folder}/gone")
    stray.move(mounted)
    with replica_of(world, stray.ref) as replica:
        world.disk.unmount(mounted)
        error = world.refused("recover", stray.ref, "--yes", status=4, code="volume-gone")
        assert mounted in error["sentence"]
        assert mounted in error["hint"]
        assert failed(world.run("recover", stray.ref, "--preview", check=False), 4, "volume-gone")
        error = world.refused("backup", stray.ref, status=5, code="control-file")
        assert "volume is mounted" in error["hint"]
        world.disk.mount_subvolume("gone", mounted)
        assert world.run("recover", stray.ref, "--preview").document["replica"] == replica


# -- in use --------------------------------------------------------------------------------------------------------


def test_a_process_in_the_volume(world: World) -> None:
    with holder(world.lab, "sleep", "60", cwd=f"{world.cluster.data_dir}/base") as process:
        found = against(world.run("recover", NAME, "--preview", check=False), "held")
        assert f"Process {process.pid} (sleep" in found["sentence"]
        assert f"kill {process.pid}" in found["hint"]
        world.refused("recover", NAME, "--yes", status=5, code="held")
        assert world.run("backup", NAME, "--preview").status == 0
    assert world.run("recover", NAME, "--preview").status == 0


def test_another_mount_namespace(world: World) -> None:
    with holder(world.lab, "unshare", "--mount", "sleep", "60") as process:
        until(lambda: os.readlink(f"/proc/{process.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"))
        found = against(world.run("recover", NAME, "--preview", check=False), "other-namespace")
        assert f"Process {process.pid} " in found["sentence"]
        world.refused("recover", NAME, "--yes", status=5, code="other-namespace")
        run("bash", "-ec", found["hint"].split("or: ")[1])
        assert world.run("recover", NAME, "--preview").status == 0


# -- our own files -------------------------------------------------------------------------------------------------


@pytest.fixture
def catalog(world: World) -> Iterator[str]:
    """The catalog's file, which is as it was afterwards."""
    yield from _kept(f"{world.lab.state_dir}/catalog.sqlite")


@pytest.fixture
def journal(world: World) -> Iterator[str]:
    """The journal's file, which is as it was afterwards."""
    yield from _kept(f"{world.lab.state_dir}/journal.sqlite")


def _kept(path: str) -> Iterator[str]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # a command that was stopped had left its -wal
    with open(path, "rb") as f:
        whole = f.read()
    yield path
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + suffix)
    with open(path, "wb") as f:
        f.write(whole)


EVERY = [("backup", NAME), ("recover", NAME, "--yes"), ("replica", "list"), ("status",), ("reconcile",)]


def test_a_catalog_of_a_newer_version(world: World, catalog: str) -> None:
    with contextlib.closing(sqlite3.connect(catalog)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    for words in EVERY:
        error = world.refused(*words, status=2, code="newer-catalog")
        assert "Update slackwater" in error["hint"]
    # What a preview says of rotation is in the catalog; what is here can be seen without it.
    world.refused("backup", NAME, "--preview", status=2, code="newer-catalog")
    assert world.run("discover").status == 0


def test_a_damaged_catalog(world: World, catalog: str) -> None:
    with open(catalog, "r+b") as f:
        f.write(b"Not a database." * 8)
    for words in EVERY:
        world.refused(*words, status=1, code="catalog")
    # What its hint says: the replicas describe themselves, and are found again.
    os.rename(catalog, f"{catalog}.damaged")
    adopted = world.run("reconcile").document["adopted"]
    assert world.replica in adopted
    assert world.run("recover", NAME, "--preview").document["replica"] == world.replica
    os.unlink(f"{catalog}.damaged")


def test_a_damaged_journal(world: World, journal: str) -> None:
    with open(journal, "r+b") as f:
        f.write(b"Not a database." * 8)
    for words in (("backup", NAME), ("recover", NAME, "--yes"), ("reconcile",)):
        world.refused(*words, status=1, code="journal")
    assert world.run("replica", "list").status == 0
    assert world.run("backup", NAME, "--preview").status == 0


@pytest.mark.parametrize("room_kib", [0, 16, 48, 96])
def test_a_full_disk_under_our_state(world: World, catalog: str, journal: str, room_kib: int) -> None:
    state = world.lab.state_dir
    small = filesystem(world.lab, "tmpfs", 2 * MIB, "small")
    run("cp", "-a", f"{state}/.", small)
    run("mount", "--bind", small, state)
    try:
        with world.costs_nothing():
            run("dd", "if=/dev/zero", f"of={small}/filler", "bs=1K", check=False)
            os.truncate(f"{small}/filler", max(0, os.path.getsize(f"{small}/filler") - room_kib * 1024))
            answer = world.run("backup", NAME, check=False)
            os.unlink(f"{small}/filler")
            world.run("reconcile")
            if room_kib < 64:
                assert failed(answer, 1, answer.document["error"]["code"])["code"] in ("catalog", "journal")
            if answer.status == 0:
                world.run("replica", "delete", answer.document["replica"], "--yes")
        assert differing(world) == []
    finally:
        run("umount", state)
        run("umount", small)


def test_a_preview_makes_no_state(world: World) -> None:
    kept, world.lab.state_dir = world.lab.state_dir, f"{world.lab.folder}/none"
    try:
        assert world.lab.slackwater("backup", NAME, "--preview").status == 0
        error = failed(world.lab.slackwater("recover", NAME, "--preview", check=False), 4, "no-replica")
        assert f"slackwater backup {NAME}" in error["hint"]
        assert not os.path.exists(world.lab.state_dir)
    finally:
        world.lab.state_dir = kept


def test_an_error_for_people(world: World) -> None:
    said = world.lab.slackwater("backup", f"{world.cluster.ref}x", check=False, json=False)
    assert (said.status, said.output) == (4, "")
    assert [line.split(":")[0].strip() for line in said.complaint.splitlines()[-3:]] == ["error", "data", "next"]


# -- a stopped database, last: it is recovered from -------------------------------------------------------------------


def test_a_stopped_database(world: World, stray: Stray) -> None:
    stray.move(world.disk.subvolume("cold"))
    before = look(world.lab)
    done = world.run("backup", stray.ref)
    assert done.status == 0
    assert done.document["outcome"] == "completed"
    assert done.document["consistency"] == "application"
    assert done.document["plan"]["hold"] == "cold"
    assert "stopped" in done.document["plan"]["reason"]
    stray.cluster.start()
    with stray.cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE later (x int)")
    back = world.run("recover", stray.ref, "--yes").document
    assert back["replica"] == done.document["replica"]
    assert tables(stray.cluster) == []
    world.run("recover", stray.ref, "--undo", "--yes")
    assert tables(stray.cluster) == ["later"]
    stray.cluster.stop()
    # Recovered while it is stopped, as after a crash: it runs afterwards.
    assert world.run("recover", stray.ref, "--yes").document["outcome"] == "completed"
    assert tables(stray.cluster) == []
    stray.cluster.stop()
    for replica in world.run("replica", "list", stray.ref).document["replicas"]:
        world.run("replica", "delete", replica["id"], "--yes")
    until(lambda: not before ^ look(world.lab))  # pg_ctlcluster ends seconds after its server is up
