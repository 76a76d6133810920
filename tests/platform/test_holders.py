# SPDX-License-Identifier: Apache-2.0
"""Whoever holds something on a volume is found: mapped, running, in another mount namespace, on one Btrfs subvolume."""

import mmap
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.demo.disk import BtrfsDisk
from slackwater.system import processes
from tests.platform.crowd import READY, eventually, held_by, new_folder, python

pytestmark = [pytest.mark.root]

#: Maps files shared and for writing, and keeps no descriptor open.
MAPPING = (
    "import mmap, os, sys\n"
    "maps = []\n"
    "for path in sys.argv[1:]:\n"
    "    fd = os.open(path, os.O_RDWR); maps.append(mmap.mmap(fd, 0)); os.close(fd)\n"
    "for fd in range(3, 64):\n"
    "    try: os.close(fd)\n"
    "    except OSError: pass\n"
    "print('ready', flush=True); sys.stdin.read()\n"
)


@pytest.fixture
def shm() -> Iterator[Path]:
    with new_folder() as folder:
        yield folder


@pytest.mark.parametrize(
    ("access", "writing"), [("ACCESS_READ", False), ("ACCESS_WRITE", True), ("ACCESS_COPY", False)]
)
def test_a_mapping_outlives_its_descriptor_and_only_a_shared_one_writes(shm: Path, access: str, writing: bool) -> None:
    file = shm / "mapped"
    file.write_bytes(bytes(mmap.PAGESIZE))
    code = (
        "import mmap, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        f"m = mmap.mmap(fd, 0, access=mmap.{access})\n"
        "os.close(fd)\n"
        "for other in range(3, 64):\n"
        "    try: os.close(other)\n"
        "    except OSError: pass\n"
        "print(1, flush=True); sys.stdin.read()\n"
    )
    with python(code, str(file)) as child:
        assert held_by(child, shm) == {(str(file), "mapped file", writing)}


def test_a_running_program_is_found(shm: Path) -> None:
    program = shm / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    child = subprocess.Popen([str(program), "60"], text=True)
    try:
        assert eventually(lambda: processes.command_of(child.pid) == "sleep" and held_by(child, shm))
        assert (str(program), "program", False) in held_by(child, shm)
        assert (str(program), "mapped file", False) in held_by(child, shm)
    finally:
        child.kill()
        child.wait()


def test_a_holder_in_another_mount_namespace_is_found(tmp_path: Path) -> None:
    """It sees the file under a path that does not exist here, on a mount that does not exist here."""
    code = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.unshare(0x20000) == 0 and libc.mount(b'none', b'/', None, 0x44000, None) == 0\n"
        "assert libc.mount(b'sw', sys.argv[1].encode(), b'tmpfs', 0, None) == 0\n"
        "f = open(sys.argv[1] + '/inside', 'w')\n"
        "print(os.stat(sys.argv[1]).st_dev, flush=True); sys.stdin.read()\n"
    )
    with python(code, str(tmp_path)) as child:
        device = int(child.first_line)  # type: ignore[attr-defined]
        assert not (tmp_path / "inside").exists()
        found = {(h.pid, h.path, h.how, h.writing) for h in processes.holders(device)}
        assert found == {(child.pid, f"{tmp_path}/inside", "open file", True)}


def test_each_subvolume_of_one_btrfs_is_told_from_the_others(disk: BtrfsDisk) -> None:
    """Files in both have the same number, and /proc/PID/maps shows the same device for both."""
    one, two = Path(disk.subvolume("one")), Path(disk.subvolume("two"))
    for each in (one, two):
        (each / "file").write_bytes(bytes(mmap.PAGESIZE))
    assert (one / "file").stat().st_ino == (two / "file").stat().st_ino
    assert one.stat().st_dev != two.stat().st_dev
    for paths in ([one], [two], [one, two], [two, one]):
        with python(MAPPING, *(str(each / "file") for each in paths)) as child:
            for each in (one, two):
                expected = {(str(each / "file"), "mapped file", True)} if each in paths else set()
                assert held_by(child, each) == expected
    with python(READY, cwd=str(one)) as child:
        assert held_by(child, one) == {(str(one), "working directory", False)}
        assert held_by(child, two) == set()
        assert held_by(child, Path(disk.path)) == set()


def test_an_oracle_that_believed_maps_would_see_nobody(disk: BtrfsDisk) -> None:
    one = Path(disk.subvolume("one"))
    (one / "file").write_bytes(bytes(mmap.PAGESIZE))
    with python(MAPPING, str(one / "file")) as child:
        lines = Path(f"/proc/{child.pid}/maps").read_text().splitlines()
        major, minor = next(line.split()[3].split(":") for line in lines if line.endswith("/file"))
        assert os.makedev(int(major, 16), int(minor, 16)) != one.stat().st_dev
        assert held_by(child, one) == {(str(one / "file"), "mapped file", True)}


def test_who_stems_from_an_excluded_process_is_excluded_too(tmp_path: Path) -> None:
    """A server starts new processes while it is looked at: only their ancestors tell whose they are."""
    with open(tmp_path / "file", "w") as held:
        parent = subprocess.Popen(
            ["sh", "-c", "sleep 60 & echo $!; wait"], stdin=held, stdout=subprocess.PIPE, text=True
        )
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            device = os.stat(held.name).st_dev
            assert {parent.pid, child} <= {each.pid for each in processes.holders(device)}
            assert not {parent.pid, child} & {each.pid for each in processes.holders(device, frozenset({parent.pid}))}
            assert parent.pid in {each.pid for each in processes.holders(device, frozenset({child}))}
        finally:
            os.kill(child, signal.SIGKILL)
            parent.kill()
            parent.communicate()
