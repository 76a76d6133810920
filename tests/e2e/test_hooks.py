# SPDX-License-Identifier: Apache-2.0
"""Hooks around a real server's backups and recoveries, and what the careful forbid: each by the command itself."""

import json
import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slackwater.demo.cluster import Cluster
from slackwater.demo.lab import Lab
from slackwater.system.processes import stat_of
from tests.e2e.spawner import Spawner

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

HOOK = """#!/bin/sh
cd {folder}
[ -e {data}/postmaster.pid ] && up=up || up=down
echo "$SLACKWATER_PHASE $SLACKWATER_SPEC $up" >>log
case "$(cat mood)" in
    "fail $SLACKWATER_PHASE") echo "not today"; exit 3 ;;
    "hang $SLACKWATER_PHASE") echo $$ >pid.new; mv pid.new pid; exec sleep 100 ;;
esac
"""
SPECIFICATION = """name = "orders"
[[component]]
writer = "postgresql"
instance = "{instance}"
[options]
on_writer_failure = "{accept}"
[hooks]
"""


@pytest.fixture
def hook() -> Iterator[Path]:
    """Hooks where only root may write: a lab lies in everybody's /tmp."""
    folder = Path(f"/run/slackwater-test-{secrets.token_hex(4)}")
    folder.mkdir(mode=0o755)
    yield folder / "hook"
    shutil.rmtree(folder)


class World:
    """A server, a specification with all four hooks, and what they have written down."""

    def __init__(self, lab: Lab, spawner: Spawner, hook: Path) -> None:
        self.lab, self.spawner, self.hook = lab, spawner, hook
        self.cluster: Cluster = lab.wheel_cluster(18, lab.btrfs().subvolume("data"))
        self.cluster.start()
        hook.write_text(HOOK.format(data=self.cluster.data_dir, folder=hook.parent))
        hook.chmod(0o755)
        self.mood("")
        self.specify()

    def specify(self, accept: str = "fail") -> None:
        text = SPECIFICATION.format(instance=self.cluster.name, accept=accept)
        text += "".join(f'{name} = ["{self.hook}"]\n' for name in ("pre_freeze", "post_thaw", "pre_stop", "post_start"))
        Path(self.lab.config_dir, "specs.d/orders.toml").write_text(text)

    def mood(self, mood: str) -> None:
        (self.hook.parent / "mood").write_text(mood)

    def log(self) -> list[str]:
        """What ran since the last time this was asked."""
        path = self.hook.parent / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.replace(" orders", "") for line in lines]

    def do(self, *words: str) -> tuple[int, dict[str, Any]]:
        answer = self.spawner.spawn(*words).answer(120)
        return answer.status, answer.document

    def killed(self, *words: str, at: str) -> None:
        """Kill a session when one of its hooks has begun."""
        self.mood(f"hang {at}")
        (self.hook.parent / "pid").unlink(missing_ok=True)
        process = self.spawner.spawn(*words)
        path, ends_s = self.hook.parent / "log", time.monotonic() + 60
        while not (path.exists() and f"{at} " in path.read_text() and (self.hook.parent / "pid").exists()):
            assert time.monotonic() < ends_s, process.poll()
            time.sleep(0.02)
        process.send(signal.SIGKILL)
        process.wait()
        self.mood("")
        self.left = int((self.hook.parent / "pid").read_text())
        assert stat_of(self.left), "a hook outlives its session"

    def gone(self) -> bool:
        """Whether the hook of a killed session has ended."""
        stat = stat_of(self.left)
        return stat is None or stat.dead


def said(document: dict[str, Any], severity: str) -> str:
    return " ".join(each["text"] for each in document["messages"] if each["severity"] == severity)


def test_hooks_run_in_pairs_whatever_happens(hook: Path) -> None:
    with Lab() as lab, Spawner(lab.environment()) as spawner:
        world = World(lab, spawner, hook)
        assert world.do("backup", "orders")[0] == 0
        assert world.log() == ["pre_freeze up", "post_thaw up"]

        world.mood("fail post_thaw")
        status, done = world.do("backup", "orders")
        assert (status, done["outcome"], done["consistency"]) == (10, "completed_with_failures", "application")
        assert "Hook post_thaw" in said(done, "error")
        assert "ended with status 3 and said: not today" in said(done, "error")
        assert world.log() == ["pre_freeze up", "post_thaw up"]

        world.mood("fail pre_freeze")
        status, done = world.do("backup", "orders")
        assert (status, done["error"]["code"]) == (1, "hook")
        assert world.log() == ["pre_freeze up", "post_thaw up"]
        world.specify(accept="crash")
        status, done = world.do("backup", "orders")
        assert (status, done["consistency"]) == (11, "crash")
        assert world.log() == ["pre_freeze up", "post_thaw up"]

        world.killed("backup", "orders", at="pre_freeze")
        assert world.log() == ["pre_freeze up"]
        status, done = world.do("reconcile")
        assert (status, len(done["sessions"]), done["unmended"]) == (0, 1, [])
        assert world.gone()
        assert world.log() == ["post_thaw up"]
        recover(world)
        forbid(world)


def recover(world: World) -> None:
    status, planned = world.do("recover", "orders", "--preview")
    assert status == 0
    assert planned["steps"][0] == (
        f"run the hook pre_stop ({world.hook}, at most 60 s), and afterwards post_start ({world.hook}, at most 60 s)"
    )
    assert world.do("recover", "orders", "--yes")[0] == 0
    assert world.log() == ["pre_stop up", "post_start up"]

    world.mood("fail pre_stop")
    status, done = world.do("recover", "orders", "--yes")
    assert (status, done["error"]["code"]) == (1, "hook")
    assert world.log() == ["pre_stop up", "post_start up"]

    world.mood("fail post_start")
    status, done = world.do("recover", "orders", "--yes")
    assert (status, done["outcome"]) == (10, "completed_with_failures")
    assert world.log() == ["pre_stop up", "post_start up"]

    # Cut off when all is switched and the server is up again: finished by the next command, with its second hook.
    world.killed("recover", "orders", "--yes", at="post_start")
    assert world.log() == ["pre_stop up", "post_start up"]
    status, done = world.do("reconcile")
    assert (status, done["unmended"], world.gone()) == (0, [], True)
    assert world.log() == ["post_start up"]
    world.killed("recover", "orders", "--yes", at="pre_stop")
    assert world.do("reconcile")[0] == 0
    assert world.log() == ["pre_stop up", "post_start up"]
    assert world.cluster.running


def forbid(world: World) -> None:
    """What the settings forbid is refused beforehand, with its reason."""
    os.chmod(world.hook, 0o757)  # noqa: S103
    status, planned = world.do("backup", "orders", "--preview")
    assert status == 5
    refused = [each["sentence"] for each in planned["findings"] if each["severity"] == "refusal"]
    assert len(refused) == 4
    assert refused[0].endswith(f"as root, but others than root may write {world.hook}.")
    assert world.do("recover", "orders", "--yes")[1]["error"]["code"] == "hook"
    world.hook.chmod(0o755)
    assert world.log() == []

    settings = Path(world.lab.config_dir, "slackwater.toml")
    target = world.cluster.ref
    for denied, why in ((world.cluster.data_dir, "lies in"), (os.path.dirname(world.cluster.data_dir), "lies in"),
                        (f"{world.cluster.data_dir}/base", "carries")):  # fmt: skip
        settings.write_text(f'[volumes]\ndeny = ["{denied}"]\n')
        status, done = world.do("backup", target)
        assert (status, done["error"]["code"]) == (5, "denied")
        assert f"{why} {denied}, and [volumes] deny" in done["error"]["sentence"]
    assert world.do("recover", "orders", "--yes")[1]["error"]["code"] == "denied"
    settings.write_text('[volumes]\ndeny = ["/home", "/nonexistent"]\n')
    assert world.do("backup", target, "--preview")[0] == 0

    settings.write_text('[writers]\ndisable = ["postgresql"]\n')
    assert [each for each in world.do("discover")[1]["components"] if "postgresql" in each["component"]] == []
    for words in (("backup", target), ("backup", "orders", "--preview"), ("recover", "orders", "--yes")):
        status, done = world.do(*words)
        assert (status, done["error"]["code"]) == (5, "writer-disabled"), json.dumps(done)
    assert world.log() == []
