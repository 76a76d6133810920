# SPDX-License-Identifier: Apache-2.0
"""The catalog lost, old, full, locked, read-only, damaged: what is said, what is lost, and how it comes back."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import tarfile
from collections.abc import Iterator
from glob import glob
from typing import Any

import pytest

from slackwater.system.command import run
from tests.e2e.luck_support import MIB, NAME, World, failed, filesystem, look, new_world, reach, tables

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

REBUILD = " && slackwater catalog rebuild"
PIN = "trusted.slackwater.pinned"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


@pytest.fixture
def catalog(world: World) -> Iterator[str]:
    """The catalog's file, with nothing in its log; afterwards there is a new one that knows what the storage holds."""
    path = f"{world.lab.state_dir}/catalog.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    yield path
    lose(path)
    shutil.rmtree(f"{world.lab.state_dir}/damaged", ignore_errors=True)
    world.run("catalog", "rebuild")
    assert differences(world) == {}


def differences(world: World) -> dict[str, str]:
    """Kinds of differences by replica."""
    answer = world.run("catalog", "check", check=False)
    assert answer.status == (1 if answer.document["differences"] else 0)
    return {each["replica"]: each["kind"] for each in answer.document["differences"]}


def replicas(world: World) -> list[dict[str, Any]]:
    return list(world.run("replica", "list").document["replicas"])


def lose(catalog: str) -> None:
    for each in glob(f"{catalog}*"):
        os.unlink(each)


def place(world: World, replica: str) -> str:
    return f"{world.disk.path}/.slackwater/{replica}"


def test_everything_is_known_again(world: World, catalog: str) -> None:
    """With pins, what recoveries learnt, and no id given twice."""
    world.run("replica", "pin", world.replica)
    second = world.run("backup", NAME).document["replica"]
    undo = world.run("recover", NAME, "--yes").document["undo_replica"]
    before = replicas(world)
    assert {each["id"] for each in before} == {world.replica, second, undo}
    lose(catalog)
    assert differences(world) == dict.fromkeys((world.replica, second, undo), "unknown")
    for _ in range(2):
        listed = world.run("replica", "list")
        assert listed.document["replicas"] == []
        assert "slackwater catalog rebuild" in listed.complaint, "an empty list does not stand alone"
        with open(catalog, "wb"):
            pass  # and now one that was emptied
    done = world.run("catalog", "rebuild").document
    assert (done["restored"], done["pinned"], done["left"]) == ([world.replica, second, undo], [world.replica], [])
    assert replicas(world) == before
    again = world.run("catalog", "rebuild").document
    assert (again["restored"], sorted(again["known"])) == ([], sorted(done["restored"]))
    told = {each["id"]: each["kind"] for each in world.run("session", "list").document["sessions"]}
    assert told == {world.replica: "backup", second: "backup", undo: "recovery"}
    learnt = world.run("session", "show", undo).document["session"]["document"]["recovered"]
    assert learnt[world.cluster.ref]["timeline"] >= 1
    assert world.run("recover", NAME, "--undo", "--preview").document["replica"] == undo
    third = world.run("backup", NAME).document["replica"]
    assert third not in done["restored"]
    world.specify(NAME, replica="keep = 1")
    last = world.run("backup", NAME).document
    assert {each["replica"] for each in last["rotated"]} == {second, third}, (
        "the pin holds, and what was set aside stays"
    )
    assert {each["id"] for each in replicas(world)} == {world.replica, undo, last["replica"]}
    world.specify(NAME)
    world.run("replica", "unpin", world.replica)


def test_an_old_catalog_put_back_takes_in_what_came_since(world: World, catalog: str) -> None:
    """What it still knows and the storage does not is missing; an id is not given a second time."""
    gone = world.run("backup", NAME).document["replica"]
    with contextlib.closing(sqlite3.connect(catalog)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copyfile(catalog, f"{world.lab.folder}/old.sqlite")
    since = world.run("backup", NAME).document["replica"]
    world.run("replica", "delete", gone, "--yes")
    lose(catalog)
    shutil.copyfile(f"{world.lab.folder}/old.sqlite", catalog)
    assert differences(world) == {gone: "missing", since: "unknown"}
    made = world.run("backup", NAME).document["replica"]
    assert made not in {gone, since, world.replica}
    assert since in {*world.run("catalog", "rebuild").document["known"], *(each["id"] for each in replicas(world))}
    world.run("reconcile")
    assert differences(world) == {gone: "missing"}
    world.run("replica", "delete", gone, "--yes")
    assert differences(world) == {}


def test_an_export_brings_back_what_the_storage_cannot_tell(world: World, catalog: str) -> None:
    path = f"{world.lab.folder}/catalog.json"
    world.run("replica", "delete", world.run("backup", NAME).document["replica"], "--yes")
    told = world.run("session", "list").document["sessions"]
    before = replicas(world)
    assert world.run("catalog", "export", path).document["replicas"] == len(before)
    lose(catalog)
    world.run("catalog", "rebuild")
    assert len(world.run("session", "list").document["sessions"]) < len(told)
    done = world.run("catalog", "import", path).document
    assert (done["replicas"], done["missing"]) == ([], [])
    assert {each["id"] for each in world.run("session", "list").document["sessions"]} == {each["id"] for each in told}
    lose(catalog)
    assert world.run("catalog", "import", path).document["missing"] == []
    assert replicas(world) == before
    assert world.run("session", "list").document["sessions"] == told
    assert differences(world) == {}


@pytest.mark.parametrize("how", ["removed", "flipped", "written to", "not read-only"])
def test_what_is_not_whole_is_named_and_left(world: World, catalog: str, how: str) -> None:
    replica = world.run("backup", NAME).document["replica"]
    document = f"{place(world, replica)}/components.json"
    with open(document, "rb") as f:
        whole = f.read()
    copy = f"{place(world, replica)}/pg"
    if how == "removed":
        os.unlink(document)
    elif how == "flipped":
        at = whole.index(b"subvolume_uuid") + 20
        with open(document, "wb") as f:
            f.write(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    else:
        run("btrfs", "property", "set", copy, "ro", "false")
        if how == "written to":
            with open(f"{copy}/stray", "w", encoding="utf-8") as f:
                f.write("x")
            run("btrfs", "property", "set", copy, "ro", "true")
    lose(catalog)
    answer = world.run("catalog", "rebuild", check=False)
    assert answer.status == 10
    assert replica not in answer.document["restored"]
    assert world.replica in answer.document["restored"]
    (left,) = answer.document["left"]
    assert left.startswith(replica)
    assert differences(world) == {replica: "undocumented" if how in ("removed", "flipped") else "unknown"}
    with open(document, "wb") as f:
        f.write(whole)
    run("btrfs", "property", "set", copy, "ro", "false")
    run("btrfs", "subvolume", "delete", copy)
    shutil.rmtree(place(world, replica))


def test_a_pin_is_noted_beside_the_replica(world: World, catalog: str) -> None:
    directory = place(world, world.replica)
    assert PIN not in os.listxattr(directory)
    world.run("replica", "pin", world.replica)
    assert PIN in os.listxattr(directory)
    os.removexattr(directory, PIN)
    assert differences(world) == {world.replica: "pin"}
    world.run("reconcile")
    assert PIN in os.listxattr(directory)
    assert differences(world) == {}
    world.run("replica", "unpin", world.replica)
    assert PIN not in os.listxattr(directory)
    os.setxattr(directory, PIN, b"yes")
    world.specify(NAME, replica="keep = 1")
    assert world.replica not in {each["replica"] for each in world.run("backup", NAME).document["rotated"]}
    world.specify(NAME)
    world.run("replica", "unpin", world.replica)


def test_old_sessions_are_forgotten_after_a_backup(world: World, catalog: str) -> None:
    """Those stay to which a replica refers; without the setting all of them do."""
    deletion = world.run("replica", "delete", world.run("backup", NAME).document["replica"], "--yes").document[
        "session"
    ]
    world.run("backup", NAME)
    settings = f"{world.lab.config_dir}/slackwater.toml"
    assert deletion in sessions(world)
    with open(settings, "w", encoding="utf-8") as f:
        f.write('[catalog]\nkeep_sessions = "1ms"\n')
    try:
        said = [each["text"] for each in world.run("backup", NAME).document["messages"]]
    finally:
        os.unlink(settings)
    assert [each for each in said if "old sessions were forgotten" in each]
    assert sessions(world) == {each["id"] for each in replicas(world)}


def sessions(world: World) -> set[str]:
    return {each["id"] for each in world.run("session", "list").document["sessions"]}


def test_a_bundle_shows_the_engine_that_runs_here(world: World, catalog: str) -> None:
    path = f"{world.lab.folder}/report.tar.gz"
    done = world.run("doctor", "--bundle", path).document
    assert (done["failed"], os.stat(path).st_mode & 0o777) == ([], 0o600)
    with tarfile.open(path) as archive:
        engines, storage = (archive.extractfile(f"slackwater-bundle/{name}.json") for name in ("engines", "storage"))
        assert engines is not None
        assert storage is not None
        shown = {each["component"]: each["running"] for each in json.load(engines)["components"]}
        assert shown[world.cluster.ref] is True
        assert {each["session"] for each in json.load(storage)} == {each["id"] for each in replicas(world)}


# -- faults ------------------------------------------------------------------------------------------------------------

LOOKING = [("replica", "list"), ("session", "list"), ("status",), ("catalog", "check"), ("recover", NAME, "--preview")]
WRITING = [
    ("backup", NAME),
    ("recover", NAME, "--yes"),
    ("reconcile",),
    ("catalog", "rebuild"),
    ("replica", "pin", "latest"),
]


@contextlib.contextmanager
def costs_nothing(world: World) -> Iterator[None]:
    """What is inside leaves no trace, and the database goes on; it has been recovered, so no connection is older."""
    before, tables_before = look(world.lab), tables(world.cluster)
    yield
    assert not (changed := before ^ look(world.lab)), sorted(changed)
    assert tables(world.cluster) == tables_before


@pytest.mark.parametrize(
    ("how", "asked"),
    [("flipped", [*LOOKING, *WRITING]), ("truncated", LOOKING[:2]), ("another database", WRITING[-2:])],
)
def test_a_damaged_catalog_is_had_back_by_the_hint(
    world: World, catalog: str, how: str, asked: list[tuple[str, ...]]
) -> None:
    before = replicas(world)
    damage(catalog, how)
    with costs_nothing(world):
        errors = [failed(world.run(*words, check=False), 1, "catalog") for words in asked]
    assert len({error["hint"] for error in errors}) == 1
    assert {error["data"] for error in errors} <= {"Replicas on the storage are untouched.", "Nothing was changed."}
    by_doctor = {each["name"]: each for each in world.run("doctor", check=False).document["checks"]}["catalog"]
    assert (by_doctor["health"], "catalog rebuild" in by_doctor["hint"]) == ("failed", True)
    hint = errors[0]["hint"].partition(": ")[2]
    assert hint.endswith(REBUILD)
    run("bash", "-ec", hint.removesuffix(REBUILD))
    assert {each["id"] for each in before} == set(world.run("catalog", "rebuild").document["restored"])
    assert replicas(world) == before


def damage(catalog: str, how: str) -> None:
    size = os.path.getsize(catalog)
    if how == "another database":
        lose(catalog)
        with contextlib.closing(sqlite3.connect(catalog)) as database:
            database.execute("CREATE TABLE accounts (id INTEGER)")
        return
    with open(catalog, "r+b") as f:
        if how == "truncated":
            f.truncate(size // 2)
        elif how == "overwritten":
            f.write(b"Not a database." * 8)
        else:
            for at in range(4096, size):  # every page but the first, whose header says what it is
                f.seek(at)
                byte = f.read(1)[0]
                f.seek(at)
                f.write(bytes([byte ^ 0xFF]))


def test_a_catalog_on_a_read_only_filesystem(world: World, catalog: str) -> None:
    state = world.lab.state_dir
    run("mount", "--bind", state, state)
    run("mount", "-o", "remount,bind,ro", state)
    try:
        with costs_nothing(world):
            for words in (*LOOKING, *WRITING):
                error = failed(world.run(*words, check=False), 1, "catalog")
                assert "read-only" in error["sentence"]
                assert "remount,rw" in error["hint"]
    finally:
        run("umount", state)


def test_a_catalog_that_somebody_holds(world: World, catalog: str) -> None:
    """Looking goes on beside whoever writes; a session waits for ten seconds, and then says who stands in its way."""
    with contextlib.closing(sqlite3.connect(catalog, isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        for words in LOOKING:
            assert world.run(*words).status == 0
        waiting = world.spawner.spawn("backup", NAME)
        error = failed(waiting.answer(), 3, "busy")
        assert "held the catalog" in error["sentence"]
        somebody.execute("ROLLBACK")


def test_a_full_disk_under_the_catalog(world: World, catalog: str) -> None:
    """A real one; what cannot be written is said, and the rest goes on when there is room again."""
    state = world.lab.state_dir
    small = filesystem(world.lab, "ext4", 4 * MIB, "small")
    run("cp", "-a", f"{state}/.", small)
    run("mount", "--bind", small, state)
    try:
        run("dd", "if=/dev/zero", f"of={small}/filler", "bs=1K", check=False)
        for words in WRITING[:2]:
            with costs_nothing(world):
                answer = world.run(*words, check=False)
                error = failed(answer, 1, answer.document["error"]["code"])
                assert error["code"] in ("catalog", "journal")
        os.unlink(f"{small}/filler")
        world.run("reconcile")
        assert differences(world) == {}
    finally:
        run("umount", state)
        run("umount", small)


def test_a_backup_whose_catalog_is_deleted_meanwhile_is_not_lost(world: World, catalog: str) -> None:
    """It may not even notice: what it writes goes into files that have no name any more."""
    session = world.spawner.spawn("backup", NAME, "--progress", "json")
    name = reach(session, "session")
    reach(session, "phase", "snapshot")
    session.send(signal.SIGSTOP)
    lose(catalog)
    session.send(signal.SIGCONT)
    answer = session.answer()
    if answer.status != 0:
        assert name in failed(answer, 1, "catalog")["data"]
    assert name in world.run("reconcile").document["adopted"]
    assert differences(world) == {}
    assert world.run("recover", NAME, "--preview").document["replica"] == name


@pytest.mark.parametrize("how", ["overwritten", "truncated"])
def test_a_backup_in_progress_is_not_lost(world: World, catalog: str, how: str) -> None:
    """The document lies beside the copies; the catalog that breaks meanwhile is had back with the new replica in it."""
    session = world.spawner.spawn("backup", NAME, "--progress", "json")
    name = reach(session, "session")
    reach(session, "phase", "snapshot")
    session.send(signal.SIGSTOP)
    damage(catalog, how)
    with contextlib.suppress(FileNotFoundError):  # the session had come to its end
        os.truncate(f"{catalog}-wal", 0)
    session.send(signal.SIGCONT)
    answer = session.answer()
    if answer.status != 0:
        error = failed(answer, 1, "catalog")
        assert name in error["data"]
    assert os.path.exists(f"{place(world, name)}/components.json")
    run("bash", "-ec", f"mkdir {world.lab.state_dir}/damaged; mv {catalog}* {world.lab.state_dir}/damaged/")
    assert name in world.run("catalog", "rebuild").document["restored"]
    assert differences(world) == {}
