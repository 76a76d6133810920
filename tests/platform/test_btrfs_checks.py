# SPDX-License-Identifier: Apache-2.0
"""What stands against a backup or a recovery of a Btrfs volume, each provoked for real."""

import os
from collections.abc import Sequence
from dataclasses import replace

import pytest

from slackwater.demo.lab import Lab
from slackwater.model.facts import Finding, Severity
from slackwater.model.storage import Take, Volume
from slackwater.providers.btrfs import BtrfsProvider
from slackwater.providers.reflink import ReflinkProvider
from slackwater.system import fstab, mounts
from slackwater.system.command import run
from tests.platform import reflink_support
from tests.platform.btrfs_support import Ground, Sleeper, read, refusals, write

pytestmark = [pytest.mark.root]
SMALL = 512 << 20
NOBODY: frozenset[int] = frozenset()


@pytest.fixture
def ground(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setattr(fstab, "FSTAB", f"{lab.folder}/fstab")
    monkeypatch.setattr(fstab, "UNIT_DIRECTORIES", (f"{lab.folder}/units",))
    os.mkdir(f"{lab.folder}/units")
    ground = Ground(lab.btrfs(SMALL))
    ground.disk.subvolume("pg")
    return ground


def recovery(ground: Ground, path: str, pids: frozenset[int] = NOBODY) -> Sequence[Finding]:
    return ground.provider.check_recovery(ground.volume(path), pids)


def only(found: Sequence[Finding], code: str) -> Finding:
    """The one finding there is; it names something and says what to do."""
    assert [each.code for each in found] == [code]
    assert found[0].severity is Severity.REFUSAL
    assert found[0].hint
    return found[0]


@pytest.fixture
def mounted(ground: Ground, lab: Lab) -> str:
    return ground.disk.mount_subvolume("pg", f"{lab.folder}/data")


def test_a_plain_volume_has_nothing_against_it(ground: Ground, mounted: str) -> None:
    for path in (mounted, f"{ground.disk.path}/pg"):
        assert recovery(ground, path) == []
        assert ground.provider.check_backup(ground.volume(path), [path]) == []


# -- nested, swap, top level, parts --------------------------------------------------------------------------------


def test_nested_subvolumes(ground: Ground, mounted: str) -> None:
    os.mkdir(f"{mounted}/main")
    ground.disk.subvolume("pg/main/inner")
    volume = ground.volume(mounted)
    found = only(ground.provider.check_backup(volume, [f"{mounted}/main"]), "nested-subvolume")
    assert f"{mounted}/main/inner" in found.sentence
    (warning,) = ground.provider.check_backup(volume, [f"{mounted}/other"])
    assert (warning.code, warning.severity) == ("nested-subvolume", Severity.WARNING)
    assert f"{mounted}/main/inner" in only(recovery(ground, mounted), "nested-subvolume").sentence


def test_the_advice_for_a_nested_subvolume_works(ground: Ground, mounted: str) -> None:
    inner = f"{mounted}/inner"
    write(f"{ground.disk.subvolume('pg/inner')}/rows", "kept")
    hint = only(ground.provider.check_backup(ground.volume(mounted), [mounted]), "nested-subvolume").hint
    run("sh", "-c", hint.partition(": ")[2])
    assert read(f"{inner}/rows") == "kept"
    assert ground.provider.check_backup(ground.volume(mounted), [mounted]) == []


def test_a_swap_file(ground: Ground, mounted: str) -> None:
    swap = f"{mounted}/swap"
    run("sh", "-c", f"touch {swap} && chattr +C {swap} && dd if=/dev/zero of={swap} bs=1M count=8 && mkswap {swap}")
    os.chmod(swap, 0o600)
    assert ground.provider.check_backup(ground.volume(mounted), [mounted]) == []
    run("swapon", swap)
    try:
        found = only(ground.provider.check_backup(ground.volume(mounted), [mounted]), "swap-file")
        assert swap in found.hint
        assert "swap-file" in refusals(recovery(ground, mounted))
        volume = ground.volume(mounted)
        ground.provider.place_effect(volume, "s1").make()
        with ground.provider.open(Take(volume), "s1") as commit, pytest.raises(OSError, match="Text file busy"):
            commit()
    finally:
        run("swapoff", swap)


def test_the_top_level(ground: Ground) -> None:
    volume = ground.volume(ground.disk.path)
    assert volume.facts["subvolume_id"] == 5
    assert "subvolume create" in only(ground.provider.check_backup(volume, [ground.disk.path]), "top-level").hint
    only(recovery(ground, ground.disk.path), "top-level")


def test_the_advice_for_the_top_level_works(ground: Ground) -> None:
    os.mkdir(data := f"{ground.disk.path}/app")
    write(f"{data}/rows", "kept")
    hint = only(ground.provider.check_backup(ground.volume(data), [data]), "top-level").hint
    run("sh", "-c", hint.partition(": ")[2].partition(", where")[0].replace("DIR", data))
    assert (read(f"{data}/rows"), ground.volume(data).facts["subvolume"]) == ("kept", "app")
    assert ground.provider.check_backup(ground.volume(data), [data]) == []


def test_replicas_of_directories_and_of_their_whole_subvolume_keep_each_other_out(
    ground: Ground, mounted: str, lab: Lab
) -> None:
    """The former lie in the subvolume: a recovery of it sets them aside, and they are deleted with that."""
    files = reflink_support.Ground(mounted, ground.disk.device)
    write(f"{files.directory('app')}/rows", "kept")
    app, whole = files.volume(f"{mounted}/app"), ground.volume(mounted)
    copies = files.backup([app], "s1")
    for found in (ground.provider.check_backup(whole, [mounted]), recovery(ground, mounted)):
        assert "(s1)" in only(found, "replicas-inside").sentence
    assert BtrfsProvider("another").check_backup(whole, [mounted]) == []
    assert files.provider.check_backup(app, [app.path]) == []
    files.provider.delete_effect(copies, "s1").make()
    assert [*ground.provider.check_backup(whole, [mounted]), *recovery(ground, mounted)] == []

    copies = ground.backup([whole], "s2")
    assert "(s2)" in only(files.provider.check_backup(app, [app.path]), "replicated-whole").sentence
    assert ReflinkProvider("another").check_backup(app, [app.path]) == []
    ground.disk.subvolume("other")
    elsewhere = reflink_support.Ground(ground.disk.mount_subvolume("other", f"{lab.folder}/other"), ground.disk.device)
    other = elsewhere.volume(elsewhere.directory("app"))
    assert files.provider.check_backup(other, [other.path], [whole]) == []
    ground.provider.delete_effect(copies, "s2").make()
    assert files.provider.check_backup(app, [app.path]) == []
    only(files.provider.check_backup(app, [app.path], [whole]), "replicated-whole")


def test_a_bind_mount_of_a_part(ground: Ground, mounted: str, lab: Lab) -> None:
    os.mkdir(f"{mounted}/part")
    os.mkdir(bound := f"{lab.folder}/bound")
    run("mount", "--bind", f"{mounted}/part", bound)
    assert bound in only(recovery(ground, mounted), "bind-mount").sentence
    assert bound in only(ground.provider.check_backup(ground.volume(bound), [bound]), "bind-mount").sentence
    run("umount", mounted)
    run("umount", ground.disk.path)
    volume = ground.volume(bound)
    assert volume.path == bound
    only(ground.provider.check_backup(volume, [bound]), "bind-mount")
    only(ground.provider.check_recovery(volume, NOBODY), "bind-mount")


def test_another_mount_on_top(ground: Ground, mounted: str) -> None:
    os.mkdir(f"{mounted}/upper")
    run("mount", "-t", "tmpfs", "sw-upper", f"{mounted}/upper")
    assert f"{mounted}/upper" in only(recovery(ground, mounted), "mount-inside").sentence
    only(ground.provider.check_backup(ground.volume(mounted), [mounted]), "mount-inside")
    assert ground.provider.check_backup(ground.volume(mounted), [f"{mounted}/other"]) == []


def test_what_the_system_needs(ground: Ground, mounted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slackwater.providers._btrfs.checks._SYSTEM", frozenset({mounted}))
    assert mounted in only(recovery(ground, mounted), "carries-system").sentence


# -- the next boot -------------------------------------------------------------------------------------------------


def lines(ground: Ground, target: str, option: str) -> list[str]:
    """The ways to say in fstab which filesystem is meant."""
    uuid = ground.volume(ground.disk.path).facts["filesystem"]
    sources = (f"UUID={uuid}", ground.disk.device, "LABEL=unknown", f"UUID={str(uuid).upper()}")
    return [f"{source}\t{target}  btrfs  noatime,{option},nodev  0 0" for source in sources]


def test_fstab_by_number_is_refused_with_the_line_to_write(ground: Ground, mounted: str) -> None:
    number = ground.disk.subvolume_id("pg")
    options = (f"subvolid={number}", f"subvolid={number},subvol=/pg", f"subvolid={number:#x}", f"subvolid={number}")
    for option, way in zip(options, range(4), strict=True):
        line = lines(ground, mounted, option)[way]
        write(fstab.FSTAB, f"# {line}\n{line}\n")
        found = only(recovery(ground, mounted), "fstab-subvolid")
        better = found.hint.partition("write: ")[2]
        assert "subvolid" not in better
        write(fstab.FSTAB, better + "\n")
        assert recovery(ground, mounted) == []
        assert better.split()[3] == "noatime,nodev,subvol=/pg"


def test_fstab_by_path_or_about_others_is_fine(ground: Ground, mounted: str) -> None:
    write(fstab.FSTAB, "\n".join(lines(ground, mounted, "subvol=pg") + lines(ground, "/elsewhere", "subvolid=5")))
    assert recovery(ground, mounted) == []
    # the same number, for a place it is not mounted at now, on the same filesystem
    write(fstab.FSTAB, lines(ground, "/elsewhere", f"subvolid={ground.disk.subvolume_id('pg')}")[0])
    only(recovery(ground, mounted), "fstab-subvolid")


def test_a_mount_unit_by_number_is_refused(ground: Ground, mounted: str, lab: Lab) -> None:
    unit = f"{lab.folder}/units/data.mount"
    number = ground.disk.subvolume_id("pg")
    write(unit, f"[Unit]\nOptions=no\n[Mount]\nWhat={ground.disk.device}\nWhere={mounted}\nOptions=subvolid={number}\n")
    found = only(recovery(ground, mounted), "fstab-subvolid")
    assert unit in found.sentence
    assert "Options=subvol=/pg" in found.hint
    os.mkdir(f"{unit}.d")
    write(f"{unit}.d/path.conf", "[Mount]\nOptions=subvol=/pg\n")
    assert recovery(ground, mounted) == []


def test_the_default_subvolume(ground: Ground, mounted: str, lab: Lab) -> None:
    run("btrfs", "subvolume", "set-default", f"{ground.disk.path}/pg")
    found = only(recovery(ground, mounted), "default-subvolume")
    write(fstab.FSTAB, lines(ground, mounted, "subvol=/pg")[0])
    assert recovery(ground, mounted) == []
    os.unlink(fstab.FSTAB)
    run("sh", "-c", found.hint.partition("up: ")[2])
    assert recovery(ground, mounted) == []
    run("btrfs", "subvolume", "set-default", f"{ground.disk.path}/pg")
    run("umount", mounted)
    assert recovery(ground, f"{ground.disk.path}/pg") == []


# -- who else ------------------------------------------------------------------------------------------------------


def test_another_mount_namespace(ground: Ground, mounted: str) -> None:
    with Sleeper(":", unshare="private") as pid:
        found = only(recovery(ground, mounted), "other-namespace")
        assert (f"Process {pid} (sleep)" in found.sentence, mounted in found.sentence) == (True, True)
        assert recovery(ground, mounted, frozenset({pid})) == []  # it ends with the application
        run("sh", "-c", found.hint.partition("or: ")[2])
        assert recovery(ground, mounted) == []


def test_a_part_in_another_mount_namespace(ground: Ground, mounted: str) -> None:
    os.mkdir(f"{mounted}/part")
    with Sleeper(
        'umount "$1"; mount --bind "$2" /mnt', mounted, f"{ground.disk.path}/pg/part", unshare="private"
    ) as pid:
        assert f"Process {pid}" in only(recovery(ground, mounted), "other-namespace").sentence


def test_a_namespace_that_follows_ours_is_no_hindrance(ground: Ground, lab: Lab) -> None:
    """As systemd gives them to services: mounts and unmounts of the host reach them."""
    os.mkdir(shared := f"{lab.folder}/shared")
    run("mount", "--bind", shared, shared)
    run("mount", "--make-shared", shared)
    target = ground.disk.mount_subvolume("pg", f"{shared}/data")
    write(f"{target}/rows", "one")
    copies = ground.backup([ground.volume(target)], "s1")
    write(f"{target}/rows", "lost")
    with Sleeper(":", unshare="private"):
        assert refusals(recovery(ground, target)) == ["other-namespace"]
    with Sleeper(":", unshare="slave") as pid:
        assert recovery(ground, target) == []
        ground.recover(copies, [target], "s2")
        for root in ("", f"/proc/{pid}/root"):
            assert read(f"{root}{target}/rows") == "one"


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ('cd "$1"', "working directory"),
        ('exec 3>"$1/held"', "open file"),
        ('exec 3<"$1"', "open file"),
    ],
)
def test_who_holds_it_is_named(ground: Ground, mounted: str, script: str, how: str) -> None:
    with Sleeper(script, mounted) as pid:
        found = only(recovery(ground, mounted), "held")
        assert f"Process {pid} (sleep)" in found.sentence
        assert how in found.sentence
        assert mounted in found.sentence
        assert recovery(ground, mounted, frozenset({pid})) == []
        run("sh", "-c", found.hint.partition(": ")[2])
    assert recovery(ground, mounted) == []


def test_a_loop_device_on_it(ground: Ground, mounted: str) -> None:
    with open(f"{mounted}/image", "wb") as f:
        f.truncate(1 << 20)
    device = run("losetup", "--find", "--show", f"{mounted}/image").output.strip()
    try:
        found = only(recovery(ground, mounted), "held")
    finally:
        run("losetup", "-d", device)
    assert device in found.hint
    assert recovery(ground, mounted) == []


def test_our_own_working_directory(ground: Ground, mounted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mounted)
    assert only(recovery(ground, mounted), "held").hint == "cd /"


def test_a_volume_that_was_exchanged_meanwhile_is_not_the_one(ground: Ground, mounted: str) -> None:
    volume: Volume = ground.volume(mounted)
    other = replace(volume, facts={**volume.facts, "subvolume_uuid": "other"})
    assert refusals(ground.provider.check_recovery(other, NOBODY)) == ["bind-mount"]


def test_checks_write_nothing(ground: Ground, mounted: str) -> None:
    run("sync", "-f", mounted)
    before = run("btrfs", "subvolume", "list", "-cgu", ground.disk.path).output
    table = [m for m in mounts.read() if m.superblock == ground.volume(mounted).superblock]
    recovery(ground, mounted)
    ground.provider.check_backup(ground.volume(mounted), [mounted])
    ground.provider.find()
    assert run("btrfs", "subvolume", "list", "-cgu", ground.disk.path).output == before
    assert [m for m in mounts.read() if m.superblock == ground.volume(mounted).superblock] == table
