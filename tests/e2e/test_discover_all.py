# SPDX-License-Identifier: Apache-2.0
"""One machine with one of each: a stranger is told what everything is, where it lies, and what can be done for it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slackwater.demo.cluster import Cluster
from slackwater.demo.lab import Lab
from tests.e2e.luck_support import MIB, filesystem, in_memory

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

#: An application that has its database open, and a table in it.
_SQLITE = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1])
database.execute("CREATE TABLE orders (number INTEGER)")
database.commit()
database.execute("SELECT * FROM orders").fetchall()
print("open", flush=True)
time.sleep(1000)
"""


@dataclass
class Machine:
    """What is on it, by what it is for the test."""

    lab: Lab
    clusters: dict[str, Cluster]
    databases: dict[str, str]
    uploads: str
    replica: str


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with everything() as made, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{made.lab.folder}/site")
        yield made


@contextlib.contextmanager
def everything() -> Iterator[Machine]:
    """Servers on a volume, on two, on XFS, and stopped; SQLite on each filesystem; a directory; what is wrong."""
    with in_memory() as lab, contextlib.ExitStack() as running:
        btrfs, xfs = lab.btrfs(768 * MIB), lab.xfs(512 * MIB)
        clusters: dict[str, Cluster] = {
            "one volume": lab.wheel_cluster(18, btrfs.subvolume("pg18")),
            "log apart": lab.cluster(btrfs.subvolume("pg15"), f"{btrfs.subvolume('log15')}/pg_wal"),
            "xfs": lab.cluster(xfs.directory("pg")),
            "stopped": lab.cluster(btrfs.subvolume("old")),
        }
        for name in ("one volume", "log apart", "xfs"):
            clusters[name].start()
        databases = {
            "btrfs": f"{btrfs.subvolume('shop')}/app.db",
            "xfs": f"{xfs.directory('wiki')}/wiki.db",
            "ext4": f"{filesystem(lab, 'ext4', 32 * MIB, 'ext4')}/app.db",
            "memory": f"{lab.folder}/memory.db",
        }
        for path in databases.values():
            application = [sys.executable, "-c", _SQLITE, path]
            process = running.enter_context(subprocess.Popen(application, stdout=subprocess.PIPE, cwd="/"))
            running.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
        uploads = btrfs.subvolume("uploads")
        _specify(lab, uploads=uploads, gone=f"{uploads}.gone")
        lab.slackwater("spec", "create", "orders", clusters["one volume"].ref)
        replica = str(lab.slackwater("backup", "orders").document["replica"])
        lab.slackwater("clone", "create", replica, "--name", "kept", "--keep")
        lab.slackwater("replica", "mount", replica, f"{lab.folder}/seen")
        _break_a_plugin(f"{lab.folder}/site")
        yield Machine(lab, clusters, databases, uploads, replica)


def _specify(lab: Lab, **folders: str) -> None:
    """A specification for each folder, and one that cannot be read."""
    specs = Path(lab.config_dir) / "specs.d"
    for name, folder in folders.items():
        (specs / f"{name}.toml").write_text(
            f'name = "{name}"\n[[component]]\nwriter = "files"\ninstance = "{folder}"\n'
        )
    (specs / "broken.toml").write_text('name = "broken"\n[[component]\n')


def _break_a_plugin(folder: str) -> None:
    """A package of somebody else's whose provider cannot be imported."""
    info = Path(folder) / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[slackwater.providers]\nacme = acme_storage:Provider\n")


def told(machine: Machine, *words: str, status: int = 0) -> str:
    """What people are told."""
    done = machine.lab.slackwater(*words, check=False, json=False)
    assert done.status == status, done.output + done.complaint
    return done.output


def section(text: str, ref: str) -> str:
    """What is said of one component, in one line."""
    (found,) = [part for part in text.split("\n\n") if part.startswith(f"{ref}\n")]
    return " ".join(found.split())


def test_everything_is_there_once_and_nothing_else(machine: Machine) -> None:
    found = machine.lab.slackwater("discover").document
    wanted = [each.ref for each in machine.clusters.values()]
    wanted += [f"sqlite:{each}" for each in machine.databases.values()] + [f"files:{machine.uploads}"]
    assert sorted(each["component"] for each in found["components"]) == sorted(wanted)
    by_name = {each["component"]: each for each in found["components"]}

    def said(ref: str) -> tuple[object, ...]:
        each = by_name[ref]
        return each["running"], each["provider"], each["hold"], each["recoverable"], len(each["volumes"])

    assert said(machine.clusters["one volume"].ref) == (True, "btrfs", "atomic", True, 1)
    assert said(machine.clusters["log apart"].ref) == (True, "btrfs", "log-bridge", True, 2)
    assert said(machine.clusters["xfs"].ref) == (True, "reflink", "log-bridge", True, 1)
    assert said(machine.clusters["stopped"].ref) == (False, "btrfs", "cold", True, 1)
    # Nobody said how the application that has it open is stopped: what a recovery would say is said here.
    assert said(f"sqlite:{machine.databases['btrfs']}") == (True, "btrfs", "atomic", False, 1)
    assert said(f"sqlite:{machine.databases['xfs']}") == (True, "reflink", "application-lock", False, 1)
    assert said(f"sqlite:{machine.databases['memory']}") == (True, "", None, False, 0)
    assert said(f"files:{machine.uploads}") == (True, "btrfs", "atomic", True, 1)
    assert [each["code"] for each in found["failures"]] == ["plug-in", "no-component"]
    for each in (*found["failures"], *(one for component in found["components"] for one in component["findings"])):
        assert each["sentence"].endswith("."), each
        assert each["hint"], each


def test_people_are_told_what_it_is_where_it_lies_and_what_can_be_done(machine: Machine) -> None:
    text = told(machine, "discover")
    assert text.startswith("COMPONENT "), "a table first"
    assert [line for line in text.splitlines() if len(line) > 80] == []
    lines = " ".join(text.split())
    apart = section(text, machine.clusters["log apart"].ref)
    data = machine.clusters["log apart"].data_dir
    assert f"volume {data} (btrfs): data volume {os.path.dirname(data)}/log15 (btrfs): log" in apart
    assert "hold none (log bridge)." in apart
    assert "PostgreSQL 15, stopped" in section(text, machine.clusters["stopped"].ref)
    assert "(reflink): data" in section(text, machine.clusters["xfs"].ref)
    alone = section(text, f"sqlite:{machine.databases['memory']}")
    assert "lies on tmpfs, which no provider here can snapshot. -> Move it to" in alone
    assert "ext4" in section(text, f"sqlite:{machine.databases['ext4']}")
    held = section(text, f"sqlite:{machine.databases['btrfs']}")
    assert "nobody said how to stop and start" in held
    assert "acme_storage:Provider cannot be loaded and is left out" in lines
    assert f"There is no component files:{machine.uploads}.gone on this host" in lines
    assert "kept" not in lines, "an engine on a clone is nobody's production"


def test_the_lists_name_what_is_kept_and_what_is_broken(machine: Machine) -> None:
    lists = {words: told(machine, *words) for words in (("status",), ("replica", "list"), ("clone", "list"))}
    for text in lists.values():
        assert [line for line in text.splitlines() if len(line) > 80] == []
    status = lists["status",]
    assert f"orders\nlast good    {machine.replica}" in status
    assert "uploads\nlast good  none" in status
    assert "specification broken cannot be read -> slackwater spec check broken" in status
    assert lists["replica", "list"].splitlines()[2].split()[-1] == "mounted"
    assert lists["clone", "list"].splitlines()[2].split()[-2:] == ["never", "running"]
    assert "Correct the file; it is TOML." in told(machine, "spec", "list")
    checked = told(machine, "spec", "check", status=4)
    for line in ("broken: broken", "orders: good", "uploads: good", "gone: "):
        assert line in checked
    assert "acme_storage" in told(machine, "doctor", status=1)
    assert told(machine, "catalog", "check") == "Catalog and storage agree.\n"
