# SPDX-License-Identifier: Apache-2.0
"""After a recovery the machine starts anew, and what its fstab mounts is what was recovered."""

import os
from collections.abc import Callable, Iterator, Sequence

import pytest

from slackwater.demo.cluster import DebianCluster
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Answer, Lab
from slackwater.system.command import run
from tests.e2e.luck_support import MIB, add_table, obeyed, spawned, tables
from tests.e2e.spawner import Spawner
from tests.platform.machine import boot

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.uml]

BOOT = """set -eu
cat >/etc/fstab <<'END'
{fstab}
END
cat >/tmp/question <<'END'
SELECT string_agg(tablename, ',' ORDER BY tablename), left(pg_walfile_name(pg_current_wal_lsn()), 8)
FROM pg_tables WHERE schemaname = 'public'
END
cat >/tmp/ask <<'END'
{binaries}/pg_ctl start -w -D $2 -l /tmp/log -o "-c config_file=/etc/postgresql/15/$1/postgresql.conf" \\
    >/tmp/said 2>&1 || cat /tmp/said /tmp/log
psql -X -A -t -F ' ' -p $3 -d postgres -f /tmp/question
{binaries}/pg_ctl stop -w -m immediate -D $2 >/tmp/said
END
mount --all --types btrfs
grep -c slackwater /proc/self/mountinfo || true
{asks}
mount {number}
grep -c slackwater /proc/self/mountinfo
{binaries}/pg_controldata {number} | grep 's TimeLineID'
umount --all --types btrfs
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Not in /dev/shm: the machine has one of its own."""
    with Lab() as made:
        yield made


def test_a_reboot_after_a_recovery(lab: Lab) -> None:
    with Spawner(lab.environment()) as spawner:
        recover_and_boot(lab, lambda *words: obeyed(spawned(spawner, *words)))


def recover_and_boot(lab: Lab, do: Callable[..., Answer]) -> None:
    disk = lab.btrfs(768 * MIB)
    disk.subvolume("pg")
    disk.subvolume("parent")
    srv = disk.mount_subvolume("pg", f"{lab.folder}/srv")
    parent = disk.mount_subvolume("parent", f"{lab.folder}/parent")
    run("btrfs", "subvolume", "create", f"{parent}/pg")
    number = disk.subvolume_id("pg")
    clusters = [lab.cluster(srv), lab.cluster(f"{parent}/pg")]
    for cluster in clusters:
        cluster.start()
        add_table(cluster, "before")
        do("backup", cluster.ref)
        add_table(cluster, "later")
        do("recover", cluster.ref, "--yes")
        cluster.stop()
    for target in (srv, parent, disk.path):
        disk.unmount(target)
    run("losetup", "--detach", disk.device)

    os.mkdir(f"{lab.folder}/number")
    lines = [
        f"/dev/ubda {srv} btrfs subvol=/pg 0 0",
        f"/dev/ubda {parent} btrfs subvol=/parent 0 0",
        f"/dev/ubda {lab.folder}/number btrfs noauto,subvolid={number} 0 0",
    ]
    *recovered, named, by_number = answers_after_boot(lab, disk, clusters, lines)
    assert recovered == ["0", "before 00000002", "before 00000002"]
    # The twin: mounted by its number, as is refused before a recovery, it is what was set aside.
    assert (named, by_number.split()[-1]) == ("1", "1")

    disk.device = run("losetup", "--find", "--show", disk.image).output.strip()
    run("mount", "-t", "btrfs", "-o", "subvolid=5", disk.device, disk.path)
    disk.mount_subvolume("pg", srv)
    disk.mount_subvolume("parent", parent)
    for cluster in clusters:
        do("recover", cluster.ref, "--undo", "--yes")
        assert tables(cluster) == ["before", "later"]
        cluster.stop()


def answers_after_boot(lab: Lab, disk: BtrfsDisk, clusters: Sequence[DebianCluster], fstab: Sequence[str]) -> list[str]:
    """Boot a machine on the disk: how often its mounts name a replica, and what each server says."""
    asks = [f"su postgres -s /bin/bash -c 'bash /tmp/ask {c.tag} {c.data_dir} {c.port}'" for c in clusters]
    script = BOOT.format(
        fstab="\n".join(fstab), asks="\n".join(asks), number=f"{lab.folder}/number", binaries=clusters[0].binaries
    )
    machine = boot(lab, script, disk.image)
    try:
        status, said = machine.wait(200.0)
    finally:
        machine.cut()
    assert status == 0, said
    return said.split("\n")[:-1]
