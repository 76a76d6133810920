# SPDX-License-Identifier: Apache-2.0
"""RECOVER.txt does what it says: its commands, run as they stand, bring the server back, and slackwater has no part."""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from slackwater.demo.cluster import DebianCluster
from slackwater.demo.lab import Lab
from slackwater.system.command import CommandError, run
from tests.e2e.luck_support import MIB, add_table, obeyed, spawned, tables, write_specification
from tests.e2e.spawner import Spawner

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@dataclass(frozen=True)
class Ground:
    """A server, and how what was done by hand to its volumes is taken back."""

    cluster: DebianCluster
    places: str
    """Where the replicas lie."""
    put_back: Callable[[], None]


@pytest.fixture(scope="module")
def btrfs(lab: Lab) -> Ground:
    """Two volumes, one mounted inside the other, with blanks in their names."""
    disk, volumes = lab.btrfs(768 * MIB), ("the data", "the log")
    for name in volumes:
        disk.subvolume(name)
    data = disk.mount_subvolume("the data", f"{lab.folder}/my srv")
    cluster = lab.cluster(data)
    run("bash", "-e", "-c", f"cp -a '{data}/pg_wal/.' '{disk.path}/the log'; rm -r '{data}/pg_wal'/*")
    disk.mount_subvolume("the log", f"{data}/pg_wal")

    def put_back() -> None:
        for target in (f"{data}/pg_wal", data):
            if os.path.ismount(target):
                disk.unmount(target)
        for name in volumes:
            run("btrfs", "subvolume", "delete", f"{disk.path}/{name}")
            os.rename(_aside(disk.path, name), f"{disk.path}/{name}")
        disk.mount_subvolume("the data", data)
        disk.mount_subvolume("the log", f"{data}/pg_wal")

    return _started(Ground(cluster, f"{disk.path}/.slackwater", put_back))


@pytest.fixture(scope="module")
def xfs(lab: Lab) -> Ground:
    """A directory whose files are copied one by one."""
    disk = lab.xfs(768 * MIB)
    data = disk.directory("the data")

    def put_back() -> None:
        shutil.rmtree(data)
        os.rename(_aside(disk.path, "the data"), data)

    return _started(Ground(lab.cluster(data), f"{disk.path}/.slackwater", put_back))


def _aside(folder: str, name: str) -> str:
    (aside,) = [each for each in os.listdir(folder) if each.startswith(f"{name}.before-")]
    return f"{folder}/{aside}"


def _started(ground: Ground) -> Ground:
    ground.cluster.start()
    add_table(ground.cluster, "before")
    return ground


def manual(lab: Lab, ground: Ground, hold: str) -> list[str]:
    """The commands beside a replica that was taken with this hold, between two commits."""
    with ground.cluster.connect(autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS later")
    name = hold.replace("-", "")
    write_specification(lab, name, ground.cluster.name, options=f'hold = "{hold}"')
    with Spawner(lab.environment()) as spawner:
        done = obeyed(spawned(spawner, "backup", name)).document
    assert done["plan"]["hold"] == hold
    add_table(ground.cluster, "later")
    with open(_document(ground.places, done["replica"]), encoding="utf-8") as f:
        lines = re.findall(r"^ {4}(\S.*)$", f.read(), re.MULTILINE)
    assert not [line for line in lines if re.search(r"(^|[;&|] *)slackwater\b", line)]
    return lines


def _document(places: str, replica: str) -> str:
    (found,) = [where for where, _, names in os.walk(places) if "RECOVER.txt" in names and where.endswith(replica)]
    return f"{found}/RECOVER.txt"


def by_hand(ground: Ground, lines: list[str]) -> list[str]:
    """Stop, type, start: the server's tables then, none when it does not come up; then all is put back."""
    ground.cluster.stop()
    run("bash", "-e", "-c", "\n".join(lines))
    try:
        ground.cluster.start()
        return tables(ground.cluster)
    except CommandError:
        return []
    finally:
        ground.cluster.stop("immediate")
        ground.put_back()
        ground.cluster.start()
        assert tables(ground.cluster) == ["before", "later"]


def test_its_commands_bring_the_server_back(lab: Lab, btrfs: Ground) -> None:
    lines = manual(lab, btrfs, "process-freeze")
    assert by_hand(btrfs, lines) == ["before"]
    for right, wrong in TWINS:
        sabotaged = [re.sub(rf"^{right}$", wrong, line) for line in lines]
        assert sabotaged != lines
        assert by_hand(btrfs, sabotaged) != ["before"], f"{wrong}: not caught"


#: One wrong command: a snapshot of today's data, and a volume that is not mounted.
TWINS = [
    (r"btrfs subvolume snapshot \S*/the_data\S* '(.*)'", r"btrfs subvolume snapshot '\1'.before-* '\1'"),
    (r"mount .*/pg_wal'", "true"),
]


def test_with_a_log_bridge_the_label_comes_first(lab: Lab, btrfs: Ground) -> None:
    lines = manual(lab, btrfs, "log-bridge")
    assert [line for line in lines if "backup_label" in line]
    assert by_hand(btrfs, lines) == ["before"]


@pytest.mark.parametrize("hold", ["process-freeze", "log-bridge"])
def test_a_directory_on_xfs(lab: Lab, xfs: Ground, hold: str) -> None:
    assert by_hand(xfs, manual(lab, xfs, hold)) == ["before"]
