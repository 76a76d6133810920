# SPDX-License-Identifier: Apache-2.0
"""Real processes in real cgroups, for tests of what freezes and moves them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from slackwater.system import cgroups, processes

#: Counts in the first eight bytes of a shared file, without ever sleeping for long.
COUNTER = (
    "import mmap, struct, sys, time\n"
    "file = open(sys.argv[1], 'r+b')\nshared = mmap.mmap(file.fileno(), 8)\n"
    "n = 0\n"
    "while True:\n"
    "    n += 1; shared[:] = struct.pack('q', n); time.sleep(0.001)\n"
)


READY = "import sys; print('ready', flush=True); sys.stdin.read()"


def eventually(condition: Callable[[], object], within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return bool(condition())


def write(path: str | Path, text: str) -> None:
    with open(path, "w") as f:
        f.write(text)


@dataclass
class Crowd:
    """Some processes that count, alone in a cgroup."""

    cgroup: str
    folder: Path
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def add(self, code: str, *arguments: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/",
        )  # fmt: skip
        self.children.append(child)
        write(f"{self.cgroup}/cgroup.procs", str(child.pid))
        return child

    def add_counter(self) -> None:
        file = self.folder / str(len(self.children))
        file.write_bytes(bytes(8))
        self.add(COUNTER, str(file))
        assert eventually(lambda: file.read_bytes() != bytes(8))

    def counts(self) -> list[bytes]:
        return [file.read_bytes() for file in sorted(self.folder.iterdir())]

    def moves(self) -> bool:
        """Every counter goes on within a moment."""
        before = self.counts()
        return eventually(lambda: all(a != b for a, b in zip(before, self.counts(), strict=True)), 5)

    def stands(self, for_s: float = 0.05) -> bool:
        """No counter goes on for a while."""
        before = self.counts()
        time.sleep(for_s)
        return self.counts() == before

    def moves_within(self, within_s: float) -> float:
        """Seconds until all counters go on; infinite when they do not in time."""
        start = time.monotonic()
        before = self.counts()
        moved = eventually(lambda: all(a != b for a, b in zip(before, self.counts(), strict=True)), within_s)
        return time.monotonic() - start if moved else float("inf")


@contextmanager
def new_cgroup(parent: str = "") -> Iterator[str]:
    """A cgroup with a name of its own; it and whoever is left in it and below end with the context."""
    path = f"{parent or cgroups.root()}/sw-{os.urandom(4).hex()}"
    os.mkdir(path)
    try:
        yield path
    finally:
        with suppress(OSError):
            write(f"{path}/cgroup.freeze", "0")
        write(f"{path}/cgroup.kill", "1")
        assert eventually(lambda: not cgroups.members(path))
        for folder, _, _ in os.walk(path, topdown=False):
            assert eventually(lambda folder=folder: _removed(folder))  # type: ignore[misc]


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


@contextmanager
def new_crowd(count: int = 3) -> Iterator[Crowd]:
    """Processes that count, in a cgroup of their own."""
    with new_cgroup() as cgroup, new_folder() as folder:
        crowd = Crowd(cgroup, folder)
        try:
            for _ in range(count):
                crowd.add_counter()
            yield crowd
        finally:
            write(f"{cgroup}/cgroup.freeze", "0")
            for child in crowd.children:
                child.kill()
                child.communicate()


@contextmanager
def python(code: str, *arguments: str, cwd: str = "/") -> Iterator[subprocess.Popen[str]]:
    """A child that runs `code` and has printed one line; it and its whole process group end with the context."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd, start_new_session=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        child.first_line = child.stdout.readline().strip()  # type: ignore[attr-defined]
        yield child
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def held_by(child: subprocess.Popen[str], folder: Path) -> set[tuple[str, str, bool]]:
    found = processes.holders(folder.stat().st_dev)
    return {(h.path, h.how, h.writing) for h in found if h.pid == child.pid}


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder on tmpfs that is gone afterwards."""
    folder = Path(f"/dev/shm/sw-{os.urandom(4).hex()}")
    folder.mkdir()
    try:
        yield folder
    finally:
        subprocess.run(["rm", "-rf", "--", str(folder)], check=True)


def end(child: subprocess.Popen[str]) -> None:
    """Kill a process, stopped or not, and wait for it."""
    with suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    child.communicate()
