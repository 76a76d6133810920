# SPDX-License-Identifier: Apache-2.0
"""A lab gives real things and leaves nothing behind, however it ends."""

import glob
import os
import signal
import subprocess
import sys
from typing import Literal

import pytest

from slackwater.demo.cluster import DebianCluster
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Lab, LabError
from slackwater.system.command import CommandError, run

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

FOLDERS = ("/tmp", "/run", "/dev/shm", "/etc/postgresql/*", "/var/run/postgresql", "/var/log/postgresql")


def traces(name: str) -> list[str]:
    """Whatever of the lab is still on the machine, seen without the lab's own eyes."""
    found = [path for folder in FOLDERS for path in glob.glob(f"{folder}/*{name}*")]
    found += [line for line in run("losetup", "--all").output.splitlines() if name in line]
    with open("/proc/self/mountinfo") as f:
        found += [line for line in f if name in line]
    return found + [path for path in glob.glob("/proc/[0-9]*/cmdline") if name in content(path)]


def content(path: str) -> str:
    try:
        with open(path) as f:
            return f.read()
    except OSError:  # it has just ended
        return ""


def still_there(memory: list[str]) -> list[str]:
    """Which of these are still there: files, and numbers of System V segments."""
    with open("/proc/sysvipc/shm") as f:
        numbers = {line.split()[1] for line in f.readlines()[1:]}
    return [each for each in memory if each in numbers or os.path.exists(each)]


FULL = """
import os, sys, time
from slackwater.demo.inventory import memory_files
from slackwater.demo.lab import Lab
from slackwater.demo.load import Load
with Lab(name=sys.argv[1]) as lab:
    disk = lab.btrfs()
    disk.mount_subvolume(disk.subvolume("pg").rpartition("/")[2], lab.folder + "/a folder", "subvolid")
    cluster = lab.cluster(lab.folder + "/a folder/data", disk.subvolume("wal"))
    cluster.start()
    with Load(cluster, lab.folder + "/load") as load:
        with open(cluster.data_dir + "/postmaster.pid") as lock:
            print("ready", lock.read().split()[-2], *memory_files(cluster.pids()), flush=True)
        {end}
"""


def full_lab(name: str, end: str) -> tuple["subprocess.Popen[str]", list[str]]:
    """A lab with everything in it, in a process of its own, that then does `end`; and its server's shared memory."""
    process = subprocess.Popen(
        [sys.executable, "-c", FULL.format(end=end), name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    ready, *memory = process.stdout.readline().split() or [""]
    assert ready == "ready", process.communicate()
    assert len(traces(name)) > 8
    assert len(memory) >= 2
    return process, memory


@pytest.mark.parametrize(("end", "status"), [("pass", 0), ("cluster.kill9(); raise ValueError", 1)])
def test_nothing_is_left_however_the_context_ends(end: str, status: int) -> None:
    name = "sw-" + os.urandom(3).hex()
    process, memory = full_lab(name, end)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == status, complaint
    assert traces(name) == []
    assert still_there(memory) == []


def test_nothing_is_left_after_a_signal() -> None:
    name = "sw-" + os.urandom(3).hex()
    process, memory = full_lab(name, "time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert traces(name) == [], complaint
    assert still_there(memory) == []


def test_a_killed_lab_is_swept_by_its_name() -> None:
    name = "sw-" + os.urandom(3).hex()
    process, memory = full_lab(name, "time.sleep(60)")
    process.kill()
    process.wait()
    assert len(traces(name)) > 8, "the test would prove nothing"
    assert Lab.sweep(name) == ()
    assert traces(name) == []
    assert still_there(memory) == []
    assert Lab.sweep(name) == ()


@pytest.mark.parametrize("name", ["", "main", "sw-", "sw-abc", "sw-abcdef-1", "../sw-abcdef"])
def test_only_the_name_of_a_lab_is_swept(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a lab"):
        Lab.sweep(name)


def test_what_cannot_be_removed_is_named() -> None:
    lab = Lab()
    lab.__enter__()
    holder = subprocess.Popen(["sleep", "60"], cwd=lab.btrfs().path)  # none of the lab's: never killed
    try:
        with pytest.raises(LabError, match="could not be unmounted"):
            lab.__exit__(None, None, None)
        assert holder.poll() is None
    finally:
        holder.kill()
        holder.wait()
        left = Lab.sweep(lab.name)
    assert left == ()
    assert traces(lab.name) == []


def test_an_inventory_sees_what_came_and_what_went(lab: Lab) -> None:
    disk = lab.btrfs()
    target = f"{lab.folder}/here"
    before = lab.inventory()
    assert before.diff(lab.inventory()) == ()
    disk.subvolume("one")
    disk.mount_subvolume("one", target)
    with open(f"{lab.state_dir}/left", "w"):
        pass
    assert before.diff(lab.inventory()) == (
        f"+ file {lab.state_dir}/left", f"+ mount /one on {target}", "+ subvolume one",
    )  # fmt: skip
    after = lab.inventory()
    disk.unmount(target)
    assert after.diff(lab.inventory()) == (f"- mount /one on {target}",)


def test_an_inventory_sees_other_mount_namespaces(lab: Lab) -> None:
    disk = lab.btrfs()
    before = lab.inventory()
    script = f"mkdir /tmp/{lab.name}/x; mount -o subvolid=5 {disk.device} /tmp/{lab.name}/x; echo; exec sleep 60"
    other = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        assert f"+ mount elsewhere / on /tmp/{lab.name}/x" in before.diff(lab.inventory())
    finally:
        other.kill()
        other.wait()
    assert before.diff(lab.inventory()) == ()


def test_an_inventory_sees_servers_and_cgroups(module_lab: Lab, module_cluster: DebianCluster) -> None:
    lab, cluster = module_lab, module_cluster
    with open("/proc/self/mountinfo") as f:
        root = next(line.split()[4] for line in f if " - cgroup2 " in line)
    running = lab.inventory()
    group = f"{root}/slackwater-{lab.name}"
    os.mkdir(group)
    try:
        assert running.diff(lab.inventory()) == (f"+ cgroup slackwater-{lab.name}",)
        stranger = subprocess.Popen(["sleep", "60"])
        with open(f"{group}/cgroup.procs", "w") as f:
            f.write(str(stranger.pid))
        assert running.diff(lab.inventory()) == (), "somebody else's"
        stranger.kill()
        stranger.wait()
    finally:
        os.rmdir(group)
    cluster.stop()
    (line,) = running.diff(lab.inventory())
    cluster.start()
    assert line.startswith(f"- process /usr/lib/postgresql/15/bin/postgres -D {cluster.data_dir} ")


def test_a_volume_is_mounted_by_path_and_by_number(lab: Lab, disk: BtrfsDisk) -> None:
    with open(f"{disk.subvolume('data')}/file", "w") as f:
        f.write("here")
    ways: tuple[Literal["subvol", "subvolid"], ...] = ("subvol", "subvolid")
    for by in ways:
        target = disk.mount_subvolume("data", f"{lab.folder}/{by}", by)
        with open(f"{target}/file") as f:
            assert f.read() == "here"
        disk.unmount(target)
        assert not os.path.exists(f"{target}/file")


def test_a_debian_cluster_is_untouched_but_for_its_size(module_cluster: DebianCluster) -> None:
    cluster = module_cluster
    assert cluster.ref == f"postgresql:{cluster.name}"
    with cluster.connect() as connection:
        assert connection.execute("SELECT current_user, current_setting('cluster_name')").fetchone() == (
            "postgres", cluster.name,
        )  # fmt: skip
        methods = connection.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules").fetchall()
    assert ("trust",) not in methods
    assert cluster.name in run("pg_lsclusters").output.replace("  ", "/")
    assert "ready to accept connections" in cluster.log_tail()
    pids = cluster.pids()
    cluster.kill9()
    assert not cluster.running
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    cluster.start()
    cluster.stop("immediate")
    assert not cluster.running


@pytest.mark.parametrize("major", [17, 18])
def test_a_newer_server_comes_from_a_wheel(module_lab: Lab, module_disk: BtrfsDisk, major: int) -> None:
    cluster = module_lab.wheel_cluster(major, module_disk.subvolume(f"pg{major}"), options={"work_mem": "5MB"})
    cluster.start()
    with cluster.connect() as connection:
        row = connection.execute("SELECT current_setting('server_version_num')::int / 10000").fetchone()
        assert row == (major,)
        assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
    assert cluster.ref == f"postgresql:{cluster.data_dir}"
    cluster.stop()
    assert not cluster.running


def test_commands_run_in_the_lab(lab: Lab) -> None:
    with pytest.raises(CommandError):
        lab.slackwater("no-such-command")
    assert lab.slackwater("no-such-command", check=False, json=False).status != 0
    process = lab.spawn("no-such-command")
    process.communicate(timeout=30)
    assert process.returncode != 0
