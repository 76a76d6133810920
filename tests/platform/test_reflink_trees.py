# SPDX-License-Identifier: Apache-2.0
"""Copying a tree by sharing extents: everything kept, only what changed cloned again, and nothing missed."""

import mmap
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from slackwater.demo.lab import Lab
from slackwater.providers._trees import mirror as trees
from slackwater.providers._trees.manifest import manifest
from slackwater.providers._trees.mirror import TICK_S, Mirror, Scope
from slackwater.system import reflink
from slackwater.system.command import run
from tests.platform.btrfs_support import read, write
from tests.platform.reflink_support import Ground, ground_on, picture, zoo

pytestmark = [pytest.mark.root]


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def ground(request: pytest.FixtureRequest, module_lab: Lab) -> Ground:
    return ground_on(module_lab, request.param)


@pytest.fixture
def folder(ground: Ground, request: pytest.FixtureRequest) -> str:
    return ground.directory(f"{request.node.name.split('[')[0]}")


@contextmanager
def mirror(folder: str, scope: Scope | None = None) -> Iterator[tuple[str, str, Mirror]]:
    source, target = f"{folder}/source", f"{folder}/target"
    for path in (source, target):
        os.makedirs(path, exist_ok=True)
    fds = [os.open(path, os.O_RDONLY) for path in (source, target)]
    fstype = run("stat", "-f", "-c", "%T", folder).output.strip()
    try:
        yield source, target, Mirror(fds[0], fds[1], fstype, scope or Scope())
    finally:
        for fd in fds:
            os.close(fd)


def watch_clones(monkeypatch: pytest.MonkeyPatch, seen: Callable[[int], None]) -> None:
    original = reflink.clone

    def clone(target: int, source: int) -> None:
        seen(source)
        original(target, source)

    monkeypatch.setattr(reflink, "clone", clone)


def test_everything_is_kept(folder: str) -> None:
    with mirror(folder) as (source, target, copying):
        zoo(source)
        before = picture(source)
        copying.copy()
        assert picture(target) == before
        assert os.stat(f"{target}/sparse").st_blocks < 1000
        copying.copy()
        assert picture(target) == before == picture(source)
        assert copying.changed() == []


def test_the_second_pass_follows_every_change(folder: str) -> None:
    with mirror(folder) as (source, target, copying):
        zoo(source)
        copying.copy()
        write(f"{source}/plain", "shorter")
        os.rename(f"{source}/deep/er", f"{source}/moved")
        os.unlink(f"{source}/deep/link")
        os.mkdir(f"{source}/deep/link")
        write(f"{source}/deep/link/inside", "new")
        os.unlink(f"{source}/pipe")
        write(f"{source}/pipe", "a file now")
        os.rename(f"{source}/sparse", f"{source}/empty-file")
        os.link(f"{source}/deep/hard", f"{source}/third")
        os.chmod(f"{source}/deep", 0o700)
        os.removexattr(f"{source}/deep", "user.colour")
        os.unlink(f"{source}/socket")
        time.sleep(2 * TICK_S)
        copying.copy()
        assert picture(target) == picture(source)
        assert copying.changed() == []
        write(f"{source}/deep/link/inside", "newer")
        os.unlink(f"{source}/pipe")
        write(f"{source}/new", "")
        assert copying.changed(9) == ["deep/link/inside", "new", "pipe", "."]


def test_a_file_unchanged_is_not_cloned_again(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cloned: list[int] = []
    watch_clones(monkeypatch, lambda source: cloned.append(os.fstat(source).st_ino))
    with mirror(folder) as (source, _, copying):
        for name in ("cold", "hot"):
            write(f"{source}/{name}", name)
        time.sleep(2 * TICK_S)
        copying.copy()
        write(f"{source}/hot", "hotter")
        cloned.clear()
        copying.copy()
        assert cloned == [os.stat(f"{source}/hot").st_ino]


def test_a_store_through_a_mapping_is_never_missed(folder: str) -> None:
    """What makes passing over sound: after a clone the next store moves the times, also of a page that was dirty."""
    with mirror(folder) as (source, target, copying):
        write(f"{source}/mapped", "a" * 65536)
        with open(f"{source}/mapped", "r+b") as f, mmap.mmap(f.fileno(), 0) as mapped:
            for number in range(20):
                mapped[number * 3000] = 65
                copying.copy()
                mapped[number * 3000] = 66 + number
                copying.copy()
                with open(f"{target}/mapped", "rb") as copied:
                    assert copied.read() == mapped[:]


WRITER = """
import os, random, sys
os.chdir(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    name = f"f{random.randrange(40)}"
    try:
        if random.random() < 0.1:
            os.unlink(name)
        elif random.random() < 0.1:
            os.rename(name, f"d{random.randrange(3)}/{name}")
        else:
            fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
            os.pwrite(fd, random.randbytes(3000), random.randrange(20000))
            if random.random() < 0.05: os.ftruncate(fd, random.randrange(9000))
            os.close(fd)
    except FileNotFoundError:
        pass
"""


def stirred(folder: str) -> bool:
    """Copy while a process stirs the files, stop it, copy once more: is the copy what the source is?"""
    with mirror(folder) as (source, target, copying):
        for number in range(3):
            os.makedirs(f"{source}/d{number}", exist_ok=True)
        command = [sys.executable, "-c", WRITER, source]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            try:
                for _ in range(15):
                    copying.copy()
            finally:
                process.kill()
        copying.copy()
        return picture(target) == picture(source)


def test_a_file_that_is_cut_off_as_it_is_cloned_again_is_cloned_as_it_is(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a block the kernel refuses to share its end with the middle of the longer file that there is already."""
    length = 0
    watch_clones(monkeypatch, lambda source: os.truncate(f"/proc/self/fd/{source}", length) if length else None)
    with mirror(folder) as (source, target, copying):
        for cut in (9001, 8192):
            length = 0
            write(f"{source}/file", "a" * 20_000)
            copying.copy()
            length = cut
            write(f"{source}/file", "b" * 20_000)
            copying.copy()
            assert read(f"{target}/file") == "b" * cut


def test_a_tree_that_is_stirred_meanwhile_is_copied_in_the_end(folder: str) -> None:
    assert all(stirred(f"{folder}/{number}") for number in range(3))


def test_the_test_of_it_can_fail(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the times, a file of the same size is passed over."""
    monkeypatch.setattr(trees, "look_of", lambda s: (s.st_dev, s.st_ino, s.st_size, 0, 0))
    with mirror(folder) as (source, target, copying):
        for text in ("before", "behind"):
            write(f"{source}/file", text)
            time.sleep(2 * TICK_S)  # what was written a moment ago is copied again whatever it looks like
            copying.copy()
        assert picture(target) != picture(source)


def test_parts_and_an_order(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cloned: list[str] = []
    watch_clones(monkeypatch, lambda source: cloned.append(os.path.basename(os.readlink(f"/proc/self/fd/{source}"))))
    first = Scope(without=frozenset({"log", "never"}), last=("global/control",))
    with mirror(folder, first) as (source, target, copying):
        for name in ("global/control", "global/z", "base/1", "log/1", "log/deep/2", "never"):
            os.makedirs(os.path.dirname(f"{source}/{name}"), exist_ok=True)
            write(f"{source}/{name}", name)
        os.chmod(f"{source}/log", 0o700)
        copying.copy()
        assert cloned[-1] == "control"
        assert sorted(os.listdir(target)) == ["base", "global"]
        with mirror(folder, Scope(trees=("log",))) as (_, _, second):
            second.copy()
            write(f"{source}/log/3", "late")
            os.unlink(f"{source}/log/1")
            time.sleep(2 * TICK_S)
            second.copy()
            assert second.changed() == []
        time.sleep(2 * TICK_S)
        copying.copy()
        assert copying.changed() == []
        os.unlink(f"{source}/never")
        copying.copy()
        assert picture(target) == picture(source)


def test_links_on_the_way_are_not_followed(folder: str) -> None:
    """An application that swaps a directory for a link while root copies it gets nobody's files into its replica."""
    os.mkdir(secret := f"{folder}/secret")
    write(f"{secret}/file", "of somebody else")
    with mirror(folder) as (source, target, copying):
        os.mkdir(f"{source}/d")
        write(f"{source}/d/file", "own")
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                os.rename(f"{source}/d", f"{source}/e")
                os.symlink(secret, f"{source}/d")
                os.unlink(f"{source}/d")
                os.rename(f"{source}/e", f"{source}/d")

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            for _ in range(200):
                copying.copy()
                for folder_, _, files in os.walk(target):
                    assert all(read(f"{folder_}/{name}") == "own" for name in files)
        finally:
            stop.set()
            thread.join()
        copying.copy()
        assert picture(target) == picture(source)


def test_copy_on_write_that_is_switched_off_is_kept(module_lab: Lab) -> None:
    """A file with +C and one without cannot share extents (EINVAL)."""
    ground = ground_on(module_lab, "btrfs")
    folder = ground.directory("flags")
    with mirror(folder) as (source, target, copying):
        os.mkdir(f"{source}/off")
        run("chattr", "+C", f"{source}/off")
        for name in ("off/file", "on"):
            write(f"{source}/{name}", "x" * 100000)
        copying.copy()
        flags = [line.split()[0] for line in run("lsattr", "-d", f"{target}/off", f"{target}/off/file", f"{target}/on")
                 .output.splitlines()]  # fmt: skip
        assert ["C" in each for each in flags] == [True, True, False]
        assert picture(target) == picture(source)


def test_a_manifest_moves_with_every_change_but_being_read(folder: str) -> None:
    zoo(f"{folder}/tree")
    fd = os.open(f"{folder}/tree", os.O_RDONLY)
    try:
        seen = [manifest(fd).digest]
        picture(f"{folder}/tree")
        with mirror(folder):
            other = os.open(f"{folder}/target", os.O_RDONLY)
            Mirror(fd, other, run("stat", "-f", "-c", "%T", folder).output.strip()).copy()
            os.close(other)
        assert manifest(fd).digest == seen[0]
        plain = f"{folder}/tree/plain"
        changes: list[Callable[[], object]] = [
            lambda: os.utime(plain, ns=(1, 1)),
            lambda: os.setxattr(plain, "user.x", b"1"),
            lambda: os.truncate(plain, 3),
            lambda: os.chmod(plain, 0o600),
            lambda: os.unlink(f"{folder}/tree/pipe"),
            lambda: write(f"{folder}/tree/deep/new", ""),
            lambda: os.rename(f"{folder}/tree/deep/new", f"{folder}/tree/deep/newer"),
        ]
        for change in changes:
            change()
            seen.append(manifest(fd).digest)
    finally:
        os.close(fd)
    assert len(set(seen)) == len(seen) == 8


def test_pieces_are_counted(folder: str) -> None:
    with open(f"{folder}/file", "wb") as f:
        for number in random.sample(range(0, 400, 2), 100):
            f.seek(number * 4096)
            f.write(b"x" * 4096)
        f.flush()
        os.fsync(f.fileno())
        assert 50 <= reflink.extents(f.fileno()) <= 200
