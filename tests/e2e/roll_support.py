# SPDX-License-Identifier: Apache-2.0
"""A busy database whose log is kept: by a slot, on each layout (Btrfs, XFS by reflink, data and log apart), or by an
archive of pgBackRest or Barman.

The server keeps little by itself, in small segments: so a little log is recycled as often as on a large server much is.
"""

import contextlib
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from slackwater.demo import oracle
from slackwater.demo.cluster import Cluster
from slackwater.demo.lab import Answer, Lab
from slackwater.demo.load import Acknowledged, Load
from slackwater.system.clock import SYSTEM_CLOCK
from tests.e2e.luck_support import MIB, NAME, in_memory, obeyed, write_specification
from tests.e2e.spawner import Spawner
from tests.platform.archive_support import Kept
from tests.platform.postgresql_support import OWNER

SEGMENT_MIB = 1
PAGE_BYTES = 8192
KEPT_MIB = 2
"""What the server keeps by itself: its `max_wal_size`."""
SMALL_LOG = {"max_wal_size": f"{KEPT_MIB}MB", "min_wal_size": f"{KEPT_MIB}MB"}
LAYOUTS = ("btrfs", "xfs", "apart")


@dataclass
class World:
    """One busy database."""

    lab: Lab
    spawner: Spawner
    cluster: Cluster
    load: Load
    archive: Kept | None = None

    def do(self, *words: str) -> Answer:
        return obeyed(self.spawner.spawn(*words).answer(600.0))

    def specify(self, recovery: str, replica: str = "") -> None:
        write_specification(self.lab, NAME, self.cluster.name, recovery=recovery, replica=replica)

    def recover(self, to: str, *options: str) -> Answer:
        return self.do("recover", NAME, "--to", to, *options, "--yes")

    def pause(self) -> None:
        """Let the load rest."""
        self.load.pause(timeout_s=120.0)

    def one(self, query: str) -> str:
        with self.load.connect() as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return str(row[0])

    def verdict(self, acknowledged: Acknowledged) -> oracle.Verdict:
        with self.load.connect() as connection:
            return oracle.check(connection, acknowledged)

    def whole(self, acknowledged: Acknowledged) -> None:
        """All of it is there, and nothing is torn."""
        verdict = self.verdict(acknowledged)
        assert verdict.ok, verdict.findings
        assert verdict.found > 0

    def position(self) -> int:
        """How many bytes of log there ever were."""
        return int(self.one("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))

    def churn(self, mib: int = 10 * KEPT_MIB) -> None:
        """So much log that the server would have recycled all it keeps by itself, as a rule ten times."""
        began = self.position()
        while self.position() < began + mib * MIB:
            with self.load.connect() as connection:
                connection.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1048560))")
                connection.execute("SELECT pg_logical_emit_message(false, 'x', repeat('x', 1048560))")
                connection.execute("CHECKPOINT")

    def drop(self) -> tuple[str, Acknowledged]:
        """The mistake, under load: the transaction that made it, and what was acknowledged before it committed."""
        with self.load.connect() as connection, connection.transaction():
            row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
            connection.execute("DROP TABLE journal")
            moment = SYSTEM_CLOCK.boot_s()
        assert row is not None
        return str(row[0]), self.load.acknowledged(moment)

    def in_last_page(self) -> bool:
        """Whether the log of a server that was killed ends in the last page of a segment.

        Nothing tells then whether another segment followed, once its control file is lost, too: so a recovery to the
        last commit is refused. One kill in 128 meets that, with so small segments.
        """
        log, size = f"{self.cluster.data_dir}/pg_wal", SEGMENT_MIB * MIB
        for name in sorted((each for each in os.listdir(log) if len(each) == 24), reverse=True):
            begin = (int(name[8:16], 16) << 32) + int(name[16:], 16) * size
            if page_address(f"{log}/{name}", 0) == begin:  # else it was made ahead, or waits to be used again
                return page_address(f"{log}/{name}", size - PAGE_BYTES) == begin + size - PAGE_BYTES
        return False

    def destroy_data(self) -> None:
        """Kill the server, and lose every file of it but those of its log."""
        self.cluster.kill9()
        while self.in_last_page():
            self.cluster.start()
            self.load.wait(20)
            self.cluster.kill9()
        data = self.cluster.data_dir
        for name in os.listdir(data):
            path = os.path.join(data, name)
            if name != "pg_wal":
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)


def page_address(segment: str, offset: int) -> int:
    """Which position a page of a segment says it is of; see XLogPageHeaderData in PostgreSQL's xlog_internal.h."""
    with open(segment, "rb") as f:
        f.seek(offset)
        return int(struct.unpack("<HHIQ", f.read(16))[3])


@dataclass(frozen=True)
class Served:
    """The server of a world, as an archive sees it."""

    lab: Lab
    cluster: Cluster

    @cached_property
    def home(self) -> Path:
        folder = Path(self.lab.folder, "archived")
        folder.mkdir()
        os.chown(folder, OWNER.pw_uid, OWNER.pw_gid)
        return folder

    @property
    def data(self) -> Path:
        return Path(self.cluster.data_dir)

    @property
    def sockets(self) -> Path:
        return Path(self.cluster.socket_dir)

    @property
    def port(self) -> int:
        return self.cluster.port

    def sql(self, query: str, /) -> list[tuple[object, ...]]:
        with self.cluster.connect(autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str, /) -> object:
        return self.sql(query)[0][0]


@contextlib.contextmanager
def new_world(
    layout: str,
    replica: str = "",
    *,
    disk_mib: int = 4096,
    bound_mib: int = 512,
    archive: type[Kept] | None = None,
) -> Iterator[World]:
    """Make one, its load at work.

    Args:
        layout: one of `LAYOUTS`.
        replica: lines of its specification.
        disk_mib: how large its filesystem is.
        bound_mib: how much log is kept at most.
        archive: what keeps the log in place of a slot.
    """
    with in_memory() as lab, Spawner(lab.environment()) as spawner:
        if layout == "xfs":
            data, log = f"{lab.xfs(disk_mib * MIB).path}/main", None
        else:
            disk = lab.btrfs(disk_mib * MIB)
            data, log = disk.subvolume("data"), disk.subvolume("log") if layout == "apart" else None
        options = {**SMALL_LOG, "max_slot_wal_keep_size": f"{bound_mib}MB"}
        cluster = lab.cluster(data, log, options=options, segment_mib=SEGMENT_MIB)
        kept = archive(Served(lab, cluster)) if archive else None
        if kept:
            quoted = kept.archive_command.replace("'", "''")
            with open(f"{cluster.config_dir}/postgresql.conf", "a", encoding="utf-8") as f:
                f.write(f"archive_mode = on\narchive_command = '{quoted}'\n")
        cluster.start()
        if kept:
            kept.begin()
        with Load(cluster, f"{lab.folder}/load", writers=2, pause_s=0.002) as load:
            world = World(lab, spawner, cluster, load, kept)
            logs = (
                f"logs = \"archive\"\narchive = '{kept.asked}'"
                if kept
                else f'logs = "slot"\nlogs_max = "{bound_mib}MiB"'
            )
            world.specify(f"{logs}\n", replica)
            yield world
