# SPDX-License-Identifier: Apache-2.0
"""A database on three volumes, its replicas, and damage to them that nothing but the engine can find."""

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from slackwater.demo.cluster import DebianCluster
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Answer, Lab
from slackwater.providers._btrfs.places import facts_of
from slackwater.system import btrfs
from slackwater.system.command import run
from tests.e2e.spawner import Command, Spawner

ROWS = 20000
_PAGE = 8192


@dataclass
class Proving:
    """A laboratory with one cluster: data, log and a tablespace, each on a volume of its own."""

    lab: Lab
    spawner: Spawner
    disk: BtrfsDisk
    cluster: DebianCluster
    space: str

    def command(self, *words: str, timeout_s: float = 120.0) -> Answer:
        """Run a command to its end."""
        return self.spawner.spawn(*words).answer(timeout_s)

    def obeyed(self, *words: str) -> dict[str, Any]:
        """Run a command that has to succeed."""
        answer = self.command(*words)
        assert answer.status == 0, f"{words}: {answer}"
        return answer.document

    def failed(self, status: int, code: str, *words: str) -> str:
        """Run a command that has to fail; returns its sentence."""
        answer = self.command(*words)
        assert (answer.status, answer.document.get("error", {}).get("code")) == (status, code), f"{words}: {answer}"
        return str(answer.document["error"]["sentence"])

    def spawn(self, *words: str) -> Command:
        """Start a session that tells of its phases."""
        return self.spawner.spawn(*words, "--progress", "json")

    def replica(self, replica: str) -> dict[str, Any]:
        """How a replica stands in the list."""
        return next(each for each in self.obeyed("replica", "list")["replicas"] if each["id"] == replica)

    def specify(self, name: str, **tables: str) -> None:
        """Write a specification with lines in `replica` and `verify`."""
        text = f'name = "{name}"\n[[component]]\nwriter = "postgresql"\ninstance = "{self.cluster.name}"\n'
        text += "".join(f"[{table}]\n{lines}\n" for table, lines in tables.items())
        with open(f"{self.lab.config_dir}/specs.d/{name}.toml", "w", encoding="utf-8") as f:
            f.write(text)

    def sql(self, query: str) -> str:
        """Ask the live server."""
        with self.cluster.connect(autocommit=True) as connection:
            row = connection.execute(query.encode())
            return str((row.fetchone() or [""])[0]) if row.description else ""

    def live_files(self) -> str:
        """A checksum over all that lies in the live tablespace; the server has written everything to it."""
        self.sql("checkpoint")
        digest = hashlib.sha256()
        for folder, _, names in sorted(os.walk(self.space)):
            for name in sorted(names):
                with open(os.path.join(folder, name), "rb") as f:
                    digest.update(name.encode() + f.read())
        return digest.hexdigest()

    def damage(self, replica: str, copy: str, harm: Callable[[str], None], *, unnoticed: bool) -> None:
        """Harm one copy of a replica; `unnoticed`: the catalog is made to believe that it is what was made."""
        path = f"{self.disk.path}/.slackwater/{replica}/{copy}"
        run("btrfs", "property", "set", path, "ro", "false")
        harm(path)
        run("btrfs", "property", "set", path, "ro", "true")
        run("btrfs", "filesystem", "sync", path)
        if not unnoticed:
            return
        found = btrfs.subvolume_at(path)
        assert found is not None
        with sqlite3.connect(f"{self.lab.state_dir}/catalog.sqlite") as catalog:
            (text,) = catalog.execute("SELECT document FROM replicas WHERE id = ?", (replica,)).fetchone()
            document = json.loads(text)
            for each in document["copies"]:
                if each["volume"]["name"] == copy:
                    each["facts"] |= dict(facts_of(found))
            catalog.execute("UPDATE replicas SET document = ? WHERE id = ?", (json.dumps(document), replica))
        catalog.close()


def flip_page(path: str) -> Callable[[str], None]:
    """Overwrite the second page of a file, below the root of its volume, but for its header.

    Not with one byte again and again: that could look like rows that were deleted.
    """

    def harm(root: str) -> None:
        with open(os.path.join(root, path), "r+b") as f:
            f.seek(_PAGE + 24)
            f.write(bytes(range(256)) * 31)

    return harm


def flip_bit(path: str) -> Callable[[str], None]:
    """Change one bit at the end of the second page, in somebody's data: nothing but a checksum can tell."""

    def harm(root: str) -> None:
        with open(os.path.join(root, path), "r+b") as f:
            f.seek(2 * _PAGE - 1)
            (byte,) = f.read(1)
            f.seek(2 * _PAGE - 1)
            f.write(bytes([byte ^ 1]))

    return harm


def without_log(root: str) -> None:
    """Remove every segment of the log."""
    for name in os.listdir(root):
        if len(name) == 24:
            os.unlink(os.path.join(root, name))


def without_files(root: str) -> None:
    """Remove everything."""
    for name in os.listdir(root):
        shutil.rmtree(os.path.join(root, name))


def until(done: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait until something is so."""
    ends_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < ends_s, "not in time"
        time.sleep(0.01)
