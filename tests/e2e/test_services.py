# SPDX-License-Identifier: Apache-2.0
"""Services around a real server's recoveries: commands, and a container by a stand-in that keeps docker's interface.

Units of a real systemd are in platform/test_systemd_units.py.
"""

import os
import secrets
import shutil
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from slackwater.demo.cluster import Cluster
from slackwater.demo.lab import Lab
from slackwater.system.command import run
from slackwater.system.processes import stat_of
from tests.e2e.spawner import Spawner

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

#: `service stop NAME`, `service start NAME`: a service is a process that has a file of the volume open.
SERVICE = """#!/bin/sh
cd {folder}
[ -e {data}/postmaster.pid ] && up=up || up=down
echo "$1 $2 $up" >>log
case "$(cat mood)" in
    *"fail $1 $2"*) echo "not today"; exit 3 ;;
    *"hang $1 $2"*) echo $$ >pid.new; mv pid.new pid; exec sleep 100 ;;
    "slow $1 $2") sleep 1 ;;
    "hold $1 $2") env -i setsid sleep 1000 <{data}/PG_VERSION >/dev/null 2>&1 & echo $! >holder ;;
esac
case "$1" in
    stop) [ ! -s $2 ] || kill "$(cat $2)"; rm -f $2 ;;
    start) [ -s $2 ] || {{ setsid sleep 1000 <{data}/PG_VERSION >/dev/null 2>&1 & echo $! >$2; }} ;;
esac
"""
DOCKER = """#!/bin/sh
cd {folder}
case "$1" in
    inspect)
        [ "$4" = web ] || {{ echo "Error: No such container: $4" >&2; exit 1; }}
        [ -s web ] && state='"Running": true, "Pid": '$(cat web) || state='"Running": false, "Pid": 0'
        echo '[{{"State": {{'$state'}}, "Config": {{}}, "HostConfig": {{"AutoRemove": false}}}}]' ;;
    *) exec ./service "$1" "$2" ;;
esac
"""
SPECIFICATION = """name = "orders"
[[component]]
writer = "postgresql"
instance = "{instance}"
[[recovery.service]]
container = "{container}"
[[recovery.service]]
stop = ["{folder}/service", "stop", "jobs"]
start = ["{folder}/service", "start", "jobs"]
[[recovery.service]]
stop = ["{folder}/service", "stop", "mail"]
start = ["{folder}/service", "start", "mail"]
timeout = "{timeout}"
"""
NAMES = ("web", "jobs", "mail")


@pytest.fixture
def folder() -> Iterator[Path]:
    """For commands that only root may write: a lab lies in everybody's /tmp."""
    folder = Path(f"/run/slackwater-test-{secrets.token_hex(4)}")
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


class World:
    """A server, and the services around it."""

    def __init__(self, lab: Lab, spawner: Spawner, folder: Path) -> None:
        self.lab, self.spawner, self.folder = lab, spawner, folder
        self.cluster: Cluster = lab.wheel_cluster(18, lab.btrfs().subvolume("data"))
        self.cluster.start()
        for name, text in (("service", SERVICE), ("docker", DOCKER)):
            (folder / name).write_text(text.format(folder=folder, data=self.cluster.data_dir))
            (folder / name).chmod(0o755)
        self.mood("")
        self.specify()
        for name in NAMES:
            self.service("start", name)
        self.log()

    def specify(self, container: str = "web", timeout: str = "60s") -> None:
        text = SPECIFICATION.format(
            instance=self.cluster.name, folder=self.folder, container=container, timeout=timeout
        )
        Path(self.lab.config_dir, "specs.d/orders.toml").write_text(text)

    def mood(self, mood: str) -> None:
        (self.folder / "mood").write_text(mood)

    def service(self, verb: str, name: str) -> None:
        run(str(self.folder / "service"), verb, name, fold_output=True)

    def started(self) -> object:
        with self.cluster.connect() as connection:
            return connection.execute("select pg_postmaster_start_time()").fetchone()

    def now(self) -> str:
        return datetime.now(UTC).isoformat()

    def log(self) -> list[str]:
        """What ran since the last time this was asked."""
        path = self.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def up(self) -> list[str]:
        """The services that run."""
        return [name for name in NAMES if self.pid(name)]

    def pid(self, name: str) -> int:
        path = self.folder / name
        pid = int(path.read_text()) if path.exists() else 0
        stat = stat_of(pid) if pid else None
        return 0 if stat is None or stat.dead else pid

    def do(self, *words: str) -> tuple[int, dict[str, Any]]:
        answer = self.spawner.spawn(*words).answer(120)
        return answer.status, answer.document

    def killed(self, at: str) -> None:
        """Kill a recovery when one of the services' commands has begun."""
        self.mood(f"hang {at}")
        (self.folder / "pid").unlink(missing_ok=True)
        process, ends_s = self.spawner.spawn("recover", "orders", "--yes"), time.monotonic() + 60
        while not (self.folder / "pid").exists():
            assert time.monotonic() < ends_s, process.poll()
            time.sleep(0.02)
        process.send(signal.SIGKILL)
        process.wait()
        self.mood("")

    def end(self) -> None:
        for name in NAMES:
            self.service("stop", name)


def disorder(log: list[str], stopped: tuple[str, ...] = NAMES) -> str:
    """What is wrong with how services were stopped and started; empty when it is all as it must be."""
    stops = [line.split()[1] for line in log if line.startswith("stop ")]
    starts = [line.split()[1] for line in log if line.startswith("start ")]
    if stops != list(stopped):
        return f"stopped: {stops}"
    if starts != stops[::-1]:
        return f"started: {starts}"
    if any(not line.endswith(" up") for line in log):
        return f"without the application: {log}"
    return "started before all were stopped" if "start" in log[0] else ""


ALL = ["stop web up", "stop jobs up", "stop mail up", "start mail up", "start jobs up", "start web up"]


@pytest.mark.parametrize(
    "twin",
    [
        ALL[:-1],
        [*ALL[:3], *ALL[:2:-1]],
        ["stop jobs up", "stop web up", *ALL[2:]],
        [*ALL[:3], "start mail down", *ALL[4:]],
        ALL[3:] + ALL[:3],
        [],
    ],
)
def test_the_oracle_sees_what_is_out_of_order(twin: list[str]) -> None:
    assert not disorder(ALL)
    assert disorder(twin)


def test_services_stop_before_and_start_after_whatever_happens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    with Lab() as lab, Spawner(lab.environment()) as spawner:
        world = World(lab, spawner, folder)
        try:
            begun = world.now()
            assert world.do("backup", "orders")[0] == 0
            in_order(world, begun)
            not_there(world)
            goes_back(world)
            cut_off(world)
        finally:
            world.end()


def in_order(world: World, begun: str) -> None:
    """The services around a recovery, and what is said of it before and after."""
    with world.cluster.connect() as connection:
        connection.autocommit = True
        for number in range(2):
            connection.execute(f"create table t{number} (i int)")
    written = world.now()
    status, planned = world.do("recover", "orders", "--preview")
    assert (status, world.log(), planned["down"]) == (0, [], None)
    since = planned["since"][world.cluster.ref]
    assert since["bytes"] > 0
    assert since["transactions"] >= 2
    steps = planned["steps"]
    words = {
        verb: [f"run {world.folder}/service {verb} {name}" for name in ("jobs", "mail")] for verb in ("stop", "start")
    }
    stops = [f"{each}, within 60 s" for each in ("stop the container web", *words["stop"])]
    first = steps.index(stops[0])
    assert steps[first : first + 4] == [*stops, f"stop PostgreSQL {world.cluster.name}"]
    last = steps.index(f"start PostgreSQL {world.cluster.name}")
    assert steps[last + 1 : last + 4] == [*words["start"][::-1], "start the container web"]

    world.mood("slow stop jobs")
    status, done = world.do("recover", "orders", "--yes")
    assert (status, disorder(world.log()), world.up()) == (0, "", list(NAMES)), done
    assert done["downtime_ms"] >= 1000
    assert done["since"][world.cluster.ref]["transactions"] >= 2
    assert begun < done["reached"][world.cluster.ref]["last_commit"] < written
    down = world.do("recover", "orders", "--preview")[1]["down"]
    assert down == {"ms": done["downtime_ms"], "whole": True, "of": done["session"]}

    world.mood("fail start jobs")
    status, done = world.do("recover", "orders", "--yes")
    assert (status, done["outcome"], disorder(world.log())) == (10, "completed_with_failures", "")
    (error,) = [each["text"] for each in done["messages"] if each["severity"] == "error"]
    assert "ended with status 3 and said: not today" in error
    assert f"Start it by hand: {world.folder}/service start jobs" in error
    assert world.up() == ["web", "mail"]
    world.mood("")
    world.service("start", "jobs")
    world.log()


def not_there(world: World) -> None:
    """One that does not run is left alone; one that is not there, or that anybody could have written, is refused."""
    world.service("stop", "web")
    world.log()
    assert "leave the container web alone, which does not run" in world.do("recover", "orders", "--preview")[1]["steps"]
    status, _ = world.do("recover", "orders", "--undo", "--yes")
    assert (status, disorder(world.log(), ("jobs", "mail")), world.up()) == (0, "", ["jobs", "mail"])
    world.service("start", "web")
    world.log()

    world.specify(container="shop")
    status, done = world.do("recover", "orders", "--yes")
    assert (status, done["error"]["code"]) == (5, "service")
    assert done["error"]["sentence"].startswith("There is no container shop here.")
    world.specify()
    (world.folder / "service").chmod(0o757)
    assert world.do("recover", "orders", "--yes")[1]["error"]["code"] == "service"
    (world.folder / "service").chmod(0o755)
    assert world.log() == []


def goes_back(world: World) -> None:
    """One that does not stop in time fails the recovery before the application is touched, and all are started."""
    world.specify(timeout="6s")
    before = world.started()
    world.mood("hang stop mail, fail start jobs")
    status, done = world.do("recover", "orders", "--yes")
    assert (status, done["error"]["code"]) == (1, "service"), done
    assert "did not end within 6 s and was killed" in done["error"]["sentence"]
    # One that does not start then is named, with what to do, and tried by nobody another time.
    told = f"not today. Start it by hand: {world.folder}/service start jobs"
    assert done["error"]["data"].startswith("What had been begun was undone; the application goes on. The service of ")
    assert done["error"]["data"].endswith(told)
    assert (disorder(world.log()), world.up()) == ("", ["web", "mail"])
    assert world.started() == before
    assert (world.do("reconcile")[1]["sessions"], world.log()) == ([], [])
    world.mood("")
    world.service("start", "jobs")
    world.log()

    # The stopped application's volume turns out to be held: it goes back, and they are started when it is.
    world.specify()
    world.mood("hold stop mail")
    status, done = world.do("recover", "orders", "--yes")
    os.kill(int((world.folder / "holder").read_text()), signal.SIGKILL)
    assert status == 1, done
    assert (disorder(world.log()), world.up()) == ("", list(NAMES))
    assert world.started() != before


def cut_off(world: World) -> None:
    world.killed("stop jobs")
    status, done = world.do("reconcile")
    assert (status, done["unmended"], world.up()) == (0, [], list(NAMES))
    assert disorder(world.log(), ("web", "jobs")) == ""
    world.killed("start mail")
    status, done = world.do("reconcile")
    assert (status, done["unmended"], world.up()) == (0, [], list(NAMES))
    log = world.log()
    assert disorder([*log[:3], *log[4:]]) == "", log  # the start that was killed, and made again
    # One that does not start then is told, once, and holds nothing up: the application is back.
    world.killed("start mail")
    world.mood("fail start jobs")
    _, done = world.do("reconcile")
    (told,) = done["unmended"]
    assert "not today" in told
    assert world.up() == ["web", "mail"]
    assert done["sessions"][0]["replica"] in {each["id"] for each in world.do("replica", "list")[1]["replicas"]}
    assert world.do("reconcile")[1]["unmended"] == []
