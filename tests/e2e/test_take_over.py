# SPDX-License-Identifier: Apache-2.0
"""A session that is stopped or frozen in the middle: it is ended from outside, and everything is as before."""

import os
import secrets
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.demo.lab import Lab
from slackwater.system.processes import identity, stopped
from tests.e2e.spawner import Command, Spawner

pytestmark = [pytest.mark.root]
HOOK = """#!/bin/sh
echo "$SLACKWATER_PHASE" >>{folder}/log
[ "$SLACKWATER_PHASE" = post_thaw ] || [ ! -e {folder}/wait ] || {{ touch {folder}/here; sleep 60; }}
"""
SPECIFICATION = """name = "tree"
[[component]]
writer = "files"
instance = "{path}"
[hooks]
pre_freeze = ["{hook}"]
post_thaw = ["{hook}"]
"""


class World:
    """A directory that is backed up, with a hook in which a backup can be caught."""

    def __init__(self, lab: Lab, spawner: Spawner, folder: Path) -> None:
        self.lab, self.spawner, self.folder = lab, spawner, folder
        self.disk = lab.btrfs(256 << 20)
        path = self.disk.subvolume("tree")
        Path(path, "file").write_text("x")
        hook = folder / "hook"
        hook.write_text(HOOK.format(folder=folder))
        hook.chmod(0o755)
        Path(lab.config_dir, "specs.d/tree.toml").write_text(SPECIFICATION.format(path=path, hook=hook))

    def caught(self) -> tuple[Command, str]:
        """A backup that is in its hook, and its id: the intents of the copies come next."""
        (self.folder / "here").unlink(missing_ok=True)
        (self.folder / "wait").touch()
        command = self.spawner.spawn("backup", "tree", "--progress", "json")
        ends_s = time.monotonic() + 60
        while not (self.folder / "here").exists():
            assert command.poll() is None, command.complaint()
            assert time.monotonic() < ends_s
            time.sleep(0.02)
        (self.folder / "wait").unlink()
        (self.folder / "log").unlink()
        return command, command.session

    def do(self, *words: str) -> tuple[int, dict[str, object]]:
        answer = self.spawner.spawn(*words).answer(120)
        return answer.status, answer.document

    def as_before(self, session: str, outcome: str = "aborted") -> None:
        assert (self.folder / "log").read_text() == "post_thaw\n", "the second of the pair ran, once"
        assert not Path(self.disk.path, ".slackwater", session).exists()
        status, shown = self.do("session", "show", session)
        assert (status, shown["session"]["outcome"]) == (0, outcome)  # type: ignore[index]
        assert self.do("reconcile")[1]["sessions"] == []
        assert self.do("backup", "tree")[0] == 0


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Hooks lie where only root may write."""
    folder = Path(f"/run/slackwater-test-{secrets.token_hex(4)}")
    folder.mkdir(mode=0o755)
    try:
        with Lab() as lab, Spawner(lab.environment()) as spawner:
            yield World(lab, spawner, folder)
    finally:
        shutil.rmtree(folder)


def test_a_stopped_session_is_not_asked_but_killed(world: World) -> None:
    command, session = world.caught()
    command.send(signal.SIGSTOP)
    while not stopped(identity(command.pid)):
        time.sleep(0.01)
    status, said = world.do("session", "abort", session)
    assert (status, said["error"]["code"]) == (1, "stopped")  # type: ignore[index]
    assert "--kill" in said["error"]["hint"]  # type: ignore[index]
    assert command.poll() is None
    assert world.do("backup", "tree")[0] == 3, "others wait for it"
    status, said = world.do("session", "abort", session, "--kill")
    assert (status, said["session"]["outcome"]) == (0, "aborted")  # type: ignore[index]
    assert command.wait() == -signal.SIGKILL
    world.as_before(session)


def test_one_whose_cgroup_is_frozen_is_killed_too(world: World) -> None:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    root = next(line.split()[4] for line in mounts if " - cgroup2 " in line)
    frozen = Path(root, f"slackwater-test-{os.getpid()}")
    frozen.mkdir()
    try:
        command, session = world.caught()
        (frozen / "cgroup.procs").write_text(str(command.pid))
        (frozen / "cgroup.freeze").write_text("1")
        while "frozen 1" not in (frozen / "cgroup.events").read_text():
            time.sleep(0.01)
        status, said = world.do("session", "abort", session, "--kill")
        assert (status, said["session"]["outcome"]) == (0, "aborted")  # type: ignore[index]
        assert command.wait() == -signal.SIGKILL
        world.as_before(session)
    finally:
        (frozen / "cgroup.freeze").write_text("0")
        frozen.rmdir()


def test_one_that_was_taken_for_dead_makes_and_undoes_nothing(world: World) -> None:
    """As from another pid namespace, where nobody sees that it lives: the fence alone has to hold."""
    command, session = world.caught()
    command.send(signal.SIGSTOP)
    journal = f"{world.lab.state_dir}/journal.sqlite"
    os.rename(f"{world.lab.run_dir}/session.lock", f"{world.lab.run_dir}/session.lost")
    _say_that_it_is_dead(journal, session)
    status, said = world.do("reconcile")
    assert (status, [each["session"] for each in said["sessions"]]) == (0, [session])  # type: ignore[attr-defined]
    command.send(signal.SIGCONT)
    answer = command.answer()
    assert (answer.status, answer.document["error"]["code"]) == (1, "fenced"), answer
    world.as_before(session, "failed")


def _say_that_it_is_dead(journal: str, session: str) -> None:
    database = sqlite3.connect(journal, timeout=10)
    database.execute("UPDATE session SET process = '1:1:x' WHERE id = ?", (session,))
    database.commit()
    database.close()
