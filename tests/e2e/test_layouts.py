# SPDX-License-Identifier: Apache-2.0
"""Every way to mount a volume: recovered and undone there, and still right after everything was mounted anew."""

import json
import os
import shutil
import sys
from dataclasses import dataclass

import pytest

from slackwater.demo.cluster import DebianCluster
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Answer, Lab
from slackwater.system.command import run
from tests.e2e.luck_support import MIB, add_table, against, look, obeyed, spawned, tables
from tests.e2e.spawner import Spawner

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@dataclass(frozen=True)
class Layout:
    """Where a cluster's subvolumes are mounted; paths are relative to the layout's own folder."""

    name: str
    mounts: tuple[tuple[str, str], ...]
    """Subvolume and target, in the order of mounting."""
    data: str
    log: str = ""
    """Where the log is linked to; empty: it is a folder of the data directory, or mounted on that."""
    by: str = "subvol"
    """How it is mounted at first. `subvolid=` names one subvolume for ever, so by the path afterwards."""
    hold: str = "atomic"


LAYOUTS = [
    Layout("below a mount", (("pg", "srv"),), "srv/data"),
    Layout("mounted by subvolid", (("pg", "srv"),), "srv/data", by="subvolid"),
    Layout("nested in a parent", (("parent", "srv"),), "srv/pg"),
    Layout("itself the mount point", (("pg", "srv"),), "srv"),
    Layout("log mounted inside", (("pg", "srv"), ("log", "srv/pg_wal")), "srv", hold="log-bridge"),
    Layout("log linked", (("pg", "srv"), ("log", "log")), "srv", log="log/pg_wal", hold="log-bridge"),
]


@pytest.fixture(scope="module")
def disk(lab: Lab) -> BtrfsDisk:
    return lab.btrfs(1024 * MIB)


class Place:
    """A layout that was laid out."""

    def __init__(self, lab: Lab, disk: BtrfsDisk, layout: Layout) -> None:
        self._disk = disk
        self._folder = f"{lab.folder}/{layout.name.replace(' ', '-')}"
        self._layout = layout
        self._prefix = os.path.basename(self._folder)
        os.mkdir(self._folder)
        os.makedirs(f"{disk.path}/{self._prefix}")
        for subvolume, target in layout.mounts:
            disk.subvolume(f"{self._prefix}/{subvolume}")
            if target == "srv":
                self._mount(subvolume, target, layout.by)
        if layout.name == "nested in a parent":
            disk.subvolume(f"{self._prefix}/parent/pg")
        for subvolume, target in layout.mounts:
            if target == "log":
                self._mount(subvolume, target)
        self.cluster = lab.wheel_cluster(18, self.path(layout.data), self.path(layout.log) if layout.log else None)
        if layout.name == "log mounted inside":
            self._move_log()

    def path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _mount(self, subvolume: str, target: str, by: str = "subvol") -> None:
        name = f"{self._prefix}/{subvolume}"
        self._disk.mount_subvolume(name, self.path(target), "subvolid" if by == "subvolid" else "subvol")

    def _move_log(self) -> None:
        """As an administrator does it: the log's files onto its volume, and that mounted in their place."""
        log = f"{self._disk.path}/{self._prefix}/log"
        run("cp", "-a", f"{self.cluster.data_dir}/pg_wal/.", log)
        shutil.rmtree(f"{self.cluster.data_dir}/pg_wal")
        run("install", "-d", "-o", "postgres", "-g", "postgres", "-m", "700", f"{self.cluster.data_dir}/pg_wal")
        self._mount("log", "srv/pg_wal")

    def mount_anew(self) -> None:
        """Stop the server, unmount everything, mount it again by its path, and start the server."""
        self.cluster.stop()
        for _, target in reversed(self._layout.mounts):
            self._disk.unmount(self.path(target))
        for subvolume, target in self._layout.mounts:
            self._mount(subvolume, target)
        self.cluster.start()


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_it_is_recovered_undone_and_mounted_anew(lab: Lab, disk: BtrfsDisk, spawner: Spawner, layout: Layout) -> None:
    place = Place(lab, disk, layout)
    cluster = place.cluster
    cluster.start()
    add_table(cluster, "before")
    taken = obeyed(spawned(spawner, "backup", cluster.ref)).document
    assert taken["plan"]["hold"] == layout.hold
    assert len(taken["plan"]["volumes"]) == (2 if layout.hold == "log-bridge" else 1)
    assert taken["window"]["frozen_ms"] == 0
    add_table(cluster, "later")
    before = mounted(lab)
    assert not obeyed(spawned(spawner, "recover", cluster.ref, "--preview")).document["findings"]
    obeyed(spawned(spawner, "recover", cluster.ref, "--yes"))
    assert tables(cluster) == ["before"]
    assert mounted(lab) == before
    place.mount_anew()
    assert tables(cluster) == ["before"]
    obeyed(spawned(spawner, "recover", cluster.ref, "--undo", "--yes"))
    assert tables(cluster) == ["before", "later"]
    place.mount_anew()
    assert tables(cluster) == ["before", "later"]
    assert mounted(lab) == before
    cluster.stop()


def mounted(lab: Lab) -> frozenset[str]:
    """What is mounted where, by the paths of the subvolumes."""
    return frozenset(line for line in look(lab) if line.startswith("mount "))


def test_a_number_in_fstab_is_refused_with_the_line_to_write(lab: Lab, disk: BtrfsDisk, spawner: Spawner) -> None:
    """In a mount namespace of its own, where /etc/fstab is ours: its database has to be stopped, and mounted there."""
    disk.subvolume("numbered")
    target = disk.mount_subvolume("numbered", f"{lab.folder}/numbered")
    cluster = lab.cluster(f"{target}/data")
    obeyed(spawned(spawner, "backup", cluster.ref))
    disk.unmount(target)
    line = f"{disk.device} {target} btrfs noauto,subvolid={disk.subvolume_id('numbered')} 0 0"
    found = against(in_namespace(lab, disk, cluster, line), "fstab-subvolid")
    assert f"/etc/fstab mounts {target} by subvolid=" in found["sentence"]
    better = found["hint"].split("write: ")[1]
    assert better == f"{disk.device} {target} btrfs noauto,subvol=/numbered 0 0"
    assert not obeyed(in_namespace(lab, disk, cluster, better)).document["findings"]


def in_namespace(lab: Lab, disk: BtrfsDisk, cluster: DebianCluster, line: str) -> Answer:
    with open(f"{lab.folder}/fstab", "w", encoding="utf-8") as f:
        f.write(f"{line}\n")
    script = f"""mount --bind {lab.folder}/fstab /etc/fstab
        mount -o subvol=/numbered {disk.device} {os.path.dirname(cluster.data_dir)}
        exec {sys.executable} -m slackwater recover {cluster.ref} --preview --json"""
    done = run("unshare", "--mount", "bash", "-ec", script, check=False, environment=lab.environment())
    return Answer(done.status, done.output, done.complaint, json.loads(done.output))
