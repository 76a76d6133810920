# SPDX-License-Identifier: Apache-2.0
"""The exchange of directories on real filesystems: undone, cut off, repeated, and after a power cut.

That it may be killed at any instant is shown by the conformance kit (`test_provider_conformance.py`).
"""

import os
import traceback
from collections.abc import Callable

import pytest

from slackwater.demo.lab import Lab
from slackwater.errors import RefusedError, RightsError, SlackwaterError
from slackwater.journal.effects import Effect
from slackwater.providers import _document, contract
from slackwater.providers._trees import effects, places
from slackwater.providers.contract import Exchange
from slackwater.system import mounts
from slackwater.system.command import run
from tests.platform.btrfs_support import Sleeper, document, read, refusals, steps, tree, write
from tests.platform.reflink_support import Ground, ground_on, picture, stored, undo, zoo

pytestmark = [pytest.mark.root]


@pytest.fixture(params=["xfs", "btrfs"])
def ground(request: pytest.FixtureRequest, lab: Lab) -> Ground:
    return ground_on(lab, request.param)


@pytest.fixture
def xfs(lab: Lab) -> Ground:
    return ground_on(lab, "xfs")


def test_a_directory_is_switched_with_all_that_it_is(ground: Ground) -> None:
    zoo(path := f"{ground.path}/zoo")
    before = but_its_time(path)
    copies = ground.backup([ground.volume(path)], "s1")
    write(f"{path}/plain", "lost")
    os.chmod(path, 0o700)
    lost = but_its_time(path)
    switch = ground.recover(copies, [path], "s2")
    assert but_its_time(path) == before
    with ground.provider.reach(switch.aside[0]) as aside:
        assert but_its_time(aside) == lost
    assert ground.volume(path).id == copies[0].volume.id
    assert ground.provider.altered(copies[0]) == ""
    run("mount", "-o", "remount", ground.path)
    undo(steps(switch))
    assert but_its_time(path) == lost
    assert not os.path.exists(f"{ground.places}/s2")


def but_its_time(path: str) -> dict[str, object]:
    """The time of the directory itself is moved by the exchange (XFS)."""
    found = picture(path)
    root = found["."]
    assert isinstance(root, tuple)
    return {**found, ".": (*root[:4], *root[5:])}


def test_what_was_set_aside_can_be_recovered(ground: Ground) -> None:
    path = ground.directory("pg")
    write(f"{path}/rows", "one")
    copies = ground.backup([ground.volume(path)], "s1")
    write(f"{path}/rows", "two")
    first = ground.provider.switch(copies, [ground.volume(path)], "s2")
    facts = [stored(effect).make() for effect in steps(first)]
    aside = ground.provider.copy(first.aside[0].volume, "s2", facts[-1])
    assert ground.provider.altered(first.aside[0]) == ground.provider.altered(aside) == ""
    write(f"{path}/rows", "three")
    second = ground.recover([aside], [path], "s3")
    assert read(f"{path}/rows") == "two"
    assert ground.provider.altered(aside) == ""
    ground.recover(copies, [path], "s4")  # the live volume is a clone already, with an earlier session's tag
    assert read(f"{path}/rows") == "one"
    undo(steps(ground.provider.switch(copies, [ground.volume(path)], "s5")))
    for session in ("s2", "s1"):
        ground.provider.delete_effect([aside] if session == "s2" else copies, session).make()
    assert read(f"{path}/rows") == "one"
    assert second.aside


def test_a_clone_whose_exchange_was_undone_can_be_kept(ground: Ground) -> None:
    path = ground.directory("pg")
    write(f"{path}/rows", "one")
    copies = ground.backup([ground.volume(path)], "s1")
    write(f"{path}/rows", "two")
    switch = ground.recover(copies, [path], "s2")
    clone = stored(switch.clones[1])
    assert isinstance(clone, contract.Clone)
    with pytest.raises(RefusedError):
        clone.keep()
    write(f"{path}/rows", "acknowledged")
    undo(switch.exchange)
    assert read(f"{path}/rows") == "two"
    facts = clone.keep()
    assert clone.keep() == facts
    kept = ground.provider.copy(ground.volume(path), "s2", facts)
    assert ground.provider.altered(kept) == ""
    with ground.provider.reach(kept) as root:
        assert read(f"{root}/rows") == "acknowledged"
        with pytest.raises(OSError, match="Read-only"):
            write(f"{root}/rows", "x")
    ground.recover([kept], [path], "s3")
    assert read(f"{path}/rows") == "acknowledged"


def two(ground: Ground) -> tuple[list[str], list[Effect]]:
    """Two volumes, a backup, and the steps back to it."""
    paths = [f"{ground.path}/{name}" for name in ("pg", "wal")]
    for path in paths:
        os.makedirs(path, exist_ok=True)
        os.chmod(path, 0o750)  # noqa: S103 - to see that it comes back
        write(f"{path}/rows", "one")
    live = [ground.volume(path) for path in paths]
    copies = ground.backup(live, "s1")
    for path in paths:
        write(f"{path}/rows", "lost")
    return paths, steps(ground.provider.switch(copies, live, "s2"))


def state(paths: list[str]) -> list[tuple[str, int]]:
    return [(read(f"{path}/rows"), os.stat(path).st_mode & 0o7777) for path in paths]


ONE, LOST = [("one", 0o750)] * 2, [("lost", 0o750)] * 2


def test_cut_off_anywhere_it_is_undone_or_finished(ground: Ground) -> None:
    paths, effects = two(ground)
    assert [effect.kind.removeprefix("reflink.") for effect in effects] == [
        "place", "clone", "clone", "bar", "exchange", "exchange", "unbar", "seal", "seal"
    ]  # fmt: skip
    before = tree(ground.path)
    for made in range(len(effects) + 1):
        for effect in effects[:made]:
            stored(effect).make()
        if 4 <= made <= 6:
            assert [os.stat(path).st_mode & 0o7777 for path in paths] == [0, 0]
        exchanges = [effect for effect in effects if isinstance(effect, Exchange)]
        assert [each.exchanged() for each in exchanges] == [made > 4, made > 5]
        for _ in range(2):
            undo(effects)  # also those that were never made: their intents may have been written ahead
            assert (state(paths), tree(ground.path)) == (LOST, before)
        for effect in (*effects[:made], *effects[max(0, made - 1) :]):
            stored(effect).make()
        assert state(paths) == ONE
        assert [os.listxattr(path) for path in paths] == [["trusted.slackwater.clone"]] * 2
        undo(effects)


def test_undoing_a_clone_after_the_exchange_never_deletes_the_live_data(ground: Ground) -> None:
    path = ground.directory("pg")
    write(f"{path}/rows", "one")
    copies = ground.backup([ground.volume(path)], "s1")
    write(f"{path}/rows", "live")
    switch = ground.recover(copies, [path], "s2")
    with pytest.raises(RefusedError):
        stored(switch.clones[1]).undo()
    with ground.provider.reach(switch.aside[0]) as aside:
        assert read(f"{aside}/rows") == "live"


def test_the_test_of_it_can_fail(xfs: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the names alone, as one would write it first, the live data goes."""
    monkeypatch.setattr(effects.Clone, "is_clone", lambda self, path, fd: self.identity_at(path, fd) is not None)
    path = xfs.directory("pg")
    copies = xfs.backup([xfs.volume(path)], "s1")
    write(f"{path}/rows", "live")
    switch = xfs.recover(copies, [path], "s2")
    switch.clones[1].undo()
    assert not os.path.exists(f"{xfs.path}/{switch.aside[0].place}")


def test_who_holds_the_tree_stops_the_exchange(ground: Ground, lab: Lab) -> None:
    path = ground.directory("pg")
    write(f"{path}/rows", "one")
    copies = ground.backup([ground.volume(path)], "s1")
    switch = ground.provider.switch(copies, [ground.volume(path)], "s2")
    for effect in switch.clones:
        effect.make()
    with Sleeper('cd "$1"', path) as pid, pytest.raises(RefusedError) as raised:
        switch.exchange[0].make()
    assert (raised.value.reason, f"pid {pid}" in raised.value.sentence) == ("held", True)
    os.mkdir(target := f"{lab.folder}/late")
    run("mount", "--bind", path, target)
    with pytest.raises(RefusedError, match="late"):
        switch.exchange[0].make()
    run("umount", target)
    with Sleeper('mount --bind "$1" "$2"', path, target, unshare="private") as pid:
        with pytest.raises(RefusedError) as raised:
            switch.exchange[0].make()
        assert f"namespace of process {pid}" in raised.value.sentence
    with Sleeper('exec 3<"$1"', f"{ground.path}/{copies[0].place}/rows"):
        switch.exchange[0].make()
    with Sleeper('exec 3>"$1/rows"', path), pytest.raises(RefusedError, match="holds"):
        switch.exchange[0].undo()
    switch.exchange[0].undo()


def test_the_holders_of_it_can_be_missed(xfs: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by inode: by their paths, those in another root would not be."""
    path = xfs.directory("pg")
    with Sleeper('cd "$1"', path):
        fd = os.open(path, os.O_RDONLY)
        assert len(places.holders(fd)) == 1
        monkeypatch.setattr(places, "inodes", lambda _: set())
        assert places.holders(fd) == ()
        os.close(fd)


def test_what_was_put_in_the_way_by_hand_is_left_alone(ground: Ground) -> None:
    path = ground.directory("pg")
    copies = ground.backup([ground.volume(path)], "s1")
    switch = ground.provider.switch(copies, [ground.volume(path)], "s2")
    for effect in switch.clones:
        effect.make()
    place = f"{ground.path}/{switch.aside[0].place}"
    run("rm", "-r", place)
    os.mkdir(place)
    write(f"{place}/stranger", "here")
    for attempt in (switch.clones[1].make, switch.clones[1].undo, switch.exchange[0].make, switch.seal[0].make):
        with pytest.raises(SlackwaterError):
            attempt()
    switch.exchange[0].undo()
    switch.seal[0].undo()
    assert read(f"{place}/stranger") == "here"


def test_a_switch_to_another_filesystem_is_refused(xfs: Ground, lab: Lab) -> None:
    copies = xfs.backup([xfs.volume(xfs.directory("pg"))], "s1")
    other = ground_on(lab, "xfs")
    live = xfs.volume(other.directory("pg"))
    with pytest.raises(RefusedError):
        xfs.provider.switch(copies, [live], "s2")


NOBODY = 65534


def as_nobody(home: str, work: Callable[[], None]) -> None:
    """Do something in a child that has no rights."""
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.environ["HOME"] = home
            work()
            status = 0
        except BaseException:  # noqa: BLE001  # an assertion, above all
            traceback.print_exc()
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_without_root_one_has_ones_own_files_back(ground: Ground) -> None:
    home = ground.directory("home-of-nobody")
    os.chown(home, NOBODY, NOBODY)
    ours = ground.volume(ground.directory("pg"))
    mine = ground.directory("home-of-nobody/mine")
    os.chown(mine, NOBODY, NOBODY)
    _document.unseal(_document.seal(document("s0", [])))  # imports what a user may not be able to read here

    def work() -> None:
        zoo(f"{home}/app")
        before = but_its_time(f"{home}/app")
        volume = ground.volume(f"{home}/app")
        assert ground.provider.check_backup(volume, [volume.path]) == []
        copies = ground.backup([volume], "s1")
        place = os.path.join(home, copies[0].place)
        assert os.stat(os.path.dirname(place)).st_mode & 0o777 == 0o700
        write(f"{home}/app/plain", "lost")
        assert [each.code for each in ground.provider.check_recovery(volume, frozenset())] == ["unseen-holders"]
        switch = ground.recover(copies, [volume.path], "s2")
        assert but_its_time(f"{home}/app") == before
        assert ground.provider.altered(copies[0]) == ""
        assert [each.session for each in ground.provider.find()] == ["s1", "s2"]
        undo(steps(switch))
        assert read(f"{home}/app/plain") == "lost"
        ground.provider.delete_effect(copies, "s1").make()
        assert sorted(os.listdir(home)) == ["app", "mine"]
        assert ground.provider.volume_of(ours.path) is None
        with pytest.raises(RightsError):
            ground.provider.switch(copies * 2, [volume, volume], "s3")

    as_nobody(home, work)
    os.mkdir(f"{home}/app/roots")
    foreign = f"{home}/app"
    as_nobody(home, lambda: refused(ground, foreign))


def refused(ground: Ground, path: str) -> None:
    volume = ground.volume(path)
    assert refusals(ground.provider.check_backup(volume, [path])) == ["not-ours"]


def after_power_cut(ground: Ground, lab: Lab) -> dict[str, str]:
    """What the disk held at this instant, without what was still in memory: each file `rows`, by path."""
    image = f"{lab.folder}/cut.img"
    run("cp", "--sparse=always", f"{ground.path.replace('home', 'disk')}.img", image)
    for mount in reversed([m for m in mounts.read() if mounts.inside(m.target, lab.folder)]):
        run("umount", mount.target)
    if "home" in ground.path:
        run("btrfs", "device", "scan", "--forget", ground.device)
    run("losetup", "-d", ground.device)
    options = "loop,subvol=home" if "home" in ground.path else "loop"
    run("mount", "-o", options, image, ground.path)
    try:
        return {p.removesuffix("/rows"): read(f"{ground.path}/{p}") for p in tree(ground.path) if p.endswith("rows")}
    finally:
        run("umount", ground.path)


@pytest.mark.parametrize("way", ["recovered", "undone", "deleted"])
def test_a_power_cut_takes_nothing_back(ground: Ground, lab: Lab, way: str) -> None:
    path = ground.directory("pg")
    write(f"{path}/rows", "one")
    copies = ground.backup([ground.volume(path)], "s1")
    write(f"{path}/rows", "two")
    run("sync", "-f", path)
    kept = {copies[0].place: "one"}
    if way == "deleted":
        ground.provider.delete_effect(copies, "s1").make()
        assert after_power_cut(ground, lab) == {"pg": "two"}
        return
    switch = ground.recover(copies, [path], "s2")
    if way == "undone":
        undo(steps(switch))
        assert after_power_cut(ground, lab) == {"pg": "two", **kept}
    else:
        assert after_power_cut(ground, lab) == {"pg": "one", switch.aside[0].place: "two", **kept}
