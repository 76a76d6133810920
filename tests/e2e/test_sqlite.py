# SPDX-License-Identifier: Apache-2.0
"""A database of SQLite: backed up in every way while its application works, recovered, and undone."""

import contextlib
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slackwater.demo.disk import BtrfsDisk, XfsDisk
from slackwater.demo.lab import Answer, Lab
from slackwater.system.processes import stat_of
from tests.e2e.luck_support import MIB, against, failed, obeyed, spawned
from tests.e2e.spawner import Spawner
from tests.platform.crowd import eventually
from tests.platform.sqlite_support import APPLICATION, complaints, create

pytestmark = [pytest.mark.root]

#: What a user would write: both may be run when there is nothing to do.
START = """#!/bin/sh
grep -qs "^State:.[^ZX]" /proc/$(cat {pid_file} 2>/dev/null)/status && exit 0
setsid {python} {program} {path} {journal} {style} {acknowledged} >/dev/null 2>&1 &
echo $! > {pid_file}
"""
STOP = """#!/bin/sh
kill -9 $(cat {pid_file}) 2>/dev/null
for n in $(seq 500); do grep -qs "^State:.[^ZX]" /proc/$(cat {pid_file})/status || exit 0; sleep 0.01; done
exit 1
"""


@dataclass
class Shop:
    """An application with commands that stop and start it."""

    lab: Lab
    path: Path
    journal: str
    style: str = "persistent"

    def __post_init__(self) -> None:
        create(self.path, self.journal)
        self.folder = Path(self.lab.folder) / f"control-{self.path.parent.parent.name}-{self.path.parent.name}"
        self.folder.mkdir()
        (self.folder / "app.py").write_text(APPLICATION)
        for name, text in (("start", START), ("stop", STOP)):
            script = self.folder / name
            script.write_text(
                text.format(pid_file=self.folder / "pid", python=sys.executable, program=self.folder / "app.py",
                            path=self.path, journal=self.journal, style=self.style, acknowledged=self.acknowledged)
            )  # fmt: skip
            script.chmod(0o755)

    @property
    def acknowledged(self) -> Path:
        return self.folder / "acknowledged"

    @property
    def ref(self) -> str:
        return f"sqlite:{self.path}"

    @property
    def pid(self) -> int:
        return int((self.folder / "pid").read_text())

    @property
    def runs(self) -> bool:
        stat = stat_of(self.pid)
        return stat is not None and not stat.dead

    def last(self) -> int:
        lines = self.acknowledged.read_text().rpartition("\n")[0].splitlines() if self.acknowledged.exists() else []
        return int(lines[-1]) if lines else 0

    def command(self, name: str) -> None:
        subprocess.run([self.folder / name], check=True, env={**os.environ, **self.lab.environment()})

    def goes_on(self) -> bool:
        before = self.last()
        return eventually(lambda: self.last() != before, 10)

    def specify(self, name: str, hold: str = "auto", more: str = "") -> str:
        entry = f'[[component]]\nwriter = "sqlite"\ninstance = "{self.path}"\n{more}'
        text = f'name = "{name}"\n{entry}[options]\nhold = "{hold}"\nfreeze_timeout = "20s"\n'
        (Path(self.lab.config_dir) / "specs.d" / f"{name}.toml").write_text(text)
        return name

    @property
    def commands(self) -> str:
        return f'stop = "{self.folder}/stop"\nstart = "{self.folder}/start"\n'


@pytest.fixture(scope="module")
def disk(lab: Lab) -> BtrfsDisk:
    return lab.btrfs(1024 * MIB)


@contextlib.contextmanager
def shop(lab: Lab, disk: BtrfsDisk | XfsDisk, name: str, journal: str, style: str = "persistent") -> Iterator[Shop]:
    folder = Path(disk.subvolume(name) if isinstance(disk, BtrfsDisk) else f"{disk.path}/{name}")
    folder.mkdir(exist_ok=True)
    with serving(Shop(lab, folder / "app.db", journal, style)) as made:
        yield made


@contextlib.contextmanager
def serving(made: Shop) -> Iterator[Shop]:
    made.command("start")
    try:
        assert made.goes_on()
        yield made
    finally:
        made.command("stop")
        for each in (Path(made.lab.config_dir) / "specs.d").iterdir():
            each.unlink()


def _say(lab: Lab, name: str, text: str) -> None:
    (Path(lab.config_dir) / "specs.d" / f"{name}.toml").write_text(f'name = "{name}"\n{text}')


WAYS = [
    ("wal", "persistent", "atomic"), ("delete", "request", "application-lock"), ("wal", "request", "application-lock"),
    ("exclusive", "persistent", "process-freeze"),
]  # fmt: skip


@pytest.mark.parametrize(("journal", "style", "hold"), WAYS, ids=str)
def test_it_is_backed_up_at_work_recovered_and_undone(
    lab: Lab, disk: BtrfsDisk, spawner: Spawner, journal: str, style: str, hold: str
) -> None:
    there_and_back(lab, disk, spawner, (journal, style, hold), hold)


@pytest.mark.parametrize("way", [WAYS[1], WAYS[2], WAYS[3]], ids=str)
def test_it_is_where_each_file_has_an_instant_of_its_own(lab: Lab, spawner: Spawner, way: tuple[str, str, str]) -> None:
    """On XFS nothing but the hold makes one moment of database and log. It is chosen without being asked for: the lock,
    and where the application keeps everybody out the process freeze.
    """
    disk = lab.xfs_disks[0] if lab.xfs_disks else lab.xfs(512 * MIB)
    there_and_back(lab, disk, spawner, way, "auto")


def there_and_back(
    lab: Lab, disk: BtrfsDisk | XfsDisk, spawner: Spawner, way: tuple[str, str, str], asked: str
) -> None:
    journal, style, hold = way
    with shop(lab, disk, f"{journal}-{style}", journal, style) as app:
        name = app.specify("shop", asked, app.commands)
        before = app.last()
        taken = obeyed(spawned(spawner, "backup", name)).document
        assert (taken["plan"]["hold"], taken["consistency"]) == (hold, "application")
        assert (taken["window"]["frozen_ms"] > 0) is (hold != "atomic")
        assert app.goes_on()
        latest = app.last()
        first_pid = app.pid
        steps = obeyed(spawned(spawner, "recover", name, "--preview")).document["steps"]
        assert any(f"{app.folder}/stop" in each for each in steps)
        obeyed(spawned(spawner, "recover", name, "--yes"))
        assert app.pid != first_pid
        assert app.goes_on()
        app.command("stop")
        assert complaints(app.path, before) == []
        obeyed(spawned(spawner, "recover", name, "--undo", "--yes"))
        assert app.runs
        app.command("stop")
        assert complaints(app.path, latest) == []
        # With nobody there to be stopped it just switches, but the commands are the specification's: it starts.
        obeyed(spawned(spawner, "recover", name, "--yes"))
        assert app.goes_on()


def test_nobody_said_how_to_stop_who_has_it_open(lab: Lab, disk: BtrfsDisk, spawner: Spawner) -> None:
    with shop(lab, disk, "unsaid", "wal") as app:
        found = obeyed(spawned(spawner, "discover")).document["components"]
        (seen,) = [each for each in found if each["component"] == app.ref]
        assert seen["hold"] == "atomic"
        obeyed(spawned(spawner, "backup", app.ref))
        refused = against(spawned(spawner, "recover", app.ref, "--preview"), "held")
        assert f"({app.pid})" in refused["sentence"]
        failed(spawned(spawner, "recover", app.ref, "--yes"), 5, "held")
        app.command("stop")
        before = app.last()
        # Nobody has it open now, so that nothing but its name leads to it.
        obeyed(spawned(spawner, "recover", app.ref, "--yes"))
        assert complaints(app.path, 0) == []
        assert not app.runs
        obeyed(spawned(spawner, "recover", app.ref, "--undo", "--yes"))
        assert complaints(app.path, before) == []
        checks = obeyed(spawned(spawner, "writer", "test", app.ref, "--yes")).document["checks"]
        assert all(each["kept"] for each in checks)
        failed(spawned(spawner, "writer", "test", "nobody:there", "--yes"), 4, "no-writer")


def test_a_killed_coordinator_and_its_lock_leave_nothing(lab: Lab, disk: BtrfsDisk, spawner: Spawner) -> None:
    with shop(lab, disk, "killed", "delete") as app:
        name = app.specify("shop", "application-lock", app.commands)
        session = spawner.spawn("backup", name, "--progress", "json")
        assert eventually(lambda: "prepare" in session.complaint(), 20)
        session.send(signal.SIGKILL)
        session.answer()
        assert app.goes_on()
        obeyed(spawned(spawner, "backup", name))
        app.command("stop")
        assert complaints(app.path, 0) == []


def test_a_lock_that_somebody_holds_for_a_while_is_waited_for(lab: Lab, disk: BtrfsDisk, spawner: Spawner) -> None:
    """Really busy: a stranger is in the middle of a transaction when the first attempt wants the lock."""
    with shop(lab, disk, "busy", "delete") as app:
        app.command("stop")
        name = app.specify("shop", "application-lock", app.commands)
        failed(spawned_beside_a_stranger(spawner, app, "backup", name), 5, "locked")
        with (Path(lab.config_dir) / "specs.d" / f"{name}.toml").open("a") as f:
            f.write('retries = 50\nretry_after = "100ms"\n')
        answer = spawned_beside_a_stranger(spawner, app, "backup", name)
        assert obeyed(answer).document["consistency"] == "application"
        shown = obeyed(spawned(spawner, "session", "show", answer.document["session"])).document["session"]
        errors = [each["error"] for each in shown["document"]["attempts"]]
        assert {each["code"] for each in errors} == {"locked"}
        assert all(each["retryable"] for each in errors)
        obeyed(spawned(spawner, "recover", name, "--yes"))
        app.command("stop")
        assert complaints(app.path, 0) == []


def spawned_beside_a_stranger(spawner: Spawner, app: Shop, *words: str) -> Answer:
    """Run a command while somebody is in a transaction, which ends when the command has been refused once."""
    stranger = sqlite3.connect(app.path, isolation_level=None, timeout=20)
    try:
        stranger.execute("BEGIN IMMEDIATE")
        command = spawner.spawn(*words, "--progress", "json")
        assert eventually(lambda: command.told("warning") or command.poll() is not None, 60)
        stranger.execute("ROLLBACK")
    finally:
        stranger.close()
    return command.answer(120)


def test_a_replica_is_verified_cloned_and_tried(lab: Lab, disk: BtrfsDisk, spawner: Spawner) -> None:
    with shop(lab, disk, "proof", "wal") as app:
        taken = obeyed(spawned(spawner, "backup", app.ref)).document
        verified = obeyed(spawned(spawner, "replica", "verify", taken["replica"])).document
        assert "integrity_check" in str(verified)
        made = obeyed(spawned(spawner, "clone", "create", taken["replica"], "--name", "proof")).document
        (*within, _, path) = shlex.split(made["clone"]["reached"][app.ref]["command"])
        code = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('DELETE FROM ledger'); d.commit()"
        subprocess.run([*within, sys.executable, "-c", code, path], check=True)
        assert app.goes_on()
        assert len(obeyed(spawned(spawner, "discover")).document["components"]) == 1, "a clone is no application"
        obeyed(spawned(spawner, "clone", "delete", "proof", "--yes"))
        tried = obeyed(spawned(spawner, "try", app.ref)).document
        assert tried["longest_gap_ms"] is None
        assert tried["why_no_gap"] == f"{app.ref} answers no client"

        # Of several components the first that can answer is asked, and no other fails for it.
        beside = disk.subvolume("beside")
        pairs = (("files", beside), ("sqlite", app.path))
        entries = "".join(f'[[component]]\nwriter = "{writer}"\ninstance = "{name}"\n' for writer, name in pairs)
        asked = '[verify]\nquery = "select count(*) > 0 from ledger"\nexpect = "1"\n'
        for more in ("", f'component = "{app.ref}"\n'):
            _say(lab, "both", entries + asked + more)
            replica = obeyed(spawned(spawner, "backup", "both")).document["replica"]
            found = obeyed(spawned(spawner, "replica", "verify", replica)).document["verification"]["found"]
            assert found[app.ref]["question"] == "answered as expected"
            assert "question" not in found[f"files:{beside}"]
        _say(lab, "both", entries + asked.replace('"1"', '"2"'))
        assert spawned(spawner, "replica", "verify", replica).status == 20
        _say(lab, "both", entries + asked + f'component = "files:{beside}"\n')
        assert spawned(spawner, "replica", "verify", replica).status == 2
        _say(lab, "both", entries.replace("app.db", "new.db") + asked)
        verified = obeyed(spawned(spawner, "replica", "verify", replica)).document
        assert "new.db is not in this replica" in str(verified["messages"])
        app.command("stop")
        assert complaints(app.path, 1) == []


def test_a_clone_keeps_no_other_volume_from_being_recovered(lab: Lab, disk: BtrfsDisk, spawner: Spawner) -> None:
    """Each volume is mounted by itself: the clone's namespaces begin with a mount of the other one too."""
    with contextlib.ExitStack() as stack:
        apps = []
        for name in ("left", "right"):
            disk.subvolume(name)
            folder = disk.mount_subvolume(name, f"{lab.folder}/{name}")
            stack.callback(disk.unmount, folder)
            apps.append(stack.enter_context(serving(Shop(lab, Path(folder) / "app.db", "wal"))))
        left, right = apps
        for app, name in ((left, "left"), (right, "right")):
            app.specify(name, more=app.commands)
            obeyed(spawned(spawner, "backup", name))
        listed = [obeyed(spawned(spawner, "replica", "list", name)).document["replicas"] for name in ("left", "right")]
        replica, shown = (each[0]["id"] for each in listed)
        (Path(lab.folder) / "shown").mkdir()  # the kernel would take away what lies on a folder that is removed
        obeyed(spawned(spawner, "replica", "mount", shown, f"{lab.folder}/shown"))
        made = obeyed(spawned(spawner, "clone", "create", replica, "--name", "beside")).document["clone"]
        stack.callback(spawned, spawner, "clone", "delete", "beside", "--yes")
        words = shlex.split(made["reached"][left.ref]["command"])
        keeper = words[words.index("--target") + 1]
        obeyed(spawned(spawner, "replica", "unmount", shown))

        def recoverable() -> dict[str, bool]:
            found = obeyed(spawned(spawner, "discover")).document["components"]
            return {each["component"]: each["recoverable"] for each in found}

        assert recoverable() == {left.ref: True, right.ref: True}
        for name in ("left", "right"):
            obeyed(spawned(spawner, "spec", "check", name))
            obeyed(spawned(spawner, "recover", name, "--preview"))

        # Whoever uses the very volume in there is named, before anything is stopped.
        pid, folder = right.pid, str(right.path.parent)
        script = 'cd "$1"; exec sleep 60'
        with subprocess.Popen(["nsenter", "--target", keeper, "--mount", "sh", "-c", script, "sh", folder]) as user:
            try:
                assert eventually(lambda: os.readlink(f"/proc/{user.pid}/cwd") == folder, 5)
                assert recoverable() == {left.ref: True, right.ref: False}
                refused = against(spawned(spawner, "recover", "right", "--preview"), "held")
                assert f"Process {user.pid} " in refused["sentence"]
                assert spawned(spawner, "recover", "right", "--yes").status == 5
            finally:
                user.kill()
        assert right.pid == pid

        obeyed(spawned(spawner, "recover", "right", "--yes"))
        assert right.pid != pid
        assert right.goes_on()
        code = "import sqlite3, sys; print(*next(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM ledger')))"
        answer = subprocess.run([*words[:-2], sys.executable, "-c", code, words[-1]], check=True, capture_output=True)
        assert int(answer.stdout) > 0, "the clone of the other one is there as it was"
        obeyed(spawned(spawner, "recover", "right", "--undo", "--yes"))
        assert right.goes_on()
        obeyed(spawned(spawner, "replica", "delete", shown, "--yes"))
        # What it lies over ends it.
        obeyed(spawned(spawner, "recover", "left", "--yes"))
        assert not Path(f"/proc/{keeper}").exists()
