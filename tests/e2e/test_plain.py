# SPDX-License-Identifier: Apache-2.0
"""Applications on ext4 and on XFS without reflink: copied whole while stopped or at rest, recovered, undone."""

import glob
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from slackwater.demo.cluster import Cluster
from slackwater.demo.disk import PlainDisk
from slackwater.demo.lab import Lab
from slackwater.demo.load import Load
from slackwater.system.command import run
from tests.e2e.luck_support import MIB, against, failed, look, obeyed, spawned
from tests.e2e.spawner import Spawner
from tests.e2e.test_xfs import whole
from tests.platform.btrfs_support import read, write

pytestmark = [pytest.mark.root, pytest.mark.postgresql]


@pytest.fixture(scope="module")
def ext4(lab: Lab) -> PlainDisk:
    return lab.ext4(1024 * MIB)


def do(spawner: Spawner, *words: str) -> dict[str, Any]:
    return obeyed(spawned(spawner, *words)).document


def specify(lab: Lab, component: str, more: str = "", options: str = "") -> None:
    writer, _, name = component.partition(":")
    text = f'name = "it"\n[[component]]\nwriter = "{writer}"\ninstance = "{name}"\n{more}\n{options}\n'
    write(f"{lab.config_dir}/specs.d/it.toml", text)


def holds(taken: dict[str, Any]) -> tuple[str, str, set[str]]:
    return taken["plan"]["hold"], taken["consistency"], {each["provider"] for each in taken["plan"]["volumes"]}


def wait_until(true: Callable[[], object], within_s: float = 60.0) -> None:
    ends_s = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < ends_s
        time.sleep(0.002)


def cluster_with_a_load(lab: Lab, path: str) -> tuple[Cluster, Load]:
    cluster = lab.cluster(path)
    cluster.start()
    return cluster, Load(cluster, f"{lab.folder}/load-{cluster.tag}", writers=1)


def test_a_postgresql_that_runs_is_refused_and_told_what_to_do(lab: Lab, ext4: PlainDisk, spawner: Spawner) -> None:
    """Then it is stopped for the copies, copied, started, loses a table, and has it back."""
    cluster, load = cluster_with_a_load(lab, f"{ext4.path}/main")
    with load:
        load.wait(20)
        found = against(spawned(spawner, "backup", cluster.ref, "--preview"), "copied-whole")
        assert 'hold = "stop"' in found["hint"]
        (seen,) = [each for each in do(spawner, "discover")["components"] if each["component"] == cluster.ref]
        assert any("can only be copied whole" in each["sentence"] for each in seen["findings"])
        specify(lab, cluster.ref, options='[options]\nhold = "stop"')
        before = load.acknowledged()
        taken = do(spawner, "backup", "it")
        assert holds(taken) == ("cold", "application", {"plain"})
        load.wait(10)
        load.pause()
        with load.connect() as connection:
            connection.execute("DROP TABLE journal")
        mounted = look(lab)
        previewed = do(spawner, "recover", "it", "--preview")
        assert any(each["code"] == "copied-whole" for each in previewed["findings"])
        do(spawner, "recover", "it", "--yes")
        whole(load, before)
        assert {each for each in mounted ^ look(lab) if each.startswith(("mount", "loop"))} == set()
        do(spawner, "recover", "it", "--undo", "--yes")
        with load.connect() as connection:
            assert connection.execute("SELECT to_regclass('journal')").fetchone() == (None,)
        do(spawner, "recover", "it", "--replica", str(taken["replica"]), "--yes")
        whole(load, before)
        do(spawner, "replica", "verify", str(taken["replica"]))
    cluster.stop()
    assert holds(do(spawner, "backup", cluster.ref))[:2] == ("cold", "application")
    assert do(spawner, "catalog", "check")["differences"] == []
    for replica in do(spawner, "replica", "list")["replicas"]:
        do(spawner, "replica", "delete", replica["id"], "--yes")
    assert sorted(os.listdir(ext4.path)) == ["lost+found", "main"]


def test_files_at_rest_on_an_xfs_without_reflink(lab: Lab, spawner: Spawner) -> None:
    """What somebody has open for writing is refused; mounted, exported and turned back is what was copied."""
    files = lab.xfs(512 * MIB, reflink=False).directory("uploads")
    write(f"{files}/one", "first")
    with open(f"{files}/open", "w", encoding="utf-8"):
        found = against(spawned(spawner, "backup", f"files:{files}", "--preview"), "copied-whole")
        assert "stop and start" in found["hint"]
    taken = do(spawner, "backup", f"files:{files}")
    assert holds(taken) == ("still", "crash", {"plain"})
    write(f"{files}/one", "second")
    (shown,) = do(spawner, "replica", "mount", str(taken["replica"]), f"{lab.folder}/shown")["mounts"]
    assert read(f"{shown['path']}/one") == "first"
    do(spawner, "replica", "unmount", str(taken["replica"]))
    do(spawner, "recover", f"files:{files}", "--yes")
    assert read(f"{files}/one") == "first"
    do(spawner, "recover", f"files:{files}", "--undo", "--yes")
    assert read(f"{files}/one") == "second"


def test_a_database_of_sqlite_at_rest_and_in_use(lab: Lab, ext4: PlainDisk, spawner: Spawner) -> None:
    os.makedirs(folder := f"{ext4.path}/app")
    with sqlite3.connect(f"{folder}/app.db") as connection:
        connection.execute("CREATE TABLE orders (number)")
        connection.execute("INSERT INTO orders VALUES (1)")
    ref = f"sqlite:{folder}/app.db"
    connection.execute("INSERT INTO orders VALUES (2)")
    assert "application-lock" not in against(spawned(spawner, "backup", ref, "--preview"), "copied-whole")["sentence"]
    connection.rollback()
    connection.close()
    taken = do(spawner, "backup", ref)
    assert holds(taken) == ("still", "application", {"plain"})
    os.unlink(f"{folder}/app.db")
    do(spawner, "recover", ref, "--yes")
    with sqlite3.connect(f"{folder}/app.db") as again:
        assert again.execute("SELECT number FROM orders").fetchall() == [(1,)]
    again.close()


def test_a_kill_in_the_middle_of_a_copy_leaves_nothing(lab: Lab, ext4: PlainDisk, spawner: Spawner) -> None:
    """Of a backup with its application stopped, and of a recovery whose clone is being copied; both are begun anew."""
    os.makedirs(folder := f"{ext4.path}/large")
    write(f"{folder}/one", "first")
    run("fallocate", "-l", "100M", f"{folder}/zeros")
    run("dd", "if=/dev/urandom", f"of={folder}/data", "bs=1M", "count=64", "status=none")
    stopped = f"{lab.folder}/stopped"
    stop, start = f'stop = "/usr/bin/touch {stopped}"', f'start = "/usr/bin/rm -f {stopped}"'
    specify(lab, f"files:{folder}", f'consistency = "application"\n{stop}\n{start}', '[options]\nhold = "stop"')
    place = f"{ext4.path}/.slackwater"
    others = set(glob.glob(f"{place}/*"))
    command = lab.spawn("backup", "it")
    wait_until(lambda: glob.glob(f"{place}/*/*large*/data"))
    command.kill()
    assert command.wait() == -signal.SIGKILL
    do(spawner, "reconcile")
    assert (set(glob.glob(f"{place}/*")), os.path.exists(stopped)) == (others, False)
    with open(f"{folder}/one", "a", encoding="utf-8"):  # by somebody whom the command did not stop
        failed(spawned(spawner, "backup", "it"), 1, "changed")
        assert not os.path.exists(stopped)
    taken = do(spawner, "backup", "it")
    assert (holds(taken), os.path.exists(stopped)) == (("cold", "application", {"plain"}), False)
    write(f"{folder}/one", "second")
    command = lab.spawn("recover", "it", "--yes")
    wait_until(lambda: glob.glob(f"{place}/*/.*large*.new/data"))
    command.kill()
    assert command.wait() == -signal.SIGKILL
    do(spawner, "reconcile")
    assert set(glob.glob(f"{place}/*")) - others == {f"{place}/{taken['replica']}"}
    assert read(f"{folder}/one") == "second"
    do(spawner, "recover", "it", "--yes")
    assert read(f"{folder}/one") == "first"


def test_onto_another_filesystem_nothing_stays_beside(lab: Lab, ext4: PlainDisk, spawner: Spawner) -> None:
    """And what is in memory is refused with the reason."""
    os.makedirs(folder := f"{ext4.path}/plain-files")
    write(f"{folder}/one", "first")
    disk = lab.xfs(512 * MIB, reflink=False)
    specify(lab, f"files:{folder}", options=f'[replica]\ntype = "full"\nto = "{disk.path}"\nmin_free = "1%"')
    replica = str(do(spawner, "backup", "it")["replica"])
    assert not os.path.exists(f"{ext4.path}/.slackwater/{replica}")
    assert os.listdir(f"{disk.path}/.slackwater-full") == [replica]
    write(f"{folder}/one", "second")
    do(spawner, "recover", "it", "--yes")
    assert read(f"{folder}/one") == "first"
    os.makedirs(memory := f"{lab.run_folder}/files")
    assert "tmpfs" in against(spawned(spawner, "backup", f"files:{memory}", "--preview"), "no-provider")["sentence"]
