# SPDX-License-Identifier: Apache-2.0
"""The exchange on a real Btrfs: every layout, undone, cut off anywhere, and repeated."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slackwater.demo.lab import Lab
from slackwater.errors import RefusedError, SlackwaterError
from slackwater.journal.effects import Effect, fields_of
from slackwater.providers._btrfs import effects
from slackwater.providers.btrfs import BtrfsProvider
from slackwater.providers.contract import Exchange
from slackwater.system import btrfs, loops, mounts
from slackwater.system.command import run
from tests.platform.btrfs_support import (
    Ground,
    Sleeper,
    read,
    refusals,
    steps,
    stored,
    subvolumes,
    undo,
    write,
)  # fmt: skip

pytestmark = [pytest.mark.root]
SMALL = 512 << 20
LAYOUTS = ("subvol", "subvolid", "nested", "mount-point")


@pytest.fixture
def ground(lab: Lab) -> Ground:
    return Ground(lab.btrfs(SMALL))


def lay_out(layout: str, ground: Ground, lab: Lab) -> tuple[str, Callable[[], None]]:
    """Make a volume in one of the usual ways; gives its path, and what mounts all anew as a boot would."""
    target = f"{lab.folder}/data"
    if layout == "nested":
        ground.disk.subvolume("@")
        ground.disk.subvolume("@/pg")
        ground.disk.mount_subvolume("@", target)
        return f"{target}/pg", lambda: remount(ground, target, "subvol=/@")
    ground.disk.subvolume("pg")
    ground.disk.mount_subvolume("pg", target, by="subvolid" if layout == "subvolid" else "subvol")
    return target, lambda: remount(ground, target, "subvol=/pg")


def remount(ground: Ground, target: str, option: str) -> None:
    run("umount", target)
    run("umount", ground.disk.path)
    run("mount", "-t", "btrfs", "-o", "subvolid=5", ground.disk.device, ground.disk.path)
    run("mount", "-t", "btrfs", "-o", option, ground.disk.device, target)


def data_dir(layout: str, path: str) -> str:
    return path if layout == "mount-point" else f"{path}/main"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_switched_and_stays_switched(ground: Ground, lab: Lab, layout: str) -> None:
    path, boot = lay_out(layout, ground, lab)
    data = data_dir(layout, path)
    os.makedirs(data, exist_ok=True)
    os.chown(path, 1234, 1234)
    os.chmod(path, 0o700)
    write(f"{data}/rows", "one")
    copies = ground.backup([ground.volume(data)], "s1")
    write(f"{data}/rows", "lost")
    assert refusals(ground.provider.check_recovery(ground.volume(data), frozenset())) == []

    switch = ground.recover(copies, [data], "s2")
    for _ in range(2):
        assert read(f"{data}/rows") == "one"
        assert (os.stat(path).st_uid, os.stat(path).st_mode & 0o7777) == (1234, 0o700)
        with ground.provider.reach(switch.aside[0]) as aside:
            assert read(aside + data.removeprefix(path) + "/rows") == "lost"
        write(f"{data}/rows", "one")
        boot()
    assert ground.volume(data).id == copies[0].volume.id
    assert ground.provider.altered(copies[0]) == ""

    undo(steps(switch))
    for _ in range(2):
        assert read(f"{data}/rows") == "lost"
        boot()
    assert not os.path.exists(f"{ground.disk.path}/.slackwater/s2")


def test_mounts_come_back_with_their_options(ground: Ground, lab: Lab) -> None:
    ground.disk.subvolume("pg")
    targets = [f"{lab.folder}/a", f"{lab.folder}/b"]
    for target, options in zip(targets, ("noatime,nodev,compress=zstd:3", "ro,nosuid"), strict=True):
        os.mkdir(target)
        run("mount", "-o", f"subvol=pg,{options}", ground.disk.device, target)
    before = [mounts.at(target) for target in targets]
    copies = ground.backup([ground.volume(targets[0])], "s1")
    switch = ground.recover(copies, [targets[0]], "s2")
    for was, target in zip(before, targets, strict=True):
        now = mounts.at(target)
        assert was is not None
        assert now is not None
        assert (now.options, now.root) == (was.options, was.root)
        assert _without_id(now) == _without_id(was)
    undo(steps(switch))
    assert [mount.options for target in targets if (mount := mounts.at(target))] == [m.options for m in before if m]


def _without_id(mount: mounts.Mount) -> set[str]:
    return {option for option in mount.super_options if not option.startswith("subvolid=")}


def test_the_last_mount_of_a_loop_device_comes_back(ground: Ground, lab: Lab) -> None:
    """Unmounting it frees the loop device: the exchange and the mount need one anew."""
    ground.disk.subvolume("pg")
    write(f"{ground.disk.path}/pg/rows", "one")
    run("umount", ground.disk.path)
    run("losetup", "-d", ground.disk.device)
    os.mkdir(target := f"{lab.folder}/data")
    run("mount", "-o", "loop,subvol=pg", ground.disk.image, target)
    try:
        copies = ground.backup([ground.volume(target)], "s1")
        write(f"{target}/rows", "lost")
        switch = ground.provider.switch(copies, [ground.volume(target)], "s2")
        for effect in steps(switch):
            stored(effect).make()
            if effect.kind == "mount.unmount":
                assert mounts.at(target) is None
                assert ground.disk.image not in loops.backing_files().values()
        assert read(f"{target}/rows") == "one"
        undo(steps(switch))
        assert read(f"{target}/rows") == "lost"
    finally:
        run("umount", target)
    assert ground.disk.image not in loops.backing_files().values()


def two(ground: Ground, lab: Lab) -> tuple[list[str], list[Effect]]:
    """Two volumes, the second mounted inside the first; a backup; and the steps back to it."""
    ground.disk.subvolume("pg")
    ground.disk.subvolume("wal")
    paths = [ground.disk.mount_subvolume("pg", f"{lab.folder}/data")]
    paths.append(ground.disk.mount_subvolume("wal", f"{paths[0]}/wal"))
    for path in paths:
        os.chmod(path, 0o750)  # noqa: S103 - to see that it comes back
        write(f"{path}/rows", "one")
    live = [ground.volume(path) for path in paths]
    copies = ground.backup(live, "s1")
    for path in paths:
        write(f"{path}/rows", "lost")
    return paths, steps(ground.provider.switch(copies, live, "s2"))


def state(paths: list[str]) -> list[str]:
    return [read(f"{path}/rows") for path in paths]


def test_nested_mounts_and_the_bar(ground: Ground, lab: Lab) -> None:
    paths, effects = two(ground, lab)
    volumes = [ground.volume(path) for path in paths]
    assert [refusals(ground.provider.check_recovery(v, frozenset(), volumes)) for v in volumes] == [[], []]
    assert refusals(ground.provider.check_recovery(volumes[0], frozenset())) == ["mount-inside"]
    assert refusals(ground.provider.check_backup(volumes[0], [paths[0]])) == ["mount-inside"]
    assert refusals(ground.provider.check_backup(volumes[0], [paths[0]], volumes)) == []
    kinds = [effect.kind for effect in effects]
    assert kinds == [
        "btrfs.place", "btrfs.clone", "btrfs.clone", "btrfs.bar", "mount.unmount", "mount.unmount",
        "btrfs.exchange", "btrfs.exchange", "mount.mount", "mount.mount", "btrfs.unbar", "btrfs.seal", "btrfs.seal",
    ]  # fmt: skip
    for effect in effects:
        stored(effect).make()
    assert state(paths) == ["one", "one"]
    assert [os.stat(path).st_mode & 0o7777 for path in paths] == [0o750, 0o750]
    assert [os.listxattr(path) for path in paths] == [[], []]
    undo(effects)
    assert state(paths) == ["lost", "lost"]
    assert [os.stat(path).st_mode & 0o7777 for path in paths] == [0o750, 0o750]
    assert [os.listxattr(path) for path in paths] == [[], []]


def test_cut_off_anywhere_it_is_undone_or_finished(ground: Ground, lab: Lab) -> None:
    paths, effects = two(ground, lab)
    assert len(effects) == 13
    before = (state(paths), subvolumes(ground.disk), ours(lab))
    for made in range(len(effects) + 1):
        for effect in effects[:made]:
            stored(effect).make()
        for _ in range(2):
            undo(effects)  # also those that were never made: their intents may have been written ahead
            assert (state(paths), subvolumes(ground.disk), ours(lab)) == before
        for effect in (*effects[:made], *effects[max(0, made - 1) :]):
            stored(effect).make()
        assert state(paths) == ["one", "one"]
        assert [os.stat(path).st_mode & 0o7777 for path in paths] == [0o750, 0o750]
        undo(effects)


KILLED = """
import json, sys, time
from slackwater.journal.effects import EffectKinds
from slackwater.providers.btrfs import BtrfsProvider
kinds = EffectKinds(BtrfsProvider.effects)
effects = [kinds.load(kind, fields) for kind, fields in json.loads(sys.argv[1])]
print("ready", flush=True)
for effect in effects if sys.argv[2] == "make" else reversed(effects):
    getattr(effect, sys.argv[2])()
print("done", flush=True)
time.sleep(60)
"""


def killed_within(effects: list[Effect], way: str, delay_s: float) -> bool:
    """Make or undo them in another process and kill it; whether it had come to its end."""
    fields = json.dumps([(effect.kind, fields_of(effect)) for effect in effects])
    with subprocess.Popen([sys.executable, "-c", KILLED, fields, way], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        process.kill()
        return process.stdout.read() == "done\n"


def test_killed_at_any_moment_it_is_undone(ground: Ground, lab: Lab) -> None:
    paths, effects = two(ground, lab)
    before = (state(paths), subvolumes(ground.disk), ours(lab))
    ends = []
    for attempt in range(12):
        ends.append(killed_within(effects, "make", 0.006 * attempt))
        killed_within(effects, "undo", 0.004 * attempt)
        undo(effects)
        assert (state(paths), subvolumes(ground.disk), ours(lab)) == before
    assert not ends[0]


def ours(lab: Lab) -> tuple[list[object], list[str]]:
    """The mounts and loop devices of this lab; other labs may come and go beside."""
    table = [m for m in mounts.read() if mounts.inside(m.target, lab.folder)]
    files = [file for file in loops.backing_files().values() if mounts.inside(file, lab.folder)]
    return [(m.root, m.target, m.options, _without_id(m)) for m in table], files


def test_each_effect_twice_is_as_once(ground: Ground, lab: Lab) -> None:
    paths, effects = two(ground, lab)
    for effect in effects:
        assert stored(effect).make() == stored(effect).make()
        assert effect.describe()
    assert state(paths) == ["one", "one"]
    for effect in reversed(effects):
        stored(effect).undo()
        stored(effect).undo()
    assert state(paths) == ["lost", "lost"]
    assert not os.path.exists(f"{ground.disk.path}/.slackwater/s2")


def test_half_a_switch_lets_nobody_in(ground: Ground, lab: Lab) -> None:
    paths, effects = two(ground, lab)
    upto = [effect.kind for effect in effects].index("btrfs.exchange") + 1
    for effect in effects[:upto]:
        stored(effect).make()
    # the power is cut here, and the next boot mounts all that fstab says
    ground.disk.mount_subvolume("pg", paths[0])
    ground.disk.mount_subvolume("wal", paths[1])
    assert [os.stat(path).st_mode & 0o7777 for path in paths] == [0, 0]
    for path in paths:
        assert run("ls", path, user=1234, group=1234, check=False).status != 0
    undo(effects)
    assert state(paths) == ["lost", "lost"]
    assert [os.stat(path).st_mode & 0o7777 for path in paths] == [0o750, 0o750]


def test_the_exchange_tells_whether_it_was_made(ground: Ground, lab: Lab) -> None:
    _, effects = two(ground, lab)
    exchanges = [effect for effect in effects if isinstance(effect, Exchange)]
    assert [effect.kind for effect in effects if isinstance(effect, Exchange)] == ["btrfs.exchange"] * 2
    told = []
    for effect in effects:
        told.append([each.exchanged() for each in exchanges])
        effect.make()
    told.append([each.exchanged() for each in exchanges])
    first = [effect.kind for effect in effects].index("btrfs.exchange")
    assert told[first : first + 3] == [[False, False], [True, False], [True, True]]
    assert told[0] == [False, False]
    assert told[-1] == [True, True]


def clone_and_exchange(ground: Ground) -> tuple[effects.Clone, str]:
    """A recovery that has just exchanged."""
    path = ground.disk.subvolume("pg")
    write(f"{path}/rows", "one")
    copies = ground.backup([ground.volume(path)], "s1")
    # The live volume is itself a clone of the copy, from a first recovery: only its UUID tells it from the second one.
    undone = ground.recover(copies, [path], "s2")
    assert undone.aside
    write(f"{path}/rows", "live")
    switch = ground.recover(copies, [path], "s3")
    (clone,) = [effect for effect in switch.clones if isinstance(effect, effects.Clone)]
    undo(switch.seal)
    return clone, f"{ground.disk.path}/.slackwater/s3/pg/rows"


def test_undoing_a_clone_after_the_exchange_never_deletes_the_live_data(ground: Ground) -> None:
    clone, aside = clone_and_exchange(ground)
    with pytest.raises(RefusedError):
        stored(clone).undo()
    assert read(aside) == "live"


def test_the_test_of_it_can_fail(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the parent's UUID alone, as one would write it first, the live data goes."""

    def by_parent_alone(self: effects.Clone, path: str, folder: int) -> bool:
        found = btrfs.subvolume_at(path, folder)
        return found is not None and found.parent_uuid == self.copy_uuid

    monkeypatch.setattr(effects.Clone, "is_clone", by_parent_alone)
    clone, aside = clone_and_exchange(ground)
    clone.undo()
    assert not Path(aside).exists()


def test_an_undo_replica_is_read_only_and_can_be_recovered(ground: Ground) -> None:
    path = ground.disk.subvolume("pg")
    write(f"{path}/rows", "one")
    copies = ground.backup([ground.volume(path)], "s1")
    write(f"{path}/rows", "two")
    first = ground.provider.switch(copies, [ground.volume(path)], "s2")
    facts = [effect.make() for effect in steps(first)]
    aside = ground.provider.copy(first.aside[0].volume, "s2", facts[-1])
    assert ground.provider.altered(first.aside[0]) == ""
    assert ground.provider.altered(aside) == ""
    write(f"{path}/rows", "three")
    second = ground.recover([aside], [path], "s3")
    assert read(f"{path}/rows") == "two"
    assert ground.provider.altered(aside) == ""
    undo(steps(second))
    assert read(f"{path}/rows") == "three"
    ground.provider.delete_effect([aside], "s2").make()
    ground.provider.delete_effect(copies, "s1").make()
    assert (subvolumes(ground.disk), read(f"{path}/rows")) == ({"pg"}, "three")


def test_a_sealed_volume_comes_back_writable(ground: Ground) -> None:
    path = ground.disk.subvolume("pg")
    write(f"{path}/rows", "one")
    copies = ground.backup([ground.volume(path)], "s1")
    switch = ground.recover(copies, [path], "s2")
    undo([*switch.clones, *switch.exchange])  # the seal's undo was lost
    write(f"{path}/rows", "writable")


def test_a_mount_that_appeared_stops_the_exchange(ground: Ground, lab: Lab) -> None:
    path = ground.disk.subvolume("pg")
    copies = ground.backup([ground.volume(path)], "s1")
    switch = ground.provider.switch(copies, [ground.volume(path)], "s2")
    for effect in switch.clones:
        effect.make()
    target = ground.disk.mount_subvolume("pg", f"{lab.folder}/late")
    with pytest.raises(RefusedError, match="late"):
        switch.exchange[0].make()
    run("umount", target)
    with Sleeper('mount -t btrfs -o subvol=pg "$1" "$2"', ground.disk.device, target, unshare="private") as pid:
        with pytest.raises(RefusedError) as raised:
            switch.exchange[0].make()
        assert f"namespace of process {pid}" in raised.value.sentence
    switch.exchange[0].make()


def test_a_busy_mount_is_refused_and_its_holder_named(ground: Ground, lab: Lab) -> None:
    ground.disk.subvolume("pg")
    target = ground.disk.mount_subvolume("pg", f"{lab.folder}/data")
    copies = ground.backup([ground.volume(target)], "s1")
    switch = ground.provider.switch(copies, [ground.volume(target)], "s2")
    with Sleeper('cd "$1"', target) as pid, pytest.raises(RefusedError) as raised:
        switch.exchange[0].make()
    assert f"pid {pid}" in raised.value.sentence
    assert raised.value.reason == "busy-mount"
    assert mounts.at(target) is not None


def test_what_was_put_in_the_way_by_hand_is_left_alone(ground: Ground) -> None:
    path = ground.disk.subvolume("pg")
    copies = ground.backup([ground.volume(path)], "s1")
    switch = ground.provider.switch(copies, [ground.volume(path)], "s2")
    for effect in switch.clones:
        effect.make()
    place = f"{ground.disk.path}/.slackwater/s2/pg"
    run("btrfs", "subvolume", "delete", place)
    run("btrfs", "subvolume", "create", place)
    write(f"{place}/stranger", "here")
    for attempt in (switch.clones[1].make, switch.clones[1].undo, switch.exchange[0].make, switch.seal[0].make):
        with pytest.raises(SlackwaterError):
            attempt()
    switch.exchange[0].undo()
    switch.seal[0].undo()
    assert read(f"{place}/stranger") == "here"


def test_a_switch_to_another_filesystem_is_refused(ground: Ground, lab: Lab) -> None:
    copies = ground.backup([ground.volume(ground.disk.subvolume("pg"))], "s1")
    other = lab.btrfs(SMALL)
    live = BtrfsProvider("sw-owner").volume_of(other.subvolume("pg"))
    assert live is not None
    with pytest.raises(RefusedError):
        ground.provider.switch(copies, [live], "s2")


def after_power_cut(ground: Ground, lab: Lab) -> set[str]:
    """What the disk held at this instant, without what was still in memory: its subvolumes with a file `rows`."""
    run("cp", "--sparse=always", ground.disk.image, image := f"{lab.folder}/cut.img")
    for mount in reversed([m for m in mounts.read() if mounts.inside(m.target, lab.folder)]):
        run("umount", mount.target)
    run("btrfs", "device", "scan", "--forget", ground.disk.device)
    run("losetup", "-d", ground.disk.device)
    run("mount", "-o", "loop,subvolid=5", image, ground.disk.path)
    try:
        return {f"{path}={read(f'{ground.disk.path}/{path}/rows')}" for path in subvolumes(ground.disk)}
    finally:
        run("umount", ground.disk.path)


@pytest.mark.parametrize("way", ["recovered", "undone", "deleted"])
def test_a_power_cut_takes_nothing_back(ground: Ground, lab: Lab, way: str) -> None:
    path = ground.disk.subvolume("pg")
    write(f"{path}/rows", "one")
    copies = ground.backup([ground.volume(path)], "s1")
    write(f"{path}/rows", "two")
    run("sync", "-f", path)
    if way == "deleted":
        ground.provider.delete_effect(copies, "s1").make()
        assert after_power_cut(ground, lab) == {"pg=two"}
        return
    switch = ground.recover(copies, [path], "s2")
    if way == "undone":
        undo(steps(switch))
        assert after_power_cut(ground, lab) == {"pg=two", ".slackwater/s1/pg=one"}
    else:
        assert after_power_cut(ground, lab) == {"pg=one", ".slackwater/s1/pg=one", ".slackwater/s2/pg=two"}


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("way", ["made", "undone"])
def test_an_exchange_that_is_found_turned_is_on_the_disk_then(
    ground: Ground, lab: Lab, monkeypatch: pytest.MonkeyPatch, way: str, *, found: bool
) -> None:
    """Whoever turned it was killed before the filesystem wrote that down; the twin is that nobody finds it."""
    path = ground.disk.subvolume("pg")
    write(f"{path}/rows", "one")
    copies = ground.backup([ground.volume(path)], "s1")
    write(f"{path}/rows", "two")
    run("sync", "-f", path)
    switch = ground.provider.switch(copies, [ground.volume(path)], "s2")
    (exchange,) = switch.exchange
    for effect in switch.clones:
        stored(effect).make()
    turn: Callable[[], object] = stored(exchange).make
    if way == "undone":
        turn()
        turn = stored(exchange).undo
    with monkeypatch.context() as killed:
        killed.setattr(effects.Exchange, "settle", lambda self, top: None)
        turn()
    if found:
        turn()
    assert (f"pg={'one' if way == 'made' else 'two'}" in after_power_cut(ground, lab)) == found


def test_detached_mounts_leave_no_trace(ground: Ground, lab: Lab) -> None:
    before = ours(lab)
    filesystem = str(ground.volume(ground.disk.path).facts["filesystem"])
    with btrfs.top_level(filesystem) as fd:
        assert ours(lab) == before
        assert os.listdir(fd) == os.listdir(ground.disk.path)
    assert ours(lab) == before
