# SPDX-License-Identifier: Apache-2.0
"""An application and its Slackwater, and what must be true of both after every cell of the matrix."""

import contextlib
import functools
import json
import os
import re
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import anyio

from slackwater.config.places import Places
from slackwater.demo.lab import Answer, Lab
from slackwater.hosts import plugins
from slackwater.sessions.cell import Cell
from slackwater.sessions.check import check
from tests.e2e.spawner import Command, Spawner
from tests.e2e.support import GUESTS_STAY_S, LOOK_S, is_guest

GOES_ON_S = 5.0
"""How long an application may be silent before it counts as standing still."""
BACK_S = 20.0
"""How long it may take to come back by itself after it was started again."""
PLACES = (".slackwater", ".slackwater-full", ".slackwater-files")
_PLUGINS = functools.cache(metadata.entry_points)
"""Nothing is installed while tests run, and to look takes as long as all the rest of a comparison."""
_LEDGERS = ("-wal", "-shm", "-journal")
_GUARDS = re.compile(r"\+ process .*/guard/(guard|freezer|understudy)\.py")


@dataclass
class Site(ABC):
    """What the matrix needs of a world."""

    lab: Lab
    spawner: Spawner
    engine: str
    """How it is called in the matrix: `sqlite`, `postgresql`."""
    storage: str
    """btrfs or xfs."""
    disks: tuple[str, ...]
    """Where copies may lie."""
    volumes: tuple[str, ...]
    untouched: frozenset[str] = frozenset()
    floors: dict[str, Any] = field(default_factory=dict)
    """By replica: what has to be in it."""
    cut_off: set[str] = field(default_factory=set)
    """Replicas taken while the application was killed."""
    source: str = ""
    """What the last recovery was to recover from."""
    guarded: bool = True
    """Backups hold the application, so that there is a window and a guard."""
    dear: bool = False
    """Judging a replica takes so long that only those are judged that a session left."""
    _passed: dict[str, Any] = field(default_factory=dict)
    """By replica: how its files looked when it last passed the oracle, and what was asked; nobody asks that twice."""

    # -- commands --------------------------------------------------------------------------------------------------

    def run(self, *words: str) -> dict[str, Any]:
        """Run a command that has to succeed."""
        with self.noted() if words[0] in ("backup", "recover") else contextlib.nullcontext():
            answer = self.ask(*words)
        assert answer.status == 0, f"{' '.join(words)}: {answer.status} {answer.output}{answer.complaint}"
        return answer.document

    def ask(self, *words: str) -> Answer:
        """Run a command to its end; once more while a guest of others' tests has a copy of our mounts."""
        ends_s = time.monotonic() + GUESTS_STAY_S
        while True:
            answer = self.spawner.spawn(*words).answer(120.0)
            if not is_guest(answer) or time.monotonic() > ends_s:
                return answer
            time.sleep(LOOK_S)

    def spawn(self, *words: str) -> Command:
        """Start a command that tells of its phases, where it has any."""
        more = () if words[0] == "reconcile" else ("--progress", "json")
        return self.spawner.spawn(*words, *more)

    def replicas(self) -> dict[str, dict[str, Any]]:
        """What the catalog knows, by id, oldest first: read from the file, which is many times as fast as asking."""
        rows = self.catalog("SELECT id, kind, specification, state, document FROM replicas ORDER BY created, id")
        return {
            name: {
                "id": name, "kind": kind, "specification": specification, "state": state,
                "replaced_by": (said := json.loads(document)).get("replica", ""),
                "volumes": [each["volume"]["name"] for each in said["copies"]],
            }
            for name, kind, specification, state, document in rows
        }  # fmt: skip

    def clones(self) -> dict[str, str]:
        """Name and state of each clone that the catalog knows."""
        return dict(self.catalog("SELECT name, state FROM clones"))

    def pending(self) -> list[str]:
        """Sessions that the journal has not settled."""
        return [name for (name,) in self._query("journal", "SELECT id FROM session")]

    def catalog(self, sql: str) -> list[Any]:
        """Ask the catalog's file."""
        return self._query("catalog", sql)

    def _query(self, name: str, sql: str) -> list[Any]:
        uri = f"file:{self.lab.state_dir}/{name}.sqlite?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10.0)) as db:
            return db.execute(sql).fetchall()

    def backup(self, specification: str) -> str:
        """Take a replica."""
        return str(self.run("backup", specification)["replica"])

    def shrink(self) -> None:
        """Let go of old replicas, and of what recoveries set aside, by a rotation and a reconcile."""
        paths = [Path(self.lab.config_dir, "specs.d", f"{each}.toml") for each in ("plain", "full")]
        texts = [each.read_text(encoding="utf-8") for each in paths]
        for path, text in zip(paths, texts, strict=True):
            whole = text if "[recovery]\n" in text else f"{text}[recovery]\n"
            small = whole.replace("keep = 500", "keep = 3").replace("[recovery]\n", '[recovery]\nundo_keep = "1s"\n')
            path.write_text(small, encoding="utf-8")
        self.backup("plain")
        self.run("reconcile")
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note what has to be in every replica that comes meanwhile: all that was acknowledged before."""
        before, floor = self.replicas().keys(), self.floor()
        yield
        for name in self.replicas().keys() - before:
            self.floors.setdefault(name, floor)

    # -- the application -------------------------------------------------------------------------------------------

    @abstractmethod
    def floor(self) -> Any:
        """What was acknowledged until now, and so has to be in whatever is taken from now on."""

    def kept_floor(self, floor: Any) -> Any:
        """What has to be in what is kept of a recovery that was taken back: all of what it had recovered from.

        Args:
            floor: what was acknowledged before that recovery began.
        """
        del floor
        return self.floors[self.source]

    @abstractmethod
    def goes_on(self, within_s: float = GOES_ON_S) -> bool:
        """It acknowledges something new in time, without any command."""

    @abstractmethod
    def live_complaints(self, floor: Any) -> list[str]:
        """The oracle, asked about what runs now."""

    @abstractmethod
    def replica_complaints(self, replica: str, folders: dict[str, str], floor: Any) -> list[str]:
        """The oracle, asked about a replica whose copies lie in these folders."""

    @abstractmethod
    def pids(self) -> list[int]:
        """Of the application's processes."""

    @abstractmethod
    def revive(self) -> None:
        """Start it again after it was killed. Idempotent."""

    def lose_rows(self) -> None:
        """Make a mistake that the log tells of, where there is one."""
        raise NotImplementedError

    # -- what must be true -----------------------------------------------------------------------------------------

    def copies(self, replica: str, names: list[str]) -> dict[str, str]:
        """Where the copies of a replica lie, by the names of their volumes."""
        return {
            name: path
            for disk in self.disks
            for place in PLACES
            for name in names
            if os.path.isdir(path := f"{disk}/{place}/{replica}/{name}")
        }

    def judge(self, replica: dict[str, Any]) -> list[str]:
        """Whether a replica that is called good is what it has to be."""
        if replica["state"] != "good":
            return [f"{replica['id']} is {replica['state']}"]
        names = replica["volumes"]
        folders = self.copies(replica["id"], names)
        if missing := set(names) - folders.keys():
            return [f"{replica['id']}: the copies {sorted(missing)} are not there"]
        floor = self.floors[replica["id"]]
        looks = (str(floor), replica["id"] in self.cut_off, _files(folders.values()))
        if self._passed.get(replica["id"]) == looks:
            return []
        found = self.replica_complaints(replica["id"], folders, floor)
        if not found:
            self._passed[replica["id"]] = looks
        return [f"{replica['id']}: {each}" for each in found]

    def surplus(self, replicas: dict[str, dict[str, Any]]) -> list[str]:
        """What is there and should not be (`+`), and what should be and is not (`-`)."""
        present = self.look()
        places = {each for each in present if each.startswith("place ")}
        inside = {each for each in present if each.startswith("subvolume .slackwater/")}
        rest = present - places - inside
        found = [f"+ {each}" for each in rest - self.untouched] + [f"- {each}" for each in self.untouched - rest]
        known = {(name, volume) for name, each in replicas.items() for volume in each["volumes"]}
        for replica, volume in known:
            if not self.copies(replica, [volume]):
                found.append(f"- copy {volume} of {replica}")
        expected = {f"{replica}/{volume}" for replica, volume in known}
        for line in places:
            _, replica, name = line.split(" ")
            if replica not in replicas or (
                f"{replica}/{name}" not in expected and not _beside(name, replicas[replica])
            ):
                found.append(f"+ {line}")
        found += [f"+ {each}" for each in inside if each.removeprefix("subvolume .slackwater/") not in expected]
        return sorted(found)

    def look(self) -> frozenset[str]:
        """Mounts, devices, subvolumes, processes, cgroups and files, and what lies in the places of copies."""
        lines = {each for each in self.lab.inventory().lines if not each.endswith(_LEDGERS)}
        lines |= {f"volume {each}: {_folder(each)}" for each in self.volumes}
        for disk in self.disks:
            for place in PLACES:
                with contextlib.suppress(FileNotFoundError):
                    for name in os.listdir(f"{disk}/{place}"):
                        lines |= {f"place {name} {each}" for each in os.listdir(f"{disk}/{place}/{name}") or ["empty"]}
            lines |= {f"hidden {disk}/{each}" for each in os.listdir(disk) if each[0] == "." and each not in PLACES}
        return frozenset(lines)

    def whole(self, where: str, replicas: dict[str, dict[str, Any]]) -> None:
        """Nothing is there that was not there before and that the catalog does not show; guests may take a while."""
        ends_s = time.monotonic() + GUESTS_STAY_S
        while (surplus := self.surplus(replicas)) and time.monotonic() < ends_s and all(map(_passes, surplus)):
            time.sleep(LOOK_S / 4)
        assert not surplus, f"{where}: {surplus}"

    def agree(self, where: str) -> None:
        """Catalog and storage say the same: what `slackwater catalog check` asks; a command would be dearer."""
        cell = Cell(Places.from_environment(self.lab.environment()))
        try:
            damage = cell.catalog.check()
            assert not damage, f"{where}: {damage}"
            with mock.patch.object(plugins, "entry_points", _PLUGINS):
                differences = anyio.run(check, cell)
            assert differences == (), f"{where}: {differences}"
        finally:
            cell.catalog.close()


def _files(folders: Iterable[str]) -> frozenset[tuple[str, int, int, int, int]]:
    """Every file with all that changes when it is written to, or is exchanged."""
    paths = (os.path.join(where, each) for folder in folders for where, _, names in os.walk(folder) for each in names)
    return frozenset(
        (path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        for path in paths
        for status in (os.lstat(path),)
    )


def _passes(line: str) -> bool:
    """What has to end by itself: guests, guards, and what a start command leaves for a moment."""
    guests = line.startswith(("+ mount elsewhere", "+ cgroup slackwater"))
    return guests or bool(_GUARDS.match(line)) or "perl" in line


def _beside(name: str, replica: dict[str, Any]) -> bool:
    """Whether a file belongs beside a replica's copies."""
    volumes = replica["volumes"]
    return name in ("RECOVER.txt", "components.json") or any(name.startswith(f"{each}.") for each in volumes)


def _folder(path: str) -> str:
    status = os.stat(path)
    kept = [each for each in os.listdir(path) if not each.endswith(_LEDGERS) and len(each) != len("0" * 24)]
    volatile = ("postmaster.pid", "postmaster.opts")
    names = sorted(each for each in kept if each not in volatile and not each.endswith(".history"))
    return json.dumps([status.st_uid, f"{status.st_mode:o}", names])
