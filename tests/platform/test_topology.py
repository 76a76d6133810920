# SPDX-License-Identifier: Apache-2.0
"""What lies on what, on real filesystems and loop devices; device mappings are in `guard_under_systemd`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.errors import RefusedError
from slackwater.system import loops, mounts, topology
from tests.platform.crowd import new_folder
from tests.platform.disks import mounted

pytestmark = [pytest.mark.root]


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as made:
        yield made


def superblock(place: Path) -> str:
    return topology.find(str(place)).superblock


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_what_lies_in_a_file_lies_on_what_carries_the_file(kind: str, folder: Path) -> None:
    with mounted(kind, folder, "outer") as outer, mounted("ext4", outer, "inner") as inner:
        found = topology.below(str(inner))
        assert {superblock(inner), superblock(outer)} <= found
        assert superblock(inner) not in topology.below(str(outer))
        assert [each.mount for each in topology.ranked([topology.find(str(p)) for p in (outer, inner)])] == [
            str(inner), str(outer),
        ]  # fmt: skip


def test_all_subvolumes_of_a_btrfs_are_one_filesystem(folder: Path) -> None:
    with mounted("btrfs", folder) as disk:
        subvolume = disk / "sub"
        subprocess.run(["btrfs", "subvolume", "create", str(subvolume)], check=True, stdout=subprocess.DEVNULL)
        assert os.stat(disk).st_dev != os.stat(subvolume).st_dev
        assert topology.find(str(subvolume)) == topology.find(str(disk))
        assert len(topology.ranked([topology.find(str(each)) for each in (disk, subvolume)])) == 1


def test_a_file_whose_path_is_hidden_is_found_by_its_device(folder: Path) -> None:
    """As a loop device that was set up in another mount namespace, or before something was mounted over."""
    with mounted("ext4", folder, "outer") as outer:
        below = outer / "deep"
        below.mkdir()
        image = below / "image"
        with open(image, "wb") as f:
            f.truncate(1 << 20)
        with loops.attached(str(image)) as device:
            subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)
            try:
                assert not os.path.exists(loops.backing_file(device))
                assert superblock(outer) in topology.below(device)
            finally:
                subprocess.run(["umount", str(below)], check=True)


def test_what_we_need_is_known_with_all_that_carries_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mounted("xfs", folder, "outer") as outer, mounted("ext4", outer, "inner") as inner:
        (inner / "state").mkdir()
        for path in (inner / "state", inner / "not" / "there" / "yet"):
            needed = topology.needed({str(path): "our state"})
            assert needed[superblock(inner)] == needed[superblock(outer)] == "our state"
        root = mounts.mount_of("/")
        assert root is not None
        assert topology.needed({})[root.superblock] == "the root filesystem"
        for path in (inner, outer):
            assert superblock(path) not in topology.needed({})
        monkeypatch.setenv("TMPDIR", str(outer))
        monkeypatch.setattr("tempfile.tempdir", None)
        assert topology.needed({})[superblock(outer)] == "temporary files"


def test_redirected_output_is_not_frozen(folder: Path) -> None:
    code = "import json, sys; from slackwater.system import topology; sys.stderr.write(json.dumps(topology.needed({})))"
    with mounted("ext4", folder) as disk, open(disk / "out", "wb") as out:
        said = subprocess.run(
            [sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, check=True, text=True
        ).stderr
        assert f'"{superblock(disk)}": "what this command is redirected to"' in said


def test_swap_is_not_frozen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Swapping is not switched on for it: a machine that runs tests must not swap to a file in its memory."""
    with mounted("ext4", folder) as disk:
        (disk / "swap").touch()
        monkeypatch.setattr(mounts, "swap_files", lambda: [str(disk / "swap")])
        assert topology.needed({})[superblock(disk)] == "swap space"


def test_what_has_no_freeze_is_refused() -> None:
    for path in ("/dev/shm", "/proc"):
        with pytest.raises(RefusedError, match="no freeze"):
            topology.find(path)
