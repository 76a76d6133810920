# SPDX-License-Identifier: Apache-2.0
"""A few databases of SQLite at rest, each with a specification: for what happens between commands, not in engines."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from slackwater.demo.disk import BtrfsDisk, XfsDisk
from slackwater.demo.lab import Answer, Lab
from tests.e2e.luck_support import MIB, in_memory, look
from tests.e2e.spawner import Command, Spawner

STATUSES = frozenset({0, 1, 3, 4, 5, 10, 11, 12, 20})
"""How a command may end that was told nothing wrong."""


@dataclass
class Small:
    """A lab, its databases, and how it looked when nothing had been done to it."""

    lab: Lab
    spawner: Spawner
    disk: BtrfsDisk | XfsDisk
    names: list[str] = field(default_factory=list)
    untouched: frozenset[str] = frozenset()

    def add(self, name: str, keep: int = 2) -> None:
        """Make a database with a volume of its own, and a specification of its name."""
        if isinstance(self.disk, BtrfsDisk):
            self.disk.subvolume(name)
        else:
            self.disk.directory(name)
        with contextlib.closing(sqlite3.connect(self.path(name), isolation_level=None)) as database:
            database.execute("CREATE TABLE sales (number integer PRIMARY KEY)")
        text = f'name = "{name}"\n[[component]]\nwriter = "sqlite"\ninstance = "{self.path(name)}"\n'
        text += f'[replica]\nkeep = {keep}\nmin_free = "1%"\n'
        with open(f"{self.lab.config_dir}/specs.d/{name}.toml", "w", encoding="utf-8") as f:
            f.write(text)
        self.names.append(name)

    def path(self, name: str) -> str:
        return f"{self.disk.path}/{name}/shop.db"

    def sell(self, name: str) -> int:
        """Commit one row, and give its number."""
        with contextlib.closing(sqlite3.connect(self.path(name), isolation_level=None)) as database:
            return int(database.execute("INSERT INTO sales DEFAULT VALUES").lastrowid or 0)

    def sold(self, name: str) -> int:
        """How many rows there are, in a database that is whole."""
        with contextlib.closing(sqlite3.connect(self.path(name))) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return int(database.execute("SELECT count(*) FROM sales").fetchone()[0])

    def spawn(self, *words: str) -> Command:
        return self.spawner.spawn(*words)

    def run(self, *words: str, check: bool = True) -> Answer:
        """Run a command to its end; with `check` it has to do what it was asked for."""
        answer = self.spawner.spawn(*words).answer(120.0)
        assert not check or answer.status == 0, f"{words}: {answer}"
        return said_well(answer, words)

    def replicas(self, name: str = "") -> list[dict[str, Any]]:
        """What the catalog shows, oldest first."""
        return list(reversed(self.run("replica", "list", *([name] if name else [])).document["replicas"]))

    def place(self, replica: str) -> str:
        return f"{self.disk.path}/.slackwater/{replica}"

    def on_storage(self) -> set[str]:
        with contextlib.suppress(FileNotFoundError):
            return set(os.listdir(f"{self.disk.path}/.slackwater"))
        return set()

    def honest(self, where: str) -> None:
        """Catalog and storage are one, nothing is frozen, mounted, running or half made, and reconcile agrees."""
        told = self.run("reconcile").document
        assert told["unmended"] == [], f"{where}: {told}"
        assert self.run("catalog", "check").document["differences"] == [], where
        assert {each["id"] for each in self.replicas()} == self.on_storage(), where
        surplus = {line for line in look(self.lab) ^ self.untouched if ".slackwater" not in line}
        assert not surplus, f"{where}: {sorted(surplus)}"
        assert not [line for line in self.lab.inventory().lines if line.startswith("cgroup ")], where

    def clear(self) -> None:
        """Delete every replica."""
        for each in self.replicas():
            self.run("replica", "delete", each["id"], "--yes")


def said_well(answer: Answer, words: tuple[str, ...]) -> Answer:
    """An answer of a documented status; an error is a sentence with what it means and what to do."""
    assert answer.status in STATUSES, f"{words}: {answer}"
    error = answer.document.get("error")
    assert "Traceback" not in answer.complaint, f"{words}: {answer}"
    if error is not None:
        assert error["code"] != "internal", f"{words}: {answer}"
        assert error["sentence"], f"{words}: {answer}"
        assert error["data"], f"{words}: {answer}"
        assert error["hint"], f"{words}: {answer}"
    return answer


@contextlib.contextmanager
def small(filesystem: str = "btrfs", size_bytes: int = 512 * MIB) -> Iterator[Small]:
    """One with no database yet."""
    with in_memory() as lab, Spawner(lab.environment()) as spawner:
        disk = lab.btrfs(size_bytes) if filesystem == "btrfs" else lab.xfs(size_bytes)
        yield Small(lab, spawner, disk)
