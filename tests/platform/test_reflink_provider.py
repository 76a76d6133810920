# SPDX-License-Identifier: Apache-2.0
"""The provider `reflink` on real filesystems: looking, copying, keeping, finding."""

import os
import re
import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from slackwater.demo.lab import Lab
from slackwater.errors import NotFoundError, RefusedError, SlackwaterError
from slackwater.hosts import survey
from slackwater.model.replica import FoundReplica
from slackwater.model.storage import Take
from slackwater.providers._trees import mirror
from slackwater.providers.btrfs import BtrfsProvider
from slackwater.providers.plain import PlainProvider
from slackwater.providers.reflink import ReflinkProvider
from slackwater.system import mounts
from slackwater.system.command import run
from tests.platform.btrfs_support import OWNER, Sleeper, document, read, refusals, tree, write
from tests.platform.reflink_support import SMALL, Ground, ground_on, picture, stored, zoo

pytestmark = [pytest.mark.root]


@pytest.fixture(params=["xfs", "btrfs"])
def ground(request: pytest.FixtureRequest, lab: Lab) -> Ground:
    ground = ground_on(lab, request.param)
    write(f"{ground.directory('pg')}/rows", "one")
    return ground


@pytest.fixture
def xfs(lab: Lab) -> Ground:
    ground = ground_on(lab, "xfs")
    write(f"{ground.directory('pg')}/rows", "one")
    return ground


def test_a_volume_is_the_same_by_every_way_to_it(ground: Ground, lab: Lab) -> None:
    data = ground.directory("pg/15/main")
    direct = ground.volume(data)
    os.mkdir(bound := f"{lab.folder}/bound")
    run("mount", "--bind", f"{ground.path}/pg", bound)
    os.symlink(data, f"{lab.folder}/link")
    write(f"{data}/file", "")
    every = [direct, ground.volume(f"{bound}/15/main"), ground.volume(f"{lab.folder}/link"),
             ground.volume(f"{data}/file")]  # fmt: skip
    assert len({each.id for each in every}) == len({each.superblock for each in every}) == 1
    assert len({str(each.facts["identity"]) for each in every}) == 1
    assert direct.id.endswith("pg/15/main")
    assert direct.path == data
    assert re.fullmatch(r"[A-Za-z0-9._-]+", direct.name)
    assert ground.volume(f"{ground.path}/pg").id != direct.id


def test_filesystems_that_cannot_share_extents(lab: Lab, xfs: Ground) -> None:
    assert xfs.provider.volume_of("/proc/self") is None
    assert xfs.provider.volume_of("/dev/shm") is None
    run("truncate", "-s", "400M", image := f"{lab.folder}/plain.img")
    run("mkfs.xfs", "-q", "-m", "reflink=0", image)
    os.mkdir(target := f"{lab.folder}/plain")
    run("mount", "-o", "loop", image, target)
    assert xfs.provider.volume_of(target) is None
    run("umount", target)
    with pytest.raises(NotFoundError):
        xfs.provider.volume_of(f"{xfs.path}/none")


def test_looking_writes_nothing(xfs: Ground) -> None:
    before = tree(xfs.path)
    run("mount", "-o", "remount,ro", xfs.path)
    volume = xfs.volume(f"{xfs.path}/pg")
    assert refusals(xfs.provider.check_backup(volume, [volume.path])) == ["read-only"]
    assert xfs.provider.check_recovery(volume, frozenset()) == []
    assert xfs.provider.room(volume).free_bytes > 100 << 20
    assert 0 < xfs.provider.estimate_s(volume) < 1
    assert found_on(xfs, xfs.provider) == []
    run("mount", "-o", "remount,rw", xfs.path)
    assert tree(xfs.path) == before


def test_a_copy_is_the_instant_and_stays_it(ground: Ground) -> None:
    zoo(f"{ground.path}/zoo")
    before = picture(f"{ground.path}/zoo")
    volume = ground.volume(f"{ground.path}/zoo")
    (copy,) = ground.backup([volume], "s1")
    write(f"{volume.path}/plain", "two")
    run("rm", "-r", f"{volume.path}/deep")
    assert copy.facts["changed"] == ""
    with ground.provider.reach(copy) as path:
        assert picture(path) == before
        with pytest.raises(OSError, match="Read-only"):
            write(f"{path}/plain", "x")
    assert ground.provider.altered(copy) == ""
    for path in (ground.places, f"{ground.places}/s1"):
        found = os.stat(path)
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, 0, 0o700)


def test_the_copy_holds_what_came_after_it_was_opened(ground: Ground) -> None:
    volume = ground.volume(f"{ground.path}/pg")
    write(f"{volume.path}/gone", "x")
    stored(ground.provider.place_effect(volume, "s1")).make()
    with ground.provider.open(Take(volume), "s1") as commit:
        write(f"{volume.path}/rows", "later")
        os.unlink(f"{volume.path}/gone")
        os.mkdir(f"{volume.path}/new")
        with open(f"{volume.path}/new/late", "wb", buffering=0) as f:
            f.write(b"late" * 10000)
            commit()
        facts = ground.provider.snapshot_effect(volume, "s1").make()
    with ground.provider.reach(ground.provider.copy(volume, "s1", facts)) as path:
        assert tree(path) == ["new/late", "rows"]
        assert (read(f"{path}/rows"), len(read(f"{path}/new/late"))) == ("later", 40000)


def test_two_stages_go_into_one_copy(ground: Ground) -> None:
    pg = f"{ground.path}/pg"
    for name in ("global/pg_control", "base/1", "pg_wal/0001", "app.db-shm"):
        os.makedirs(os.path.dirname(f"{pg}/{name}"), exist_ok=True)
        write(f"{pg}/{name}", name)
    volume = ground.volume(pg)
    stages = [
        [Take(volume, (pg,), (f"{pg}/pg_wal", f"{pg}/app.db-shm"), (f"{pg}/global/pg_control",))],
        [Take(volume, (f"{pg}/pg_wal",))],
    ]
    (copy,) = ground.take(stages, "s1")
    with ground.provider.reach(copy) as path:
        assert tree(path) == ["base/1", "global/pg_control", "pg_wal/0001", "rows"]
    assert copy.facts["files"] == 4
    assert ground.provider.altered(copy) == ""


def test_what_changed_from_the_first_copy_to_the_last_is_named(ground: Ground) -> None:
    """Also when the volume that changed had been finished before another began."""
    volumes = [ground.volume(ground.directory(name)) for name in ("a", "b")]
    for volume in volumes:
        write(f"{volume.path}/rows", "1")
        ground.provider.place_effect(volume, "s1").make()
    time.sleep(2 * mirror.TICK_S)
    with ExitStack() as opened:
        commits = [opened.enter_context(ground.provider.open(Take(v), "s1")) for v in volumes]
        commits[0]()
        write(f"{volumes[0].path}/rows", "2")
        write(f"{volumes[0].path}/came", "")
        commits[1]()
        facts = [ground.provider.snapshot_effect(v, "s1").make() for v in volumes]
    assert [each["changed"] for each in facts] == [
        f"{ground.path}/a/came, {ground.path}/a/rows, {ground.path}/a", ""
    ]  # fmt: skip


def test_a_file_written_in_the_tick_of_its_copy_is_not_called_still(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times go in ticks: what was written before and after the copy may bear the same."""
    volume = ground.volume(f"{ground.path}/pg")
    monkeypatch.setattr(mirror, "TICK_S", 600.0)
    assert "rows" in str(ground.backup([volume], "s1")[0].facts["changed"])
    monkeypatch.setattr(mirror, "TICK_S", 0.0)
    assert ground.backup([volume], "s2")[0].facts["changed"] == ""


def test_opening_without_committing_leaves_no_replica(ground: Ground) -> None:
    volume = ground.volume(f"{ground.path}/pg")
    place, snapshot = ground.provider.place_effect(volume, "s1"), ground.provider.snapshot_effect(volume, "s1")
    stored(place).make()
    with ground.provider.open(Take(volume), "s1"):
        pass
    with pytest.raises(RefusedError):
        stored(snapshot).make()  # a later one would show another moment than the rest of its set
    with pytest.raises(SlackwaterError, match="still holds"):
        place.undo()
    for effect in (snapshot, snapshot, place, place):
        stored(effect).undo()
    assert os.listdir(ground.path) == ["pg"]


@pytest.mark.parametrize("sabotage", ["written", "touched", "replaced", "removed", "gone", "added"])
def test_an_altered_copy_is_noticed(ground: Ground, sabotage: str) -> None:
    (copy,) = ground.backup([ground.volume(f"{ground.path}/pg")], "s1")
    path = f"{ground.path}/{copy.place}"
    if sabotage == "written":
        status = os.stat(f"{path}/rows")
        write(f"{path}/rows", "eno")
        os.utime(f"{path}/rows", ns=(status.st_atime_ns, status.st_mtime_ns))
    elif sabotage == "touched":
        os.chmod(f"{path}/rows", 0o600)
    elif sabotage == "removed":
        os.unlink(f"{path}/rows")
    elif sabotage == "added":
        write(f"{path}/more", "")
    else:
        os.rename(path, f"{ground.path}/elsewhere")
        if sabotage == "replaced":
            run("cp", "-a", f"{ground.path}/elsewhere", path)
    assert {"replaced": "another", "gone": "it is gone"}.get(sabotage, "was written") in ground.provider.altered(copy)


def test_a_copy_survives_a_remount(xfs: Ground) -> None:
    volume = xfs.volume(f"{xfs.path}/pg")
    (copy,) = xfs.backup([volume], "s1")
    run("umount", xfs.path)
    with pytest.raises(SlackwaterError, match="is not mounted"):
        xfs.provider.altered(copy)
    run("mount", xfs.device, xfs.path)
    assert xfs.provider.altered(copy) == ""
    again = xfs.volume(f"{xfs.path}/pg")
    assert (again.id, again.facts["identity"]) == (volume.id, volume.facts["identity"])


def test_a_filesystem_that_is_only_bound_in_parts(xfs: Ground, lab: Lab) -> None:
    """Root reaches its top by a mount of its own; without such a mount nothing can be shown at a path."""
    os.mkdir(bound := f"{lab.folder}/bound")
    xfs.directory("app/pg")
    run("mount", "--bind", f"{xfs.path}/app", bound)
    run("umount", xfs.path)
    write(f"{bound}/pg/rows", "one")
    volume = xfs.volume(f"{bound}/pg")
    (copy,) = xfs.backup([volume], "s1")
    write(f"{bound}/pg/rows", "two")
    assert xfs.provider.altered(copy) == ""
    assert [each.session for each in found_on(xfs, xfs.provider, volume.superblock)] == ["s1"]
    assert os.listdir(bound) == ["pg"]
    with pytest.raises(RefusedError, match="only in parts"):
        xfs.provider.mount_order(copy)
    xfs.recover([copy], [f"{bound}/pg"], "s2")
    assert read(f"{bound}/pg/rows") == "one"


def test_found_by_tag_with_its_document(ground: Ground) -> None:
    copies = ground.backup([ground.volume(f"{ground.path}/pg")], "s1")
    (found,) = found_on(ground, ground.provider)
    assert (found.session, found.places) == ("s1", (copies[0].place,))
    assert found.document is not None
    assert found.document == replace(document("s1", copies), created=found.document.created)
    assert found_on(ground, ReflinkProvider("another")) == []
    assert [each for each in BtrfsProvider(OWNER).find() if each.superblock == found.superblock] == []
    os.mkdir(f"{ground.places}/forged", 0o700)
    run("cp", "-a", "--no-preserve=xattr", f"{ground.places}/s1/components.json", f"{ground.places}/forged/")
    assert [each.session for each in found_on(ground, ground.provider)] == ["s1"]
    write(f"{ground.places}/s1/components.json", read(f"{ground.places}/s1/components.json").replace('"test"', '"t"'))
    assert found_on(ground, ground.provider)[0].document is None


def found_on(ground: Ground, provider: ReflinkProvider | PlainProvider, superblock: str = "") -> list[FoundReplica]:
    wanted = superblock or ground.volume(ground.path).superblock
    return [each for each in provider.find() if each.superblock == wanted]


def test_deleting_takes_everything_and_only_that(ground: Ground) -> None:
    zoo(f"{ground.path}/zoo")
    volumes = [ground.volume(f"{ground.path}/{name}") for name in ("pg", "zoo")]
    before = tree(ground.path)
    first, second = ground.backup(volumes, "s1"), ground.backup(volumes, "s2")
    delete = stored(ground.provider.delete_effect(first, "s1"))
    assert delete.make() == {"deleted": 2}
    assert delete.make() == {"deleted": 0}
    delete.undo()
    assert ground.provider.altered(first[0]) == "it is gone"
    assert [ground.provider.altered(copy) for copy in second] == ["", ""]
    stored(ground.provider.delete_effect(second, "s2")).make()
    assert tree(ground.path) == before
    assert not ground.places


@pytest.mark.parametrize("half", ["renamed", "half-gone", "document", "one-copy"])
def test_a_half_done_deletion_is_finished(ground: Ground, half: str) -> None:
    copies = ground.backup([ground.volume(f"{ground.path}/pg"), ground.volume(ground.directory("wal"))], "s1")
    place, name = os.path.split(f"{ground.path}/{copies[0].place}")
    if half in ("renamed", "half-gone"):
        os.rename(f"{place}/{name}", f"{place}/.{name}.gone")
    if half == "half-gone":
        os.unlink(f"{place}/.{name}.gone/rows")
    elif half == "document":
        os.unlink(f"{place}/components.json")
    elif half == "one-copy":
        run("rm", "-r", f"{place}/{name}")
    ground.provider.delete_effect(copies, "s1").make()
    assert sorted(os.listdir(ground.path)) == ["pg", "wal"]


@pytest.mark.parametrize("sabotage", ["untagged", "other-owner", "not-roots", "link", "replaced", "foreign-copy"])
def test_what_is_not_ours_is_never_deleted(ground: Ground, sabotage: str) -> None:
    volume = ground.volume(f"{ground.path}/pg")
    copies = ground.backup([volume], "s1")
    root = ground.places
    if sabotage == "untagged":
        os.removexattr(f"{root}/s1", "trusted.slackwater.owner")
    elif sabotage == "other-owner":
        os.setxattr(f"{root}/s1", "trusted.slackwater.owner", b"another")
    elif sabotage == "not-roots":
        os.chmod(root, 0o755)  # noqa: S103 - what is tested
    elif sabotage == "link":
        os.rename(root, f"{ground.path}/elsewhere")
        os.symlink("elsewhere", root)
    else:
        os.rename(f"{ground.path}/{copies[0].place}", f"{ground.path}/elsewhere")
        run("cp", "-a", *(["--no-preserve=xattr"] if sabotage == "foreign-copy" else []),
            f"{ground.path}/elsewhere", f"{ground.path}/{copies[0].place}")  # fmt: skip
    before = tree(ground.path)
    with pytest.raises(SlackwaterError):
        ground.provider.delete_effect(copies, "s1").make()
    if sabotage != "replaced":  # a copy with the session's tag is, to the effect that makes one, its own
        with pytest.raises(SlackwaterError):
            ground.provider.snapshot_effect(volume, "s1").undo()
        with pytest.raises(SlackwaterError):
            ground.provider.place_effect(volume, "s1").undo()
    assert tree(ground.path) == before


def test_copies_and_clones_are_mounted_and_kept_while_they_are(ground: Ground, lab: Lab) -> None:
    volume = ground.volume(f"{ground.path}/pg")
    (copy,) = ground.backup([volume], "s1")
    stored(ground.provider.place_effect(volume, "s2")).make()
    effect = stored(ground.provider.clone_effect(copy, "s2"))
    facts = effect.make()
    assert effect.make() == facts
    clone = ground.provider.copy(volume, "s2", facts)
    with ground.provider.reach(clone) as path:
        write(f"{path}/rows", "tried")
    order = ground.provider.mount_order(clone)
    os.mkdir(target := f"{lab.folder}/looking")
    assert ground.provider.mounted_at(clone) == ()
    mounts.mount(order.fstype, order.source, target, (*order.options, "ro", "nodev"))
    (shown,) = [m for m in mounts.read() if m.target == target]
    assert shown.root == order.root
    assert (read(f"{target}/rows"), ground.provider.mounted_at(clone)) == ("tried", (target,))
    assert ground.provider.mounted_at(copy) == ()
    for attempt in (effect.undo, ground.provider.delete_effect([clone], "s2").make):
        with pytest.raises(RefusedError, match="looking"):
            attempt()
    mounts.unmount(target)
    ground.provider.delete_effect([copy], "s1").make()
    with ground.provider.reach(clone) as path:
        assert read(f"{path}/rows") == "tried"
    with pytest.raises(NotFoundError):
        ground.provider.mount_order(copy)
    stored(ground.provider.delete_effect([clone], "s2")).make()
    assert (os.listdir(ground.path), read(f"{volume.path}/rows")) == (["pg"], "one")


def test_the_manual_recovers_without_us(xfs: Ground, lab: Lab) -> None:
    zoo(zoo_path := f"{xfs.path}/a zoo")
    before = picture(zoo_path)
    volume = xfs.volume(zoo_path)
    (copy,) = xfs.backup([volume], "s1")
    write(f"{zoo_path}/plain", "lost")
    text = read(f"{xfs.places}/s1/RECOVER.txt")
    commands = "\n".join(re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE)).replace("/run/top", f"{lab.run_dir}/top")
    run("bash", "-e", "-c", commands)
    assert picture(zoo_path) == before
    assert read(f"{zoo_path}.before-s1/plain") == "lost"
    assert xfs.provider.altered(copy) == ""


def test_foreign_entries_are_those_beside_the_way(ground: Ground) -> None:
    volume = ground.volume(f"{ground.path}/pg")
    ground.directory("pg/15/main/base")
    ground.directory("pg/15/other")
    found = ground.provider.foreign(volume, [f"{volume.path}/15/main"])
    assert list(found) == [f"{volume.path}/rows", f"{volume.path}/15/other/"]
    assert ground.provider.foreign(volume, [volume.path]) == []


def test_a_volume_that_was_replaced_is_not_copied(ground: Ground) -> None:
    volume = ground.volume(f"{ground.path}/pg")
    ground.provider.place_effect(volume, "s1").make()
    os.rename(f"{ground.path}/pg", f"{ground.path}/old")
    ground.directory("pg")
    with pytest.raises(RefusedError), ground.provider.open(Take(volume), "s1"):
        pass


def test_what_stands_against_a_backup(xfs: Ground, lab: Lab) -> None:
    pg = xfs.volume(f"{xfs.path}/pg")
    assert xfs.provider.check_backup(pg, [pg.path]) == []
    top = xfs.volume(xfs.path)
    assert refusals(xfs.provider.check_backup(top, [top.path])) == ["top-level"]
    assert refusals(xfs.provider.check_recovery(top, frozenset())) == ["top-level"]
    inner = xfs.volume(xfs.directory("pg/wal"))
    assert refusals(xfs.provider.check_backup(pg, [pg.path], [inner])) == ["nested-volume"]
    run("mount", "-t", "tmpfs", "none", inner.path)
    assert refusals(xfs.provider.check_backup(pg, [pg.path])) == ["mount-inside"]
    assert refusals(xfs.provider.check_recovery(pg, frozenset())) == ["mount-inside"]
    run("umount", inner.path)
    run("dd", "if=/dev/zero", f"of={pg.path}/swap", "bs=1M", "count=2", "status=none")
    os.chmod(f"{pg.path}/swap", 0o600)
    run("mkswap", f"{pg.path}/swap")
    if run("swapon", f"{pg.path}/swap", check=False).status == 0:
        try:
            assert refusals(xfs.provider.check_backup(pg, [pg.path])) == ["swap-file"]
        finally:
            run("swapoff", f"{pg.path}/swap")


def test_what_stands_against_a_recovery(xfs: Ground, lab: Lab) -> None:
    pg = xfs.volume(f"{xfs.path}/pg")
    assert xfs.provider.check_recovery(pg, frozenset()) == []
    os.mkdir(elsewhere := f"{lab.folder}/elsewhere")
    run("mount", "--bind", pg.path, elsewhere)
    assert refusals(xfs.provider.check_recovery(pg, frozenset())) == ["bind-mount"]
    through = xfs.volume(elsewhere)
    assert refusals(xfs.provider.check_recovery(through, frozenset())) == ["bind-mount"]
    with Sleeper('exec 3<"$1/rows"', elsewhere) as pid:
        run("umount", "--lazy", elsewhere)
        (found,) = xfs.provider.check_recovery(pg, frozenset())
        assert (found.code, str(pid) in found.sentence) == ("held", True)
        assert xfs.provider.check_recovery(pg, frozenset({pid})) == []
    outside = xfs.directory("beside")
    with Sleeper('cd "$1"', outside):
        assert xfs.provider.check_recovery(pg, frozenset()) == []
    with Sleeper('mount --bind "$1" "$2"', pg.path, outside, unshare="private") as pid:
        (found,) = xfs.provider.check_recovery(pg, frozenset())
        assert (found.code, str(pid) in found.sentence) == ("other-namespace", True)
        assert xfs.provider.check_recovery(pg, frozenset({pid})) == []
    with Sleeper('mount -t tmpfs none "$1"', pg.path, unshare="private"):
        assert refusals(xfs.provider.check_recovery(pg, frozenset())) == ["other-namespace"]
    run("truncate", "-s", "1M", f"{pg.path}/image")
    loop = run("losetup", "--find", "--show", f"{pg.path}/image").output.strip()
    try:
        assert refusals(xfs.provider.check_recovery(pg, frozenset())) == ["held"]
    finally:
        run("losetup", "-d", loop)


def test_who_writes_is_known_by_the_file_and_not_by_its_path(xfs: Ground) -> None:
    pg, beside = xfs.volume(f"{xfs.path}/pg"), xfs.directory("beside")
    script = 'mount --bind "$1" "$2" && exec 3>>"$2/rows"'
    with Sleeper(script, pg.path, beside, unshare="private") as pid:
        (found,) = survey._outside_writers(pg, frozenset(), by_file=True)
        assert str(pid) in found
        assert survey._outside_writers(pg, frozenset({pid}), by_file=True) == []
    with Sleeper('exec 3>>"$1/rows"', beside):
        assert survey._outside_writers(pg, frozenset(), by_file=True) == []
        assert len(survey._outside_writers(pg, frozenset(), by_file=False)) == 1


def test_a_full_filesystem_fails_and_leaves_nothing(lab: Lab) -> None:
    ground = ground_on(lab, "xfs")
    volume = ground.volume(ground.directory("pg"))
    for number in range(300):
        write(f"{volume.path}/f{number}", "x" * 5000)
    ground.provider.place_effect(volume, "s1").make()
    for size in ("1M", "4k"):
        run(
            "dd", "if=/dev/zero", f"of={ground.path}/ballast", f"bs={size}", "oflag=append", "conv=notrunc", check=False
        )
    for number in range(10000):
        try:
            write(f"{ground.path}/small{number}", "x")
        except OSError:
            break
    assert ground.provider.room(volume).free_bytes < 1 << 20
    with pytest.raises(SlackwaterError) as raised, ground.provider.open(Take(volume), "s1"):
        pass
    assert "slackwater replica delete" in raised.value.hint
    ground.provider.snapshot_effect(volume, "s1").undo()
    ground.provider.place_effect(volume, "s1").undo()
    assert not ground.places
    assert read(f"{volume.path}/f7") == "x" * 5000


def test_small_is_the_size_of_these_disks(xfs: Ground) -> None:
    assert xfs.provider.room(xfs.volume(f"{xfs.path}/pg")).total_bytes < SMALL


def test_our_own_state_is_found_in_a_directory_by_every_way_to_either(xfs: Ground, lab: Lab) -> None:
    os.makedirs(f"{xfs.path}/pg/deep/state")
    xfs.directory("pg-beside")
    binds = {name: f"{lab.folder}/{name}" for name in ("whole", "part")}
    for name, source in (("whole", f"{xfs.path}/pg"), ("part", f"{xfs.path}/pg/deep")):
        os.mkdir(binds[name])
        run("mount", "--bind", source, binds[name])
    os.symlink(binds["part"], f"{lab.folder}/link")
    pg, beside = xfs.volume(f"{xfs.path}/pg"), xfs.volume(f"{xfs.path}/pg-beside")
    whole, part = xfs.volume(binds["whole"]), xfs.volume(binds["part"])

    def refused(state: str) -> list[str]:
        every, providers = [pg, whole, part, beside], {"reflink": xfs.provider}
        return [v.path for v in every if refusals(survey.own_state([v], state, providers)) == ["own-state"]]

    for state in (pg.path + "/deep/state", whole.path + "/deep/none/yet", part.path + "/state", f"{lab.folder}/link"):
        assert refused(state) == [pg.path, whole.path, part.path]
    assert refused(f"{whole.path}/state") == [pg.path, whole.path]
    assert refused(f"{beside.path}/state") == [beside.path]
    assert refused(f"{xfs.path}/state") == refused(f"{lab.folder}/state") == []
