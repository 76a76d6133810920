# SPDX-License-Identifier: Apache-2.0
"""Copies of trees on another filesystem: all that makes a file is in them, and every difference is told."""

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from slackwater.demo.lab import Lab
from slackwater.errors import VerificationError
from slackwater.providers import _copying
from slackwater.providers._copying import contents, copy_tree, expect, size_of
from slackwater.system.command import run
from tests.e2e.luck_support import MIB, filesystem, in_memory

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with in_memory() as made:
        yield made


@pytest.fixture(scope="module")
def tree(lab: Lab) -> str:
    """On a Btrfs, with everything that a tree can hold."""
    path = lab.btrfs(256 * MIB).subvolume("tree")
    os.mkdir(f"{path}/folder", 0o751)
    for name, text in (("plain", "text"), ("folder/other\nname", "more"), ("empty", "")):
        with open(f"{path}/{name}", "w", encoding="utf-8") as f:
            f.write(text)
    os.link(f"{path}/plain", f"{path}/folder/linked")
    os.symlink("/nowhere", f"{path}/link")
    os.mkfifo(f"{path}/pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{path}/socket")
    with open(f"{path}/sparse", "wb") as f:
        f.truncate(64 * MIB)
        os.pwrite(f.fileno(), b"x" * 4096, 32 * MIB)
    os.setxattr(f"{path}/plain", "user.note", b"kept")
    os.setxattr(path, "trusted.slackwater.copy", b"ours")
    run("setfacl", "-m", "u:nobody:r", f"{path}/plain")
    os.chown(f"{path}/empty", 65534, 12)
    os.chmod(f"{path}/empty", 0o4700)
    os.utime(f"{path}/folder", (1, 1))
    return path


@pytest.fixture(scope="module")
def copy(lab: Lab, tree: str) -> str:
    path = f"{filesystem(lab, 'ext4', 64 * MIB, 'target')}/copy"
    copy_tree(tree, path)
    return path


def test_a_copy_holds_everything(tree: str, copy: str) -> None:
    found = contents(tree)
    assert contents(copy).digest == found.digest
    assert contents(copy).sums == found.sums
    assert os.stat(f"{copy}/plain").st_ino == os.stat(f"{copy}/folder/linked").st_ino
    assert size_of(copy) < MIB, "holes stay holes"
    assert b"ours" not in [os.getxattr(copy, name) for name in os.listxattr(copy)], "our tags are not the tree's"
    assert os.getxattr(f"{copy}/plain", "user.note") == b"kept"
    with open(f"{copy}.sha256", "w", encoding="utf-8") as f:
        f.write(found.sums)
    run("sh", "-c", f"cd {copy} && sha256sum --quiet --check ../copy.sha256")


def _turn_a_bit(copy: str) -> None:
    with open(f"{copy}/sparse", "r+b") as f:
        os.pwrite(f.fileno(), b"y", 32 * MIB)


CHANGES: dict[str, Callable[[str], None]] = {
    "a bit": _turn_a_bit,
    "an owner": lambda copy: os.chown(f"{copy}/plain", 1, 1),
    "a right": lambda copy: os.chmod(f"{copy}/empty", 0o600),
    "a note": lambda copy: os.setxattr(f"{copy}/plain", "user.note", b"else"),
    "a link": lambda copy: os.unlink(f"{copy}/folder/linked"),
    "an aim": lambda copy: os.replace(f"{copy}/pipe", f"{copy}/link"),
    "a pipe": lambda copy: os.unlink(f"{copy}/pipe"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_difference_is_told(tree: str, copy: str, what: str) -> None:
    """Also where no time of a file tells of it."""
    run("rm", "-rf", copy)
    copy_tree(tree, copy)
    times = os.stat(f"{copy}/sparse")
    CHANGES[what](copy)
    os.utime(f"{copy}/sparse", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(VerificationError, match="does not hold"):
        expect(copy, contents(tree).digest, copy)


def test_a_check_that_ignores_contents_is_caught(tree: str, copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: without the digests of files, a bit that turned is not told."""
    monkeypatch.setattr(_copying, "_digest", lambda _: "")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_every_difference_is_told(tree, copy, "a bit")
