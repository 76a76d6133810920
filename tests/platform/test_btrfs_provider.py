# SPDX-License-Identifier: Apache-2.0
"""The Btrfs provider on a real filesystem: looking, copying, keeping, finding."""

import fcntl
import os
import re
import struct
from dataclasses import replace

import pytest

from slackwater.demo.lab import Lab
from slackwater.errors import NotFoundError, RefusedError, SlackwaterError
from slackwater.model.replica import FoundReplica
from slackwater.model.storage import Take
from slackwater.providers.btrfs import BtrfsProvider
from slackwater.system import btrfs
from slackwater.system.command import run
from tests.platform.btrfs_support import (
    OWNER,
    Ground,
    document,
    read,
    refusals,
    stored,
    subvolumes,
    tree,
    write,
)  # fmt: skip

pytestmark = [pytest.mark.root]
SMALL = 512 << 20


@pytest.fixture
def ground(lab: Lab) -> Ground:
    ground = Ground(lab.btrfs(SMALL))
    write(f"{ground.disk.subvolume('pg')}/rows", "one")
    return ground


def test_a_volume_is_the_same_by_every_way_to_it(ground: Ground, lab: Lab) -> None:
    os.makedirs(f"{ground.disk.path}/pg/15/main")
    by_path = ground.volume(f"{ground.disk.path}/pg/15/main")
    mounted = ground.disk.mount_subvolume("pg", f"{lab.folder}/mounted")
    by_mount = ground.volume(f"{mounted}/15")
    by_number = ground.volume(ground.disk.mount_subvolume("pg", f"{lab.folder}/number", by="subvolid"))
    os.mkdir(bound := f"{lab.folder}/bound")
    run("mount", "--bind", f"{mounted}/15", bound)
    by_bind = ground.volume(f"{bound}/main")
    every = (by_path, by_mount, by_number, by_bind)
    assert len({volume.id for volume in every}) == len({volume.superblock for volume in every}) == 1
    assert by_path.id == f"btrfs:{btrfs_uuid(ground)}:pg"
    assert {volume.facts["subvolume"] for volume in every} == {"pg"}
    assert (by_path.path, by_mount.path) == (f"{ground.disk.path}/pg", mounted)
    assert os.path.exists(f"{by_bind.path}/15/main")
    assert (by_path.facts["mounted"], by_mount.facts["mounted"]) == (False, True)
    assert (by_mount.facts["mount_point"], by_mount.name) == (mounted, "pg")


def btrfs_uuid(ground: Ground) -> str:
    return run("blkid", "-s", "UUID", "-o", "value", ground.disk.device).output.strip()


def test_names_tell_volumes_apart_and_are_safe(ground: Ground) -> None:
    os.mkdir(f"{ground.disk.path}/data")
    names = {}
    for path in ("data/pg", "@wal", "data/a b", "data/a_b", "components.json", "x" * 90):
        ground.disk.subvolume(path)
        names[path] = ground.volume(f"{ground.disk.path}/{path}").name
    assert names["data/pg"] == "data-pg"
    assert names["@wal"] == "wal"
    assert names["data/a_b"] == "data-a_b"
    assert len(set(names.values())) == len(names)
    assert "components.json" not in names.values()
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) for name in names.values())


def test_other_filesystems_and_missing_paths(ground: Ground, lab: Lab) -> None:
    assert ground.provider.volume_of("/proc/self") is None
    with pytest.raises(NotFoundError):
        ground.provider.volume_of(f"{ground.disk.path}/none")


def test_a_copy_is_the_instant_and_stays_it(ground: Ground) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    (copy,) = ground.backup([volume], "s1")
    write(f"{volume.path}/rows", "two")
    assert copy.place == ".slackwater/s1/pg"
    with ground.provider.reach(copy) as path:
        assert read(f"{path}/rows") == "one"
        with pytest.raises(OSError, match="Read-only"):
            write(f"{path}/rows", "x")
    assert ground.provider.altered(copy) == ""


def test_only_root_can_see_replicas(ground: Ground) -> None:
    ground.backup([ground.volume(f"{ground.disk.path}/pg")], "s1")
    for path in (".slackwater", ".slackwater/s1"):
        found = os.stat(f"{ground.disk.path}/{path}")
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, 0, 0o700)


def test_the_copy_holds_what_was_not_yet_written_back(ground: Ground) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    stored(ground.provider.place_effect(volume, "s1")).make()
    with ground.provider.open(Take(volume), "s1") as commit, open(f"{volume.path}/late", "wb", buffering=0) as f:
        f.write(b"late" * 10000)
        commit()
    copy = ground.provider.copy(volume, "s1", ground.provider.snapshot_effect(volume, "s1").make())
    with ground.provider.reach(copy) as path:
        assert len(read(f"{path}/late")) == 40000


def test_opening_without_committing_changes_nothing(ground: Ground) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    stored(ground.provider.place_effect(volume, "s1")).make()
    before = subvolumes(ground.disk)
    with ground.provider.open(Take(volume), "s1"):
        pass
    assert subvolumes(ground.disk) == before


def test_what_was_open_and_deleted_at_the_instant_does_not_count_as_a_change(ground: Ground) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    with open(f"{volume.path}/temporary", "wb", buffering=0) as f:
        f.write(b"x" * 1_000_000)
        os.unlink(f"{volume.path}/temporary")
        (copy,) = ground.backup([volume], "s1")
    run("sync", "-f", ground.disk.path)
    assert ground.provider.altered(copy) == ""


def test_being_cloned_is_no_change(ground: Ground) -> None:
    (copy,) = ground.backup([ground.volume(f"{ground.disk.path}/pg")], "s1")
    ground.recover([copy], [f"{ground.disk.path}/pg"], "s2")
    assert ground.provider.altered(copy) == ""


@pytest.mark.parametrize("sabotage", ["written", "writable", "replaced", "gone"])
def test_an_altered_copy_is_noticed(ground: Ground, sabotage: str) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    (copy,) = ground.backup([volume], "s1")
    path = f"{ground.disk.path}/{copy.place}"
    if sabotage == "written":
        run("btrfs", "property", "set", path, "ro", "false")
        write(f"{path}/rows", "forged")
        run("btrfs", "property", "set", path, "ro", "true")
    elif sabotage == "writable":
        run("btrfs", "property", "set", path, "ro", "false")
    else:
        run("btrfs", "subvolume", "delete", path)
        if sabotage == "replaced":
            run("btrfs", "subvolume", "snapshot", "-r", volume.path, path)
    expected = {"written": "written to", "writable": "read-only", "replaced": "another", "gone": "gone"}[sabotage]
    assert expected in ground.provider.altered(copy)


def test_looking_leaves_a_read_only_filesystem_read_only(ground: Ground) -> None:
    (copy,) = ground.backup([ground.volume(f"{ground.disk.path}/pg")], "s1")
    run("mount", "-o", "remount,ro", ground.disk.path)
    assert [found.session for found in ground.provider.find() if found.superblock == copy.volume.superblock] == ["s1"]
    assert ground.provider.altered(copy) == ""
    with ground.provider.reach(copy) as path:
        assert read(f"{path}/rows") == "one"
    volume = ground.volume(f"{ground.disk.path}/pg")
    assert refusals(ground.provider.check_backup(volume, [volume.path])) == ["read-only"]
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        (line,) = [line for line in f if f" {ground.disk.path} " in line]
    assert line.split(" - ")[1].split()[2].startswith("ro")


def test_found_by_tag_with_its_document(ground: Ground) -> None:
    copies = ground.backup([ground.volume(f"{ground.disk.path}/pg")], "s1")
    (found,) = found_on(ground, ground.provider)
    assert (found.session, found.places) == ("s1", (".slackwater/s1/pg",))
    assert found.document is not None
    assert found.document == replace(document("s1", copies), created=found.document.created)
    assert found_on(ground, BtrfsProvider("another")) == []


def found_on(ground: Ground, provider: BtrfsProvider) -> list[FoundReplica]:
    superblock = ground.volume(ground.disk.path).superblock
    return [each for each in provider.find() if each.superblock == superblock]


@pytest.mark.parametrize("sabotage", ["altered", "cut", "gone", "other-owner"])
def test_a_document_that_is_not_whole_counts_as_none(ground: Ground, sabotage: str) -> None:
    copies = ground.backup([ground.volume(f"{ground.disk.path}/pg")], "s1")
    path = f"{ground.disk.path}/.slackwater/s1/components.json"
    text = read(path)
    if sabotage == "altered":
        write(path, text.replace('"test"', '"tset"'))
    elif sabotage == "cut":
        write(path, text[: len(text) // 2])
    elif sabotage == "gone":
        os.unlink(path)
    else:
        from slackwater.providers import _document

        write(path, _document.seal(document("s1", copies, owner="another")).decode())
    (found,) = found_on(ground, ground.provider)
    assert (found.session, found.document) == ("s1", None)


def test_a_directory_without_our_tag_is_not_a_replica(ground: Ground) -> None:
    ground.backup([ground.volume(f"{ground.disk.path}/pg")], "s1")
    os.mkdir(f"{ground.disk.path}/.slackwater/forged", 0o700)
    run("cp", "-a", "--no-preserve=xattr", f"{ground.disk.path}/.slackwater/s1/components.json",
        f"{ground.disk.path}/.slackwater/forged/")  # fmt: skip
    assert [each.session for each in found_on(ground, ground.provider)] == ["s1"]


def test_deleting_takes_everything_and_only_that(ground: Ground) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    before = tree(ground.disk.path), subvolumes(ground.disk)
    first, second = ground.backup([volume], "s1"), ground.backup([volume], "s2")
    delete = stored(ground.provider.delete_effect(first, "s1"))
    assert delete.make() == {"deleted": 1}
    assert delete.make() == {"deleted": 0}
    delete.undo()
    assert ground.provider.altered(first[0]) == "it is gone"
    assert ground.provider.altered(second[0]) == ""
    stored(ground.provider.delete_effect(second, "s2")).make()
    assert (tree(ground.disk.path), subvolumes(ground.disk)) == before
    assert not os.path.exists(f"{ground.disk.path}/.slackwater")


@pytest.mark.parametrize("half", ["copies", "document", "one-copy"])
def test_a_half_done_deletion_is_finished(ground: Ground, half: str) -> None:
    ground.disk.subvolume("wal")
    copies = ground.backup([ground.volume(f"{ground.disk.path}/{name}") for name in ("pg", "wal")], "s1")
    for copy in copies[: 1 if half == "one-copy" else 2]:
        run("btrfs", "subvolume", "delete", f"{ground.disk.path}/{copy.place}")
    if half == "document":
        os.unlink(f"{ground.disk.path}/.slackwater/s1/components.json")
    ground.provider.delete_effect(copies, "s1").make()
    assert not os.path.exists(f"{ground.disk.path}/.slackwater")


@pytest.mark.parametrize("sabotage", ["untagged", "other-owner", "other-session", "not-roots", "link", "replaced"])
def test_what_is_not_ours_is_never_deleted(ground: Ground, sabotage: str) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    copies = ground.backup([volume], "s1")
    root = f"{ground.disk.path}/.slackwater"
    if sabotage == "untagged":
        os.removexattr(f"{root}/s1", "trusted.slackwater.owner")
    elif sabotage == "other-owner":
        os.setxattr(f"{root}/s1", "trusted.slackwater.owner", b"another")
    elif sabotage == "other-session":
        os.setxattr(f"{root}/s1", "trusted.slackwater.session", b"s0")
    elif sabotage == "not-roots":
        os.chmod(root, 0o755)  # noqa: S103 - what is tested
    elif sabotage == "link":
        os.rename(root, f"{ground.disk.path}/elsewhere")
        os.symlink("elsewhere", root)
    else:
        run("btrfs", "subvolume", "delete", f"{root}/s1/pg")
        run("btrfs", "subvolume", "snapshot", "-r", volume.path, f"{root}/s1/pg")
    before = subvolumes(ground.disk)
    with pytest.raises(SlackwaterError):
        ground.provider.delete_effect(copies, "s1").make()
    if sabotage != "replaced":  # another snapshot of the same volume is, to the effect that takes one, its own
        with pytest.raises(SlackwaterError):
            ground.provider.snapshot_effect(volume, "s1").undo()
        with pytest.raises(SlackwaterError):
            ground.provider.place_effect(volume, "s1").undo()
    assert subvolumes(ground.disk) == before


def test_a_mounted_copy_is_not_deleted(ground: Ground, lab: Lab) -> None:
    copies = ground.backup([ground.volume(f"{ground.disk.path}/pg")], "s1")
    target = ground.disk.mount_subvolume(copies[0].place, f"{lab.folder}/looking")
    with pytest.raises(RefusedError) as raised:
        ground.provider.delete_effect(copies, "s1").make()
    assert target in raised.value.sentence
    assert read(f"{target}/rows") == "one"


def test_the_place_goes_only_when_it_is_empty(ground: Ground) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    place = stored(ground.provider.place_effect(volume, "s1"))
    place.undo()
    assert place.make() == place.make()
    snapshot = stored(ground.provider.snapshot_effect(volume, "s1"))
    snapshot.undo()
    with pytest.raises(RefusedError):
        snapshot.make()  # a later one would show another moment than the rest of its set
    with ground.provider.open(Take(volume), "s1") as commit:
        commit()
    with pytest.raises(SlackwaterError, match="still holds pg"):
        place.undo()
    assert snapshot.make() == snapshot.make()
    snapshot.undo()
    snapshot.undo()
    place.undo()
    place.undo()
    assert os.listdir(ground.disk.path) == ["pg"]


def test_a_place_cut_off_before_its_tag_is_taken_away_too(ground: Ground) -> None:
    place = ground.provider.place_effect(ground.volume(f"{ground.disk.path}/pg"), "s1")
    os.makedirs(f"{ground.disk.path}/.slackwater/.s1.new", 0o700)
    os.chmod(f"{ground.disk.path}/.slackwater", 0o700)
    place.undo()
    assert os.listdir(ground.disk.path) == ["pg"]
    os.makedirs(f"{ground.disk.path}/.slackwater/.s1.new", 0o700)
    os.chmod(f"{ground.disk.path}/.slackwater", 0o700)
    place.make()
    assert os.getxattr(f"{ground.disk.path}/.slackwater/s1", "trusted.slackwater.owner") == OWNER.encode()
    assert os.listdir(f"{ground.disk.path}/.slackwater") == ["s1"]


def test_the_manual_recovers_without_us(ground: Ground, lab: Lab) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    (copy,) = ground.backup([volume], "s1")
    write(f"{volume.path}/rows", "lost")
    text = read(f"{ground.disk.path}/.slackwater/s1/RECOVER.txt")
    commands = "\n".join(re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)).replace("/run/top", f"{lab.run_dir}/top")
    run("bash", "-e", "-c", commands)
    assert (read(f"{ground.disk.path}/pg/rows"), read(f"{ground.disk.path}/pg.before-s1/rows")) == ("one", "lost")
    assert ground.provider.altered(copy) == ""


def test_a_strangers_directory_of_that_name_is_passed_over(ground: Ground, lab: Lab) -> None:
    ground.backup([ground.volume(f"{ground.disk.path}/pg")], "s1")
    other = lab.btrfs(SMALL)
    os.mkdir(f"{other.path}/.slackwater")
    os.chmod(f"{other.path}/.slackwater", 0o777)  # noqa: S103 - a stranger's
    assert [each.session for each in found_on(ground, ground.provider)] == ["s1"]


def test_foreign_entries_are_those_beside_the_way(ground: Ground) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    os.makedirs(f"{volume.path}/15/main/base")
    os.makedirs(f"{volume.path}/15/other")
    found = ground.provider.foreign(volume, [f"{volume.path}/15/main"])
    assert list(found) == [f"{volume.path}/rows", f"{volume.path}/15/other/"]
    assert ground.provider.foreign(volume, [volume.path]) == []
    for number in range(30):
        write(f"{volume.path}/many{number}", "")
    assert len(ground.provider.foreign(volume, [f"{volume.path}/15/main"])) == 20


def test_a_volume_that_was_replaced_is_not_snapshotted(ground: Ground) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    old = replace(volume, facts={**volume.facts, "subvolume_uuid": "0" * 8 + "-0000-0000-0000-" + "0" * 12})
    ground.provider.place_effect(old, "s1").make()
    with pytest.raises(RefusedError), ground.provider.open(Take(old), "s1"):
        pass


def test_the_tools_see_what_the_kernel_sees(ground: Ground) -> None:
    os.mkdir(f"{ground.disk.path}/pg/folder")
    ground.disk.subvolume("pg/folder/inner")
    ground.disk.subvolume("pg/outer")
    fd = os.open(f"{ground.disk.path}/pg", os.O_RDONLY)
    try:
        assert btrfs.nested(fd) == ("folder/inner", "outer")
        assert btrfs.subvolume(fd).id == ground.disk.subvolume_id("pg")
        assert btrfs.default_subvolume(fd) == btrfs.TOP_LEVEL
        run("btrfs", "subvolume", "set-default", f"{ground.disk.path}/pg")
        assert btrfs.default_subvolume(fd) == ground.disk.subvolume_id("pg")
    finally:
        os.close(fd)


def test_many_nested_subvolumes_are_all_found(ground: Ground) -> None:
    made = set()
    for number in range(260):  # the kernel answers with 255 at a time
        os.mkdir(f"{ground.disk.path}/pg/d{number}")
        fd = os.open(f"{ground.disk.path}/pg/d{number}", os.O_RDONLY)
        fcntl.ioctl(fd, 0x5000940E, bytearray(struct.pack("=q4088s", 0, b"n")))  # BTRFS_IOC_SUBVOL_CREATE
        os.close(fd)
        made.add(f"d{number}/n")
    fd = os.open(f"{ground.disk.path}/pg", os.O_RDONLY)
    try:
        assert set(btrfs.nested(fd)) == made
    finally:
        os.close(fd)
