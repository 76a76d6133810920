# SPDX-License-Identifier: Apache-2.0
"""The conformance kit: our providers keep every promise on real storage, and each check catches one that does not."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from slackwater.demo.disk import Ext4Disk
from slackwater.demo.lab import Lab
from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.model.storage import Room, ShadowCopy, Volume
from slackwater.providers import _bars
from slackwater.providers._conformance.checks import CHECKS
from slackwater.providers._trees import checks, commit, effects, mirror, provider
from slackwater.providers.btrfs import BtrfsProvider
from slackwater.providers.conformance import examine
from slackwater.providers.contract import Provider
from slackwater.providers.plain import PlainProvider
from slackwater.providers.reflink import ReflinkProvider
from slackwater.system import files
from slackwater.system.command import run
from tests.platform.btrfs_support import write

pytestmark = [pytest.mark.root]
SMALL = 512 << 20


def scratch(lab: Lab, kind: str) -> list[str]:
    if kind in ("xfs", "ext4", "xfs-without-reflink"):
        disk = lab.ext4(SMALL) if kind == "ext4" else lab.xfs(SMALL, reflink=kind == "xfs")
        return [disk.directory(name) for name in ("one", "two")]
    btrfs = lab.btrfs(SMALL)
    paths = [btrfs.subvolume(name) for name in ("one", "home")]
    if kind == "btrfs-mounted":
        return [paths[0], btrfs.mount_subvolume("home", f"{lab.folder}/home")]
    if kind == "btrfs":
        return paths
    home = btrfs.mount_subvolume("home", f"{lab.folder}/home")
    for name in ("a", "b"):
        os.mkdir(f"{home}/{name}")
    return [f"{home}/a", f"{home}/b"]


@pytest.mark.parametrize(
    ("provider", "kind"),
    [
        (BtrfsProvider, "btrfs"),
        (BtrfsProvider, "btrfs-mounted"),
        (ReflinkProvider, "xfs"),
        (ReflinkProvider, "files"),
        (PlainProvider, "ext4"),
        (PlainProvider, "xfs-without-reflink"),
    ],
)
def test_ours_keep_every_promise(lab: Lab, provider: type[Provider], kind: str) -> None:
    paths = scratch(lab, kind)
    verdicts = list(examine(provider, paths))
    assert [(each.check, each.why_not) for each in verdicts if not each.kept] == []
    by_file = provider is not BtrfsProvider
    assert len(verdicts) == sum(by_file or not name.startswith("file") for name in CHECKS)
    assert all(each.demand.endswith(".") for each in verdicts)
    assert [os.listdir(path) for path in paths] == [[], []]


def test_a_user_runs_the_same_and_one_volume_is_enough_for_most(lab: Lab) -> None:
    path = lab.xfs(SMALL).directory("one")
    answer = lab.slackwater("provider", "test", "reflink", "--on", path, "--yes")
    demands = {(check.__doc__ or "").splitlines()[0] for name, check in CHECKS.items() if "several-vol" not in name}
    assert {each["demand"]: each["why_not"] for each in answer.document["checks"]} == dict.fromkeys(demands, "")
    write(f"{path}/somebodys", "file")
    answer = lab.slackwater("provider", "test", "reflink", "--on", path, "--yes", check=False)
    assert (answer.status, answer.document["error"]["code"]) == (2, "usage")
    assert os.listdir(path) == ["somebodys"]
    assert lab.slackwater("provider", "test", "nosuch", "--on", path, "--yes", check=False).status == 4


def test_what_is_no_scratch_volume_is_refused(lab: Lab) -> None:
    one, two = scratch(lab, "btrfs")
    os.mkdir(f"{one}/inner")
    for paths, why in (
        ([], "no scratch volume"), ([one], "no empty directory"), ([f"{one}/inner"], "a part of the volume"),
        ([lab.folder], "no empty directory"), ([two, two], "one volume"), ([lab.run_dir], "no volume"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            next(examine(BtrfsProvider, paths))
    assert os.listdir(one) == ["inner"]


# -- twins that break one promise each -----------------------------------------------------------------------------


class Wrong(ReflinkProvider):
    """A provider as ours, but for one thing."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)


def overriding(**methods: Callable[..., Any]) -> Callable[[str], Provider]:
    return type("Twin", (Wrong,), methods)


def volume_with(change: Callable[[Volume, str], Volume]) -> Callable[[str], Provider]:
    def volume_of(self: ReflinkProvider, path: str) -> Volume | None:
        found = ReflinkProvider.volume_of(self, path)
        return change(found, path) if found else None

    return overriding(volume_of=volume_of)


def patched(monkeypatch: pytest.MonkeyPatch, where: object, name: str, value: object) -> Callable[[str], Provider]:
    monkeypatch.setattr(where, name, value)
    return ReflinkProvider


def later_checks(
    self: ReflinkProvider, volume: Volume, trees: Sequence[str], beside: Sequence[Volume] = ()
) -> list[Any]:
    write(f"{volume.path}/probe", "")
    os.unlink(f"{volume.path}/probe")
    return []


@contextmanager
def writable(self: ReflinkProvider, copy: ShadowCopy) -> Any:
    with self._place(copy).top() as top:
        yield f"/proc/self/fd/{top}/{copy.place}"


def undone_blindly(self: effects.Clone) -> None:
    with self.top() as top, self.opened(top) as place:
        if place is not None:
            self.remove(self.name, place)


def swapped_by_two_renames(directory: int, one: str, other: str) -> None:
    os.rename(one, f"{one}.moved", src_dir_fd=directory, dst_dir_fd=directory)
    time.sleep(0.3)
    os.rename(other, one, src_dir_fd=directory, dst_dir_fd=directory)
    os.rename(f"{one}.moved", other, src_dir_fd=directory, dst_dir_fd=directory)


def always_made(self: effects.Exchange) -> bool:
    return True


def without_pass_in_the_window(self: Any) -> None:
    self.session.finished(self)


def copied_without_times(target: int, source: int, wanted: os.stat_result) -> None:
    return None


def deleting_all(self: ReflinkProvider, copies: Sequence[ShadowCopy], session: str) -> Any:
    deleting = ReflinkProvider.delete_effect(self, copies, session)
    for each in self.find():
        if each.session != session and each.superblock == copies[0].volume.superblock:
            run("sh", "-c", f'rm -rf "{copies[0].volume.path}/../.slackwater/{each.session}"/*')
    return deleting


def everybodys() -> Callable[[str], Provider]:
    """The first owner is whoever else asks."""
    owners: list[str] = []

    def factory(owner: str) -> Provider:
        owners.append(owner)
        return ReflinkProvider(owners[0])

    return factory


def facts_that_move(self: effects.Seal) -> Facts:
    return {**SEAL(self), "manifest": os.urandom(4).hex()}


SEAL = effects.Seal.make

TWINS: dict[str, Callable[[pytest.MonkeyPatch], Callable[[str], Provider]]] = {
    "one-volume-has-one-name": lambda _: volume_with(lambda v, path: replace(v, id=f"{v.id}{path}")),
    "looking-writes-nothing": lambda _: overriding(check_backup=later_checks),
    "what-else-lies-there-is-told": lambda _: overriding(foreign=lambda self, volume, trees: ()),
    "room-is-told": lambda _: overriding(room=lambda self, volume: Room(100, 50)),
    "the-copy-is-the-instant": lambda m: patched(m, commit.Commit, "__call__", without_pass_in_the_window),
    "everything-is-kept": lambda m: patched(m, mirror, "carry", copied_without_times),
    "opened-and-left-is-no-copy": lambda m: patched(m, effects, "read_tag", lambda fd, name: "check"),
    "a-copy-is-protected": lambda _: overriding(reach=writable),
    "an-altered-copy-is-told": lambda _: overriding(altered=lambda self, copy: ""),
    "twice-is-as-once": lambda m: patched(m, effects.Seal, "make", facts_that_move),
    "a-switch-turns-back-and-is-undone": lambda m: patched(m, files, "exchange", lambda *_: None),
    "what-was-set-aside-is-a-copy": lambda m: patched(m, effects.Seal, "make", facts_that_move),
    "cut-off-anywhere": lambda m: patched(m, effects.Exchange, "exchanged", always_made),
    "killed-anywhere": lambda m: patched(m, files, "exchange", swapped_by_two_renames),
    "killed-while-copying": lambda m: patched(m, effects.Snapshot, "undo", lambda self: None),
    "undoing-never-takes-live-data": lambda m: patched(m, effects.Clone, "undo", undone_blindly),
    "who-holds-the-volume-is-told": lambda m: patched(m, checks, "holders", lambda *_: ()),
    "the-document-is-found": lambda _: overriding(write_document=lambda self, document: None),
    "what-is-anothers-is-left-alone": lambda _: everybodys(),
    "deleting-takes-its-own": lambda _: overriding(delete_effect=deleting_all),
    "a-clone-takes-nobodys-place": lambda _: overriding(mounted_at=lambda self, copy: ("/somewhere",)),
    "several-volumes-are-barred": lambda m: patched(m, _bars, "_close", lambda fd: None),
    "files-of-several-stages": lambda m: patched(m, provider, "scope_of", lambda *_: mirror.Scope()),
    "files-that-changed-are-told": lambda m: patched(m, mirror.Mirror, "changed", lambda self: []),
}


@pytest.fixture(scope="module")
def two(module_lab: Lab) -> Callable[[], list[str]]:
    """Fresh scratch volumes for each twin: it may leave a mess."""
    disk = module_lab.xfs(SMALL)
    numbers = iter(range(1000))
    return lambda: [disk.directory(f"v{next(numbers)}") for _ in range(2)]


def test_there_is_a_twin_for_every_check() -> None:
    assert set(TWINS) == set(CHECKS)


@pytest.mark.parametrize("check", TWINS)
def test_its_twin_is_caught(two: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    factory = TWINS[check](monkeypatch)
    verdict = next(examine(factory, two(), [check]))
    assert not verdict.kept, check
    assert verdict.why_not


def densely(target: int, source: int) -> Iterator[int]:
    os.ftruncate(target, 0)
    yield os.pwrite(target, os.pread(source, os.fstat(source).st_size, 0), 0)


PLAIN_TWINS: dict[str, tuple[object, str, object]] = {
    "the-copy-is-the-instant": (commit.Commit, "__call__", without_pass_in_the_window),
    "everything-is-kept": (files, "copy_data", densely),
    "killed-while-copying": (effects.Snapshot, "undo", lambda self: None),
    "files-that-changed-are-told": (mirror.Mirror, "changed", lambda self: []),
}
"""Where data is copied; all else is the same code as above."""


@pytest.mark.parametrize("check", PLAIN_TWINS)
def test_its_twin_that_copies_data_is_caught(module_lab: Lab, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    disk = ext4_of(module_lab)
    monkeypatch.setattr(*PLAIN_TWINS[check])
    verdict = next(examine(PlainProvider, [disk.directory(f"{check}-{name}") for name in "ab"], [check]))
    assert not verdict.kept, check


@cache
def ext4_of(lab: Lab) -> Ext4Disk:
    return lab.ext4(SMALL)


def test_a_provider_that_raises_is_a_finding(two: Callable[[], list[str]]) -> None:
    def broken(self: ReflinkProvider, volume: Volume) -> Room:
        raise RefusedError("no")

    (verdict,) = examine(overriding(room=broken), two(), ["room-is-told"])
    assert verdict.why_not == "it raised RefusedError: no"
