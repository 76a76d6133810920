# SPDX-License-Identifier: Apache-2.0
"""Frozen processes make one moment of several volumes, with what they had written before: by calls, and by memory."""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Lab
from slackwater.system.command import run
from tests.e2e.luck_support import MIB, against, obeyed, spawned
from tests.e2e.spawner import Spawner
from tests.platform.crowd import eventually, new_cgroup, write

pytestmark = [pytest.mark.root]

#: Counts first in mapped memory of a file on one volume, then by write(2) in a file on the other; syncs nothing.
PAIR = """
import mmap, os, struct, sys
first, second = sys.argv[1:]
file = open(f"{first}/count", "r+b")
shared = mmap.mmap(file.fileno(), 8)
fd = os.open(f"{second}/count", os.O_WRONLY)
n = 0
while True:
    n += 1
    shared[:] = struct.pack("q", n)
    os.pwrite(fd, struct.pack("q", n), 0)
"""


def count(folder: Path) -> int:
    return int(struct.unpack("q", (folder / "count").read_bytes())[0])


def complaints(first: Path, second: Path, before: int) -> list[str]:
    """The oracle: the second never leads, the first leads by one at most, and nothing written before is missing."""
    a, b = count(first), count(second)
    found = [] if b <= a <= b + 1 else [f"the first counts {a}, the second {b}"]
    return found + ([f"{before} had been written, and {b} is there"] if b < before else [])


@contextmanager
def pair(first: Path, second: Path, cgroup: str) -> Iterator[subprocess.Popen[bytes]]:
    for folder in (first, second):
        (folder / "count").write_bytes(bytes(8))
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", PAIR, str(first), str(second)], cwd="/") as process:
        try:
            write(f"{cgroup}/cgroup.procs", str(process.pid))
            assert eventually(lambda: count(second) > 0)
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def disk(lab: Lab) -> BtrfsDisk:
    return lab.btrfs(512 * MIB)


def test_what_was_written_before_is_there_and_nothing_after(lab: Lab, disk: BtrfsDisk) -> None:
    first, second = Path(disk.subvolume("first")), Path(disk.subvolume("second"))
    with new_cgroup() as cgroup, Spawner(lab.environment()) as spawner, pair(first, second, cgroup) as process:
        entries = [f'[[component]]\nwriter = "files"\ninstance = "{each}"\n' for each in (second, first)]
        path = Path(lab.config_dir) / "specs.d" / "pair.toml"
        path.write_text('name = "pair"\n' + "".join(f'{each}cgroup = "{cgroup}"\n' for each in entries))
        for _ in range(2):
            before = count(second)
            taken = obeyed(spawned(spawner, "backup", "pair")).document
            holds = {each["hold"] for each in taken["plan"]["holdings"]}
            assert holds == {"atomic", "process-freeze"}
            (replica,) = Path(disk.path).glob(f".slackwater/{taken['replica']}")
            assert complaints(replica / "first", replica / "second", before) == []
            moved = count(second)
            assert eventually(lambda moved=moved: count(second) > moved)  # type: ignore[misc]
        # The oracle sees what it is there for: two snapshots with nobody frozen.
        for name in ("second", "first"):
            run("btrfs", "subvolume", "snapshot", "-r", f"{disk.path}/{name}", f"{disk.path}/{name}.torn")
            moved = count(first)
            assert eventually(lambda moved=moved: count(first) > moved + 2)  # type: ignore[misc]
        assert complaints(Path(f"{disk.path}/first.torn"), Path(f"{disk.path}/second.torn"), 0)
        # Whoever writes and is not in the cgroup is named; and it is never the cgroup that we are in.
        with subprocess.Popen(["sleep", "1000"], stdout=open(first / "stray", "wb"), cwd="/") as stray:
            try:
                found = against(spawned(spawner, "backup", "pair", "--preview"), "outside-writer")
                assert f"Process {stray.pid} (sleep)" in found["sentence"]
            finally:
                stray.kill()
        with new_cgroup(cgroup) as ours:
            write(f"{ours}/cgroup.procs", str(os.getpid()))
            try:
                found = against(spawned(spawner, "backup", "pair", "--preview"), "not-freezable")
            finally:
                write(f"{os.path.dirname(cgroup)}/cgroup.procs", str(os.getpid()))
        assert process.poll() is None
