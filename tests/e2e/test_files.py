# SPDX-License-Identifier: Apache-2.0
"""A directory: a power cut's image by itself, and a whole one by a lock, a stop, or a frozen cgroup."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Lab
from slackwater.system import cgroups
from slackwater.system.command import run
from tests.e2e.luck_support import MIB, against, failed, obeyed, spawned
from tests.e2e.spawner import Spawner
from tests.platform.crowd import eventually, new_cgroup
from tests.platform.files_support import Uploads, complaints

pytestmark = [pytest.mark.root]


@pytest.fixture(scope="module")
def disk(lab: Lab) -> BtrfsDisk:
    return lab.btrfs(1024 * MIB)


@contextlib.contextmanager
def uploads(lab: Lab, disk: BtrfsDisk, name: str, cgroup: str = "") -> Iterator[Uploads]:
    made = Uploads(Path(disk.subvolume(name)), Path(lab.folder) / name, cgroup, environment=lab.environment())
    made.run("start")
    try:
        assert eventually(lambda: made.last() > 0)
        yield made
    finally:
        (made.control / "hold").unlink(missing_ok=True)
        made.run("stop")
        for each in (Path(lab.config_dir) / "specs.d").iterdir():
            each.unlink()


def specify(lab: Lab, app: Uploads, *lines: str, options: str = "") -> str:
    text = f'name = "site"\n[[component]]\nwriter = "files"\ninstance = "{app.directory}"\n' + "\n".join(lines)
    path = Path(lab.config_dir) / "specs.d" / "site.toml"
    path.write_text(f"{text}\n[options]\n{options}\n")
    return "site"


def script(app: Uploads, **names: str) -> list[str]:
    return [f'{key} = "{app.control}/{name}"' for key, name in names.items()]


def test_a_directory_by_itself_is_what_a_power_cut_leaves_and_that_is_a_success(
    lab: Lab, disk: BtrfsDisk, spawner: Spawner
) -> None:
    with uploads(lab, disk, "plain") as app:
        ref = f"files:{app.directory}"
        torn: list[str] = []
        for _ in range(20):
            if torn:
                break
            before = app.last()
            taken = obeyed(spawned(spawner, "backup", ref)).document
            assert (taken["plan"]["hold"], taken["consistency"]) == ("atomic", "crash")
            copy = next(Path(disk.path).glob(f".slackwater/{taken['replica']}/plain"))
            torn += complaints(copy, before)
        assert torn, "the oracle does not see what is half, or the application is never caught at it"
        assert all("half" in each for each in torn)
        with open(app.directory / "1.a"):
            held = against(spawned(spawner, "recover", ref, "--preview"), "held")
            assert str(os.getpid()) in held["sentence"]
        verified = obeyed(spawned(spawner, "replica", "verify", taken["replica"])).document
        assert "readable" in str(verified)
        app.run("stop")
        latest = sorted(os.listdir(app.directory))
        (app.directory / "stray").touch()
        undo = obeyed(spawned(spawner, "recover", ref, "--yes")).document["undo_replica"]
        assert not (app.directory / "stray").exists()
        listed = obeyed(spawned(spawner, "replica", "list")).document["replicas"]
        assert [each["consistency"] for each in listed if each["id"] == undo] == ["crash"], "nobody knows who wrote it"
        obeyed(spawned(spawner, "recover", ref, "--undo", "--yes"))
        assert sorted(os.listdir(app.directory)) == sorted([*latest, "stray"])


def test_a_lock_makes_it_whole(lab: Lab, disk: BtrfsDisk, spawner: Spawner) -> None:
    with uploads(lab, disk, "locked") as app:
        name = specify(lab, app, *script(app, lock="lock", unlock="unlock", stop="stop", start="start"))
        for number in range(3):
            before = app.last()
            taken = obeyed(spawned(spawner, "backup", name)).document
            assert (taken["plan"]["hold"], taken["consistency"]) == ("application-lock", "application")
            assert taken["window"]["frozen_ms"] > 0
            copy = next(Path(disk.path).glob(f".slackwater/{taken['replica']}/locked"))
            assert complaints(copy, before) == []
            assert app.unlocked == number + 1
            assert app.goes_on()
        pid = app.pid
        obeyed(spawned(spawner, "recover", name, "--yes"))
        assert app.runs
        assert app.pid != pid
        assert app.goes_on()


@pytest.mark.parametrize("volumes", [1, 2])
def test_a_volume_that_is_full_in_the_window_costs_no_more_than_the_backup(
    lab: Lab, spawner: Spawner, volumes: int
) -> None:
    """The lock's command fills it: every byte is gone when the copies are made, and until after the session."""
    disk = lab.btrfs(256 * MIB)
    filler = Path(disk.path) / "filler"
    with uploads(lab, disk, f"tight-{volumes}") as app:
        fill = app.control / "fill"
        blocks = "; ".join(f"dd if=/dev/zero of={filler} bs={each} oflag=append conv=notrunc" for each in ("1M", "4K"))
        fill.write_text(
            f"#!/bin/sh\n{app.control}/lock || exit 1\n({blocks}; sync -f {disk.path}) >/dev/null 2>&1\nexit 0\n"
        )
        fill.chmod(0o755)
        more = f'[[component]]\nwriter = "files"\ninstance = "{disk.subvolume("beside")}"' if volumes == 2 else ""
        options = 'freeze_timeout = "20s"\n[replica]\nmin_free = "1%"'
        name = specify(lab, app, *script(app, lock="fill", unlock="unlock"), more, options=options)
        before = app.last()
        answer = spawned(spawner, "backup", name)
        assert filler.exists(), answer
        assert filler.stat().st_size > 64 * MIB, "it was full"
        assert app.unlocked >= 1
        assert not (app.control / "hold").exists()
        if answer.status:
            assert answer.document["error"]["code"] != "internal", answer
            assert answer.document["error"]["retryable"], answer
            assert "Traceback" not in answer.complaint
        filler.unlink()
        run("sync", "-f", disk.path)
        app.run("stop")
        app.run("start")
        assert app.goes_on()
        assert obeyed(spawned(spawner, "reconcile")).document["unmended"] == []
        assert obeyed(spawned(spawner, "catalog", "check")).document["differences"] == []
        if answer.status == 0:
            taken = answer.document["replica"]
            assert complaints(Path(disk.path) / ".slackwater" / taken / f"tight-{volumes}", before) == []
            obeyed(spawned(spawner, "replica", "delete", taken, "--yes"))


def test_it_is_unlocked_whatever_becomes_of_the_lock_and_of_us(lab: Lab, disk: BtrfsDisk, spawner: Spawner) -> None:
    with uploads(lab, disk, "stuck") as app:
        name = specify(lab, app, *script(app, lock="hang", unlock="unlock"), options='freeze_timeout = "1s"')
        late = failed(spawned(spawner, "backup", name), 12, "deadline")
        assert late["data"]
        assert app.unlocked >= 1
        assert eventually(lambda: not (app.control / "hold").exists())
        specify(lab, app, *script(app, lock="hang", unlock="unlock"))
        before = app.unlocked
        session = spawner.spawn("backup", name, "--progress", "json")
        assert eventually((app.control / "hold").exists, 20)
        session.send(signal.SIGKILL)
        session.answer()
        assert eventually(lambda: app.unlocked > before), "nobody had to ask"
        specify(lab, app, *script(app, lock="unlock", unlock="hang"), options='freeze_timeout = "1s"')
        failed(spawned(spawner, "backup", name), 12, "deadline")


def test_it_is_stopped_for_the_copies_and_started_again_whoever_is_killed(
    lab: Lab, disk: BtrfsDisk, spawner: Spawner
) -> None:
    with uploads(lab, disk, "stopped") as app:
        name = specify(lab, app, 'consistency = "application"', *script(app, stop="stop", start="start"))
        before, pid = app.last(), app.pid
        taken = obeyed(spawned(spawner, "backup", name)).document
        assert (taken["plan"]["hold"], taken["consistency"]) == ("cold", "application")
        copy = next(Path(disk.path).glob(f".slackwater/{taken['replica']}/stopped"))
        assert complaints(copy, before) == []
        assert app.pid != pid
        assert app.runs
        session = spawner.spawn("backup", name, "--progress", "json")
        assert eventually(lambda: not app.runs, 20)
        session.send(signal.SIGKILL)
        session.answer()
        obeyed(spawned(spawner, "reconcile"))
        assert app.runs


@pytest.mark.parametrize("who", ["nobody", "somebody"])
def test_what_somebody_writes_while_it_counts_as_stopped_is_seen(lab: Lab, spawner: Spawner, who: str) -> None:
    """On XFS, where files are shared one by one; nothing says whose they are. What its stop writes is taken."""
    xfs = lab.xfs(MIB * 512)
    folder = Path(xfs.path) / "site"
    folder.mkdir()
    for number in range(300):
        (folder / str(number)).write_text("as it was")
    stop = Path(lab.folder) / f"stop-{who}"
    late = f"(for i in $(seq 400); do echo more >{folder}/299; sleep 0.005; done) >/dev/null 2>&1 &\n"
    stop.write_text(f"#!/bin/bash\n{late if who == 'somebody' else ''}echo stopped >{folder}/0\n")
    stop.chmod(0o755)
    (Path(lab.config_dir) / "specs.d" / "site.toml").write_text(
        f'name = "site"\n[[component]]\nwriter = "files"\ninstance = "{folder}"\nconsistency = "application"\n'
        f'stop = "{stop}"\nstart = "/bin/true"\n[options]\nhold = "stop"\nretries = 0\n'
    )
    if who == "somebody":
        failed(spawned(spawner, "backup", "site"), 1, "changed")
        return
    for _ in range(5):
        taken = obeyed(spawned(spawner, "backup", "site")).document
        assert (taken["plan"]["hold"], taken["consistency"]) == ("cold", "application")
        (copy,) = Path(xfs.path).glob(f".slackwater/{taken['replica']}/*site*/0")
        assert copy.read_text() == "stopped\n"
        (folder / "0").write_text("goes on")


def test_processes_of_a_cgroup_are_frozen_and_whoever_else_writes_is_named(
    lab: Lab, disk: BtrfsDisk, spawner: Spawner
) -> None:
    with new_cgroup() as cgroup, uploads(lab, disk, "frozen", cgroup) as app:
        assert cgroups.members(cgroup) == {app.pid}
        name = specify(lab, app, 'consistency = "application"', f'cgroup = "{cgroup}"')
        before = app.last()
        taken = obeyed(spawned(spawner, "backup", name)).document
        assert (taken["plan"]["hold"], taken["consistency"]) == ("process-freeze", "application")
        copy = next(Path(disk.path).glob(f".slackwater/{taken['replica']}/frozen"))
        assert [each for each in complaints(copy, before) if "half" not in each] == []
        assert app.goes_on()
        with open(app.directory / "stray", "w"):
            found = against(spawned(spawner, "backup", name, "--preview"), "outside-writer")
            assert f"({os.getpid()})" in found["sentence"] or str(os.getpid()) in found["sentence"]
        specify(lab, app, 'consistency = "application"', 'cgroup = "/sys/fs/cgroup/nobody"')
        against(spawned(spawner, "backup", name, "--preview"), "not-freezable")
        specify(lab, app, 'consistency = "application"', f'pid_file = "{app.control}/pid"')
        assert obeyed(spawned(spawner, "backup", name)).document["plan"]["hold"] == "process-freeze"
        specify(lab, app, 'consistency = "application"')
        against(spawned(spawner, "backup", name, "--preview"), "no-way")


def test_a_directory_that_holds_our_own_state_is_refused(lab: Lab, disk: BtrfsDisk) -> None:
    """The journal must not be turned back by the recovery that it describes."""
    directory = disk.subvolume("ours")
    with Spawner({**lab.environment(), "SLACKWATER_STATE_DIR": f"{directory}/state"}) as spawner:
        assert against(spawned(spawner, "backup", f"files:{directory}", "--preview"), "own-state")
        refused = failed(spawned(spawner, "backup", f"files:{directory}"), 5, "own-state")
    assert "SLACKWATER_STATE_DIR" in refused["hint"]


_WATCHED = """
import sys

def note(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".sqlite"):
        print("opened:", arguments[0], file=sys.stderr)

sys.addaudithook(note)
from slackwater.__main__ import run
run()
"""


def test_planning_opens_none_of_our_own_databases(lab: Lab) -> None:
    """Whoever opens and closes a file drops all locks on it that his process holds, also those of SQLite."""
    xfs = lab.xfs(512 * MIB)
    (deep := Path(xfs.directory("app")) / "deep" / "state").mkdir(parents=True)
    (bound := Path(lab.folder) / "bound").mkdir()

    def opened(state: Path, directory: str, *words: str) -> tuple[int, list[str]]:
        environment = {**lab.environment(), "SLACKWATER_STATE_DIR": str(state)}
        command = [sys.executable, "-c", _WATCHED, "backup", f"files:{directory}", *words]
        done = run(*command, check=False, environment=environment)
        return done.status, [each for each in done.complaint.splitlines() if each.startswith("opened: ")]

    plain = Path(xfs.directory("plain"))
    (plain / "their.sqlite").write_text("written a moment ago, so its extents are counted")
    assert opened(Path(lab.state_dir), str(plain), "--preview") == (0, ["opened: their.sqlite"])
    run("mount", "--bind", str(deep), str(bound))
    try:
        for state in (deep, bound, deep):
            assert opened(state, f"{xfs.path}/app") == (5, [])
            assert opened(state, f"{xfs.path}/app", "--preview") == (5, [])
        assert {"catalog.sqlite", "journal.sqlite"} <= set(os.listdir(deep))
        with Spawner({**lab.environment(), "SLACKWATER_STATE_DIR": str(bound)}) as spawner:
            failed(spawned(spawner, "backup", f"files:{xfs.path}/app"), 5, "own-state")
            against(spawned(spawner, "backup", f"files:{xfs.path}/app", "--preview"), "own-state")
    finally:
        run("umount", str(bound))
