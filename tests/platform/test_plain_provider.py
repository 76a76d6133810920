# SPDX-License-Identifier: Apache-2.0
"""The provider `plain` on an ext4: what the conformance kit cannot see of it."""

import fcntl
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from slackwater.demo.disk import PlainDisk
from slackwater.demo.lab import Lab
from slackwater.errors import SlackwaterError
from slackwater.model.storage import Volume
from slackwater.providers import _copying
from slackwater.providers._trees.mirror import TICK_S, Mirror
from slackwater.providers.contract import Exchange
from slackwater.providers.plain import PlainProvider
from slackwater.system import files, filesystems
from slackwater.system.command import run
from tests.platform.btrfs_support import OWNER, read, write

pytestmark = [pytest.mark.root]

_SET_ENCRYPTION_POLICY = 0x800C6613


@pytest.fixture(scope="module")
def disk(module_lab: Lab) -> PlainDisk:
    return module_lab.ext4(256 << 20)


@pytest.fixture
def folder(disk: PlainDisk, request: pytest.FixtureRequest) -> str:
    return disk.directory(request.node.name)


def volume(path: str) -> Volume:
    found = PlainProvider(OWNER).volume_of(path)
    assert found is not None
    return found


@contextmanager
def mirror(folder: str) -> Iterator[Mirror]:
    for name in ("source", "target"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
    fds = [os.open(f"{folder}/{name}", os.O_RDONLY) for name in ("source", "target")]
    _copying.begin()  # as the provider does: an earlier test may have had a copy stopped
    try:
        yield Mirror(fds[0], fds[1], "ext4", shares=False)
    finally:
        for fd in fds:
            os.close(fd)


def copied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes of files whose data is copied from now on."""
    found: list[int] = []
    original = files.copy_data

    def noted(target: int, source: int) -> Iterator[int]:
        found.append(os.fstat(source).st_ino)
        return original(target, source)

    monkeypatch.setattr(files, "copy_data", noted)
    return found


def copied_again_while_open(folder: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a file that somebody has open for writing, or mapped so, is copied a second time, and one at rest not."""
    os.makedirs(f"{folder}/source")
    for name in ("open", "mapped", "rest"):
        write(f"{folder}/source/{name}", "x" * 5000)
    with open(f"{folder}/source/mapped", "r+b") as f:
        shared = mmap.mmap(f.fileno(), 0)
    inodes = {name: os.stat(f"{folder}/source/{name}").st_ino for name in ("open", "mapped", "rest")}
    time.sleep(2 * TICK_S)
    with mirror(folder) as copying, open(f"{folder}/source/open", "r+b"), shared:
        copying.copy()
        again = copied(monkeypatch)
        copying.copy()
        assert inodes["rest"] not in again
        return set(again) == {inodes["open"], inodes["mapped"]}


def test_what_somebody_has_open_for_writing_is_copied_again(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that is under way has moved the times already, and its data comes later."""
    assert copied_again_while_open(folder, monkeypatch)


def test_the_test_of_it_can_fail(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "written_by_nobody", lambda fd: True)
    assert not copied_again_while_open(folder, monkeypatch)


def test_who_opens_a_file_while_it_is_asked_about_waits_for_nothing_and_ends_nobody(folder: str) -> None:
    """Breaking a lease sends a signal, and the usual one would end this process."""
    write(path := f"{folder}/file", "rows")
    stop, opened = threading.Event(), []

    def opens() -> None:
        while not stop.is_set():
            with open(path, "r+b"):
                opened.append(1)

    thread = threading.Thread(target=opens)
    thread.start()
    fd = os.open(path, os.O_RDONLY)
    try:
        answers = set()
        ends_s = time.monotonic() + 60
        while len(opened) <= 100 and time.monotonic() < ends_s:
            answers |= {files.written_by_nobody(fd) for _ in range(500)}
    finally:
        stop.set()
        thread.join()
        os.close(fd)
    assert len(opened) > 100
    assert answers <= {True, False}


def test_data_with_holes_is_copied_with_them(folder: str) -> None:
    with open(f"{folder}/one", "wb") as f:
        f.truncate(64 << 20)
        for at in (1 << 20, 40 << 20):
            f.seek(at)
            f.write(os.urandom(100_000))
    with open(f"{folder}/one", "rb") as one, open(f"{folder}/two", "w+b") as two:
        assert sum(files.copy_data(two.fileno(), one.fileno())) < 1 << 20
        os.lseek(one.fileno(), 0, os.SEEK_SET)
        assert two.read() == one.read()
    assert os.stat(f"{folder}/two").st_blocks * 512 < 1 << 20


def test_a_copy_can_be_stopped(folder: str) -> None:
    write(f"{folder}/file", "rows")
    os.makedirs(f"{folder}/source")
    with open(f"{folder}/source/file", "wb") as f:
        f.write(os.urandom(1 << 20))
    with mirror(folder) as copying:
        _copying.stop()
        with pytest.raises(SlackwaterError, match="stopped"):
            copying.copy()
        _copying.begin()
        copying.copy()
    assert os.path.getsize(f"{folder}/target/file") == 1 << 20


def test_another_directory_of_the_same_number_is_another_one(folder: str) -> None:
    """An ext4 gives the numbers of inodes out again at once."""
    os.mkdir(path := f"{folder}/data")
    first = volume(path)
    for _ in range(20):
        os.rmdir(path)
        os.mkdir(path)
        second = volume(path)
        assert second.id == first.id
        assert second.facts["identity"] != first.facts["identity"]


def test_what_cannot_be_copied_is_refused(folder: str, disk: PlainDisk) -> None:
    provider = PlainProvider(OWNER)
    os.mkdir(path := f"{folder}/data")
    assert provider.check_backup(volume(path), [path]) == []
    run("fallocate", "-l", "150M", f"{path}/large")
    (found,) = provider.check_backup(volume(path), [path])
    assert (found.code, "150" in found.sentence) == ("no-room", True)
    os.unlink(f"{path}/large")
    top = PlainProvider(OWNER).volume_of(disk.path)
    assert top is not None
    assert [each.code for each in provider.check_backup(top, [disk.path])] == ["top-level"]


def test_an_encrypted_directory_is_known(module_lab: Lab, disk: PlainDisk, folder: str) -> None:
    run("umount", disk.path)
    try:
        run("tune2fs", "-O", "encrypt", disk.device)
    finally:
        run("mount", disk.device, disk.path)
    fd = os.open(folder, os.O_RDONLY)
    try:
        assert not filesystems.encrypted(fd)
        try:
            fcntl.ioctl(fd, _SET_ENCRYPTION_POLICY, struct.pack("=4B8s", 0, 1, 4, 0, b"slackwtr"))
        except OSError as e:
            pytest.skip(f"this kernel cannot encrypt directories: {e.strerror}")
        assert filesystems.encrypted(fd)
    finally:
        os.close(fd)
    assert [each.code for each in PlainProvider(OWNER).check_backup(volume(folder), [folder])] == ["encrypted"]


def test_what_has_a_field_of_that_name_is_no_exchange() -> None:
    class Other:
        kind = "test.other"
        made = True

        def describe(self) -> str:
            return ""

        def make(self) -> dict[str, str]:
            return {}

        def undo(self) -> None:
            return None

    assert not isinstance(Other(), Exchange)


def test_a_directory_in_memory_is_no_volume(module_lab: Lab) -> None:
    assert PlainProvider(OWNER).volume_of(module_lab.run_dir) is None


def test_an_xfs_that_shares_is_left_to_reflink(module_lab: Lab) -> None:
    assert PlainProvider(OWNER).volume_of(module_lab.xfs(512 << 20).directory("data")) is None


def test_by_hand(folder: str) -> None:
    """RECOVER.txt of an ext4 mounts it by its UUID and its type."""
    from slackwater.providers._trees.manual import manual
    from tests.platform.btrfs_support import document

    os.mkdir(path := f"{folder}/data")
    write(f"{path}/rows", "one")
    provider = PlainProvider(OWNER)
    copy = provider.copy(volume(path), "2026-01-01-1", {})
    page = manual(document("2026-01-01-1", [copy]), provider._place(copy), [copy])
    assert f"mount -t ext4 UUID={copy.volume.facts['filesystem']} /run/top" in page
    assert read(f"{path}/rows") == "one"
