# SPDX-License-Identifier: Apache-2.0
"""Room on Btrfs filesystems that are really full, in either way."""

import itertools
import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import pytest

from slackwater.demo.lab import Lab
from slackwater.errors import SlackwaterError
from slackwater.journal.effects import Effect
from slackwater.model.storage import Take
from slackwater.system.command import run
from tests.platform.btrfs_support import Ground, undo

pytestmark = [pytest.mark.root]
MIB = 1 << 20


@pytest.fixture
def ground(lab: Lab) -> Ground:
    ground = Ground(lab.btrfs(256 * MIB))
    ground.disk.subvolume("pg")
    return ground


def room_ratio(ground: Ground) -> float:
    room = ground.provider.room(ground.volume(f"{ground.disk.path}/pg"))
    assert 0 <= room.free_bytes <= room.total_bytes
    return room.free_ratio


def statfs_ratio(ground: Ground) -> float:
    told = os.statvfs(ground.disk.path)
    return told.f_bavail / told.f_blocks


def fill_data(path: str) -> None:
    with open(path, "wb") as f:
        until_full(lambda number: os.posix_fallocate(f.fileno(), number * MIB, MIB))


def fill_metadata(directory: str) -> None:
    """Everything is given out to data, which is deleted again; then the metadata is filled."""
    fill_data(big := f"{directory}/big")
    os.unlink(big)
    run("btrfs", "filesystem", "sync", directory)

    def add(number: int) -> None:
        os.mkdir(f"{directory}/{number}")
        os.setxattr(f"{directory}/{number}", "user.fill", b"x" * 8000)

    until_full(add)
    run("sync", "-f", directory)


def until_full(add: Callable[[int], None]) -> None:
    with pytest.raises(OSError, match="No space"):
        deque(map(add, itertools.count()), maxlen=0)


def test_empty(ground: Ground) -> None:
    assert room_ratio(ground) == pytest.approx(statfs_ratio(ground), abs=0.05)
    assert room_ratio(ground) > 0.5


def test_data_full(ground: Ground) -> None:
    fill_data(f"{ground.disk.path}/pg/big")
    run("sync", "-f", ground.disk.path)
    assert room_ratio(ground) < 0.02
    os.unlink(f"{ground.disk.path}/pg/big")
    run("btrfs", "filesystem", "sync", ground.disk.path)
    assert room_ratio(ground) > 0.2


def test_metadata_full_while_statfs_sees_room(ground: Ground) -> None:
    """Every write fails, and statfs shows more than half of it free."""
    fill_metadata(f"{ground.disk.path}/pg")
    assert statfs_ratio(ground) > 0.5
    assert room_ratio(ground) < 0.02
    with pytest.raises(OSError, match="No space"):
        os.mkdir(f"{ground.disk.path}/pg/more")


def test_a_snapshot_without_room_says_so_and_can_be_undone(ground: Ground) -> None:
    volume = ground.volume(f"{ground.disk.path}/pg")
    place = ground.provider.place_effect(volume, "s1")
    place.make()
    fill_metadata(volume.path)
    effects: list[Effect] = []

    def take(number: int) -> None:
        named = replace(volume, name=f"pg{number}")
        effects.append(ground.provider.snapshot_effect(named, "s1"))
        with ground.provider.open(Take(named), "s1") as commit:
            commit()

    with pytest.raises((OSError, SlackwaterError), match="No space"):
        deque(map(take, range(200)), maxlen=0)  # the kernel's reserve pays for some of them
    undo([place, *effects])
    assert not os.path.exists(f"{ground.disk.path}/.slackwater")
