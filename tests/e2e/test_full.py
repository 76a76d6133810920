# SPDX-License-Identifier: Apache-2.0
"""Full replicas of a busy PostgreSQL 15 on Btrfs: copied to an ext4, and recovered when the Btrfs is no more."""

import mmap
import os
import signal
from collections.abc import Iterator

import pytest

from slackwater.demo import oracle
from slackwater.demo.load import Acknowledged
from slackwater.system import mounts
from slackwater.system.command import run
from tests.e2e.luck_support import MIB, failed, filesystem, reach
from tests.e2e.support import NAME, World, new_world

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

PLACE = ".slackwater-full"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world(volumes=1, keep=2, writers=2, debian=True) as made:
        filesystem(made.lab, "ext4", 1024 * MIB, "backup")
        specify(made, f"{made.lab.folder}/backup")
        yield made


def specify(world: World, to: str, keep: int = 2) -> None:
    world.specify(keep)
    path = f"{world.lab.config_dir}/specs.d/{NAME}.toml"
    with open(path, encoding="utf-8") as f:
        text = f.read()
    with open(path, "w", encoding="utf-8") as f:
        f.write(text.replace("[replica]\n", f'[replica]\ntype = "full"\nto = "{to}"\nmin_free = "5%"\n'))


def target(world: World) -> str:
    return f"{world.lab.folder}/backup"


def fulls(world: World) -> list[str]:
    """The sessions that left something on the target."""
    where = f"{target(world)}/{PLACE}"
    return sorted(os.listdir(where)) if os.path.isdir(where) else []


def beside(world: World) -> list[str]:
    """The sessions that left something beside the volumes."""
    where = f"{world.disk.path}/.slackwater"
    return sorted(os.listdir(where)) if os.path.isdir(where) else []


def newest(world: World) -> str:
    """The newest replica; one that is made, where there is none."""
    return fulls(world)[-1] if fulls(world) else world.back_up()


def test_a_disk_that_is_not_mounted_is_refused(world: World) -> None:
    """And so is the filesystem of the set itself: neither would be a second disk."""
    for path, code in ((f"{world.lab.folder}/nothing", "target-not-mounted"), (world.disk.path, "target-same")):
        os.makedirs(path, exist_ok=True)
        specify(world, path)
        failed(world.spawner.spawn("backup", NAME).answer(), 5, code)
        assert (beside(world), os.listdir(f"{world.lab.folder}/nothing")) == ([], [])
    specify(world, target(world))


def test_a_full_replica_lies_on_the_other_disk_alone(world: World) -> None:
    """It is listed, pinned, known again without the catalog, found when altered, and deleted."""
    replica = world.back_up()
    assert (fulls(world), beside(world)) == ([replica], [])
    assert world.replicas()[replica]["type"] == "full"
    copy = f"{target(world)}/{PLACE}/{replica}"
    (name,) = {each for each in os.listdir(copy) if os.path.isdir(f"{copy}/{each}")}
    run("sh", "-c", f"cd {copy}/{name} && sha256sum --quiet --check ../{name}.sha256")
    world.run("replica", "pin", replica)
    for each in os.listdir(world.lab.state_dir):
        if each.startswith("catalog.sqlite"):
            os.unlink(f"{world.lab.state_dir}/{each}")
    rebuilt = world.run("catalog", "rebuild")
    assert (rebuilt["restored"], rebuilt["pinned"]) == ([replica], [replica])
    world.run("replica", "unpin", replica)
    (mounted,) = world.run("replica", "mount", replica, f"{world.lab.folder}/look")["mounts"]
    assert os.path.exists(f"{mounted['path']}/PG_VERSION")
    assert world.replicas()[replica]["presented"]
    failed(world.spawner.spawn("replica", "delete", replica, "--yes").answer(), 5, "mounted")
    world.run("replica", "unmount", replica)
    second = world.back_up()
    with open(f"{target(world)}/{PLACE}/{second}/{name}/PG_VERSION", "r+b") as f:
        f.write(b"9")
    failed(world.spawner.spawn("recover", NAME, "--replica", second, "--yes").answer(), 5, "replica-altered")
    world.run("replica", "delete", second, "--yes")
    assert fulls(world) == [replica]
    world.goes_on()


def test_a_backup_killed_while_it_copies_leaves_nothing(world: World) -> None:
    """The application was not held for the copy, and the program that copies ends with its command."""
    before = fulls(world)
    session = world.spawn("backup", NAME)
    name = reach(session, "session")
    reach(session, "note", "Copying")
    session.send(signal.SIGSTOP)
    world.goes_on()
    session.send(signal.SIGKILL)
    session.wait()
    assert name in fulls(world)
    world.run("reconcile")
    assert (fulls(world), beside(world)) == (before, [])
    world.goes_on()


def test_a_command_cut_off_in_the_middle_of_a_copy_leaves_nothing(world: World) -> None:
    """Asked to end while it copies, it ends at once; killed while it brings a copy back, it is mended."""
    newest(world)
    before = fulls(world)
    session = world.spawn("backup", NAME)
    reach(session, "note", "Copying")
    session.send(signal.SIGTERM)
    assert session.wait() != 0
    assert (fulls(world), beside(world)) == (before, [])
    session = world.spawn("recover", NAME, "--replica", before[-1], "--yes")
    reach(session, "note", "Bringing")
    session.send(signal.SIGKILL)
    session.wait()
    world.run("reconcile")
    assert (fulls(world), beside(world)) == (before, [])
    world.goes_on()


def test_a_recovery_from_it_and_its_undo(world: World) -> None:
    """The switch is the one of every recovery."""
    replica = newest(world)
    undo = world.recover("--replica", replica)
    world.holds(world.moments[replica], "after the recovery")
    assert beside(world) == [undo], "what was brought back has gone"
    redo = world.recover("--undo")
    world.holds(world.moments[undo], "after the undo")
    for each in (undo, redo):
        world.run("replica", "delete", each, "--yes")


def test_a_bit_that_a_disk_turned_is_found_before_anything_is_switched(world: World) -> None:
    """No time of any file tells of it; what the copy holds is compared on its way back."""
    replica = newest(world)
    turn_a_bit(world, replica)
    failed(world.spawner.spawn("recover", NAME, "--replica", replica, "--yes").answer(), 20, "replica-altered")
    assert beside(world) == []
    world.goes_on()
    failed(world.spawner.spawn("replica", "verify", replica).answer(), 20, "replica-altered")
    assert fulls(world) == [replica]
    turn_a_bit(world, replica)


def turn_a_bit(world: World, replica: str) -> None:
    """In the image of the target, while that is not mounted."""
    with open(f"{target(world)}/{PLACE}/{replica}/data/global/pg_control", "rb") as f:
        begin = f.read(512)  # of no other replica: a checkpoint comes before each
    mount = mounts.at(target(world))
    assert mount is not None
    run("umount", target(world))
    failed(world.spawner.spawn("recover", NAME, "--replica", replica, "--yes").answer(), 5, "target-not-mounted")
    with open(f"{target(world)}.img", "r+b") as disk, mmap.mmap(disk.fileno(), 0) as image:
        at = image.find(begin)
        assert at > 0
        image[at + 2000] ^= 1
    run("blockdev", "--flushbufs", mount.source)
    run("mount", "-t", "ext4", mount.source, target(world))


def test_the_database_comes_back_when_its_filesystem_is_lost(world: World) -> None:
    """An empty volume at the same path is all that is needed, of whatever kind."""
    replica = world.back_up()
    assert world.run("replica", "verify", replica)["verification"]["passed"]
    world.load.pause()
    acknowledged = world.load.acknowledged(before=world.moments[replica])
    assert any(acknowledged.values())
    device = world.disk.device
    for kind in ("btrfs", "xfs"):
        world.cluster.kill9()
        device = replace_disk(world, device, kind)
        shown = world.run("recover", NAME, "--replica", replica, "--preview")
        assert "another-volume" in {each["code"] for each in shown["findings"]}
        world.run("recover", NAME, "--replica", replica, "--yes")
        is_back(world, acknowledged)
    world.cluster.kill9()
    replace_disk(world, device, "ext4")
    by_hand(f"{target(world)}/{PLACE}/{replica}")
    world.cluster.start()
    is_back(world, acknowledged)


def is_back(world: World, acknowledged: Acknowledged) -> None:
    with world.load.connect() as connection:
        verdict = oracle.check(connection, acknowledged)
    assert verdict.ok, verdict.findings


def by_hand(place: str) -> None:
    """The commands of RECOVER.txt, which need no Slackwater and no filesystem that it knows."""
    with open(f"{place}/RECOVER.txt", encoding="utf-8") as f:
        commands = [line.strip() for line in f if line.startswith("    ")]
    run("sh", "-c", f"set -e; cd {place}\n" + "\n".join(commands))


def replace_disk(world: World, device: str, kind: str) -> str:
    """Destroy the filesystem of the set, and make a new one at its place, with an empty volume; returns its device."""
    run("umount", world.disk.path)
    run("losetup", "-d", device)
    os.unlink(world.disk.image)
    run("truncate", "--size", "2G", world.disk.image)
    device = run("losetup", "--find", "--show", world.disk.image).output.strip()
    run(f"mkfs.{kind}", "-q", "-L", world.lab.name[:12], device)
    run("mount", "-t", kind, device, world.disk.path)
    if kind == "btrfs":
        world.disk.subvolume("data")
    else:
        os.mkdir(f"{world.disk.path}/data")
    return device
