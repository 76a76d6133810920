# SPDX-License-Identifier: Apache-2.0
"""A world of one busy database, and what must be true of it after every command, also of one that was killed."""

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from slackwater.demo import oracle
from slackwater.demo.cluster import Cluster
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Answer, Lab
from slackwater.demo.load import Load
from slackwater.system.clock import SYSTEM_CLOCK
from tests.e2e.spawner import Command, Spawner

NAME = "orders"
COPIES = ("data", "log")
"""The volumes, and so the names of their copies."""
GOES_ON_S = 4.0
"""How long a busy database may be silent before it counts as standing still."""
HOLD_S = 2.0
"""How long a specification allows it to stand still."""
GUESTS_STAY_S = 20.0
"""Tests of others, at the same time, may take copies of our mounts along into mount namespaces of theirs."""
LOOK_S = 0.2
_PASSING = re.compile(
    r"\+ (mount elsewhere|cgroup slackwater|process .*/guard/(guard|freezer|understudy)\.py"
    r"|process /usr/bin/perl -wT /usr/bin/pg_ctlcluster)"
)
"""What has to end by itself: guests, guards of others' tests, and Debian's command for a start, which looks on."""
_SPECIFICATION = """\
name = "{name}"
[[component]]
writer = "postgresql"
instance = "{instance}"
[replica]
keep = {keep}
[options]
freeze_timeout = "20s"
hold_timeout = "{hold_s:g}s"
hold = "{hold}"
"""
_DOCUMENTS = ("RECOVER.txt", "components.json")
_CHANGES_BY_ITSELF = ("postmaster.pid", "postmaster.opts")
_LEDGERS = ("-wal", "-shm")
"""SQLite's files beside a database that somebody has open; the tests read the journal."""


def is_guest(answer: Answer) -> bool:
    """Whether a command was refused only because a guest has a copy of our mounts."""
    return answer.status != 0 and "mount namespace" in json.dumps(answer.document)


@dataclass
class World:
    """A laboratory with one cluster under load, and how it looked when nothing had been done to it."""

    lab: Lab
    spawner: Spawner
    disk: BtrfsDisk
    cluster: Cluster
    load: Load
    volumes: tuple[str, ...]
    hold: str = "auto"
    """What its specification asks for."""
    untouched: frozenset[str] = frozenset()
    moments: dict[str, float] = field(default_factory=dict)
    """By replica: a moment, in seconds since boot, up to which everything acknowledged has to be in it."""
    timelines: set[int] = field(default_factory=set)
    """Every timeline that was seen."""

    # -- commands --------------------------------------------------------------------------------------------------

    def run(self, *words: str) -> dict[str, Any]:
        """Run a command to its end and give its JSON."""
        answer = self.spawner.spawn(*words).answer()
        ends_s = time.monotonic() + GUESTS_STAY_S
        while is_guest(answer) and time.monotonic() < ends_s:
            time.sleep(LOOK_S)
            answer = self.spawner.spawn(*words).answer()
        assert answer.status == 0, f"{words}: {answer}"
        return answer.document

    def spawn(self, *words: str) -> Command:
        """Start a session that tells of its phases."""
        return self.spawner.spawn(*words, "--progress", "json")

    def specify(self, keep: int) -> None:
        """Write the specification."""
        text = _SPECIFICATION.format(name=NAME, instance=self.cluster.name, keep=keep, hold=self.hold, hold_s=HOLD_S)
        with open(f"{self.lab.config_dir}/specs.d/{NAME}.toml", "w", encoding="utf-8") as f:
            f.write(text)

    def back_up(self) -> str:
        """Take a replica, and note what has to be in it: all that was acknowledged when its hold began."""
        done = self.run("backup", NAME)
        name = "freeze" if done["plan"]["hold"] == "process-freeze" else "snapshot"
        (began,) = [each["started"] for each in done["phases"] if each["name"] == name]
        self.moments[done["replica"]] = boot_s_of(began)
        return str(done["replica"])

    def recover(self, *options: str) -> str:
        """Recover, and note what has to be in the undo replica: all that was acknowledged when the stop began."""
        done = self.run("recover", NAME, *options, "--yes")
        (began,) = [each["started"] for each in done["phases"] if each["name"] == "stop"]
        self.moments[done["undo_replica"]] = boot_s_of(began)
        return str(done["undo_replica"])

    def replicas(self) -> dict[str, dict[str, Any]]:
        """What the catalog shows, by id, oldest first."""
        listed = self.run("replica", "list")["replicas"]
        return {each["id"]: each for each in sorted(listed, key=lambda each: each["created"])}

    def newest(self) -> str:
        """The newest replica that a backup took."""
        return [name for name, each in self.replicas().items() if each["kind"] == "backup"][-1]

    def recovered(self, session: str) -> bool:
        """Whether a recovery came to its end; what is kept of one that was taken back was replaced by nothing."""
        return session in self.replicas() and bool(self.run("replica", "show", session)["replica"]["replaced_by"])

    # -- what must be true -----------------------------------------------------------------------------------------

    def goes_on(self, within_s: float = GOES_ON_S) -> None:
        """The load commits, without any command."""
        self.load.wait(3, within_s)

    def holds(self, moment: float, where: str) -> None:
        """Everything acknowledged up to a moment is there, and so is everything acknowledged by what runs now."""
        self.load.pause()
        then, now = self.load.acknowledged(before=moment), self.load.acknowledged()
        with self.load.connect() as connection:
            verdict = oracle.check(connection, {teller: [*then[teller], *now[teller]] for teller in then})
        assert any(then.values()), where
        assert verdict.ok, f"{where}: {verdict.findings}"
        self.load.resume()

    def new_timeline(self, where: str) -> None:
        """The server is on a timeline that no server of this world was on before."""
        timeline = self.timeline()
        assert timeline not in self.timelines, f"{where}: timeline {timeline} again, after {sorted(self.timelines)}"
        self.timelines.add(timeline)

    def timeline(self) -> int:
        """The server's timeline."""
        with self.cluster.connect() as connection:
            row = connection.execute("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)").fetchone()
        assert row is not None
        return int(row[0], 16)

    def whole(self, where: str) -> None:
        """Mounts, devices, subvolumes, servers, cgroups and files are those from before and those of the catalog."""
        ends_s = time.monotonic() + GUESTS_STAY_S
        while (surplus := self.surplus()) and all(map(_PASSING.match, surplus)):
            assert time.monotonic() < ends_s, f"{where}: {surplus}"
            time.sleep(LOOK_S)
        assert not surplus, f"{where}: {surplus}"

    def surplus(self) -> list[str]:
        """What is there and should not be (`+`), and what should be and is not (`-`)."""
        replicas = {name: each["volumes"] for name, each in self.replicas().items()}
        expected = self.untouched | {
            line
            for name, volumes in replicas.items()
            for line in (_place(name, volumes), *(f"subvolume .slackwater/{name}/{each['name']}" for each in volumes))
        }
        present = self.look()
        return sorted([f"+ {each}" for each in present - expected] + [f"- {each}" for each in expected - present])

    def look(self) -> frozenset[str]:
        """The list: the laboratory's inventory, the folders of replicas, and the volumes' own folders."""
        lines = {each for each in self.lab.inventory().lines if not each.endswith(_LEDGERS)}
        lines |= {f"volume {each}: {_folder(each)}" for each in self.volumes}
        with contextlib.suppress(FileNotFoundError):
            where = f"{self.disk.path}/.slackwater"
            for name in os.listdir(where):
                inside = sorted(os.listdir(f"{where}/{name}"))
                lines.add(f"place {name}: {', '.join(inside)}")
        return frozenset(lines)


def _place(name: str, volumes: list[dict[str, Any]]) -> str:
    return f"place {name}: {', '.join(sorted([*_DOCUMENTS, *(each['name'] for each in volumes)]))}"


def _folder(path: str) -> str:
    """Owner, rights and names of a volume; for a data directory also what it was told by ALTER SYSTEM or by us."""
    status = os.stat(path)
    names = sorted(each for each in os.listdir(path) if not each.isalnum() or len(each) != len("0" * 24))
    names = [each for each in names if each not in _CHANGES_BY_ITSELF and not each.endswith(".history")]
    settings = ""
    with contextlib.suppress(FileNotFoundError), open(f"{path}/postgresql.auto.conf", encoding="utf-8") as f:
        settings = "".join(line for line in f if not line.startswith("#"))
    return f"{status.st_uid} {status.st_mode:o} {' '.join(names)} {settings}"


@contextlib.contextmanager
def new_world(
    *, volumes: int, keep: int, hold: str = "auto", writers: int = 1, debian: bool = False
) -> Iterator[World]:
    """A busy database on one or two subvolumes; in memory where there is enough, since nothing here is about disks."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    folder = tempfile.mkdtemp(prefix="sw-", dir=memory)
    os.chmod(folder, 0o755)  # noqa: S103 - the server's user has to pass
    try:
        with Lab(folder) as lab, Spawner(lab.environment()) as spawner:
            disk = lab.btrfs()
            places = [disk.subvolume(name) for name in COPIES[:volumes]]
            data, log = places[0], places[1] if volumes > 1 else None
            cluster: Cluster = lab.cluster(data, log) if debian else lab.wheel_cluster(18, data, log)
            cluster.start()
            with Load(cluster, f"{lab.folder}/load", writers=writers) as load:
                world = World(lab, spawner, disk, cluster, load, tuple(places), hold)
                world.specify(keep)
                world.run("reconcile")  # makes the state's files
                world.untouched = world.look()
                world.timelines.add(world.timeline())
                yield world
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def boot_s_of(moment: str) -> float:
    """A time of day as commands print it (milliseconds, cut off, never rounded up) in seconds since boot."""
    wall = datetime.fromisoformat(moment)
    return SYSTEM_CLOCK.boot_s() - (SYSTEM_CLOCK.now() - wall).total_seconds()
