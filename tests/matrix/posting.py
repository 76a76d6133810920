# SPDX-License-Identifier: Apache-2.0
"""A busy PostgreSQL with its Slackwater: data and log on two volumes of Btrfs or XFS, another disk for full copies."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slackwater.demo import ledger, oracle
from slackwater.demo.cluster import Cluster
from slackwater.demo.load import Load, LoadError
from tests.e2e.luck_support import MIB, in_memory
from tests.e2e.spawner import Spawner
from tests.matrix.site import GOES_ON_S, Site

SPECIFICATIONS = {"plain": "keep = 500", "rotating": "keep = 1", "full": 'type = "full"\nto = "{other}"\nkeep = 2'}
KEPT_MB = 256
"""So much log is kept at most: the server's own bound."""
_AROUND = f"""\
[recovery]
logs = "slot"
logs_max = "{KEPT_MB}MiB"
[[recovery.service]]
stop = ["/bin/true", "stop"]
start = ["/bin/true", "start"]
[hooks]
pre_freeze = ["/bin/true"]
post_thaw = ["/bin/true"]
pre_stop = ["/bin/true"]
post_start = ["/bin/true"]
"""
"""What else a session can do, so that it is struck at that, too."""
_TEXT = """\
name = "{name}"
[[component]]
writer = "postgresql"
instance = "{instance}"
[replica]
{replica}
[options]
freeze_timeout = "20s"
hold_timeout = "1s"
hold = "{hold}"
[verify]
database = "{database}"
expect = "0"
query = '''{query}'''
"""
_THERE = "(SELECT count(*) FROM commits WHERE teller = {0} AND epoch = {1} AND number BETWEEN {2} AND {3})"


@dataclass
class ServerSite(Site):
    """A site whose application is a PostgreSQL under load."""

    cluster: Cluster | None = None
    load: Load | None = None
    hold: str = "auto"
    dear: bool = True

    @property
    def server(self) -> Cluster:
        assert self.cluster is not None
        return self.cluster

    @property
    def tellers(self) -> Load:
        assert self.load is not None
        return self.load

    def floor(self) -> Any:
        return self.tellers.acknowledged()

    def goes_on(self, within_s: float = GOES_ON_S) -> bool:
        try:
            self.tellers.wait(1, within_s)
        except LoadError:
            return False
        return True

    def live_complaints(self, floor: Any) -> list[str]:
        with self.tellers.connect() as connection:
            return list(oracle.check(connection, floor or {}).findings)

    def replica_complaints(self, replica: str, folders: dict[str, str], floor: Any) -> list[str]:
        """By a verification: the replica is recovered on a clone, and the oracle is the question put to it."""
        specification = self.replicas()[replica]["specification"]
        self.specify(specification, question(floor or {}))
        answer = self.ask("replica", "verify", replica)
        self.specify(specification, question({}))
        return [] if answer.status == 0 else [str(answer.document.get("error", answer.output))]

    def pids(self) -> list[int]:
        return sorted(self.server.pids())

    def revive(self) -> None:
        if not self.server.running:
            self.server.start()

    def lose_rows(self) -> None:
        with self.tellers.connect() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS lost AS SELECT 1")
            connection.execute("DROP TABLE lost")

    def specify(self, name: str, query: str) -> None:
        """Write a specification that asks this of its replicas."""
        text = _TEXT.format(
            name=name, instance=self.server.name, hold=self.hold, database=ledger.DATABASE, query=query,
            replica=SPECIFICATIONS[name].format(other=self.disks[1]),
        )  # fmt: skip
        text += _AROUND if name == "plain" else ""
        Path(f"{self.lab.config_dir}/specs.d/{name}.toml").write_text(text, encoding="utf-8")


def question(floor: Any) -> str:
    """The oracle in one question: how much is contradictory, and how many acknowledged commits are missing."""
    parts = [f"(SELECT coalesce(sum(x), 0) FROM ({sql}) AS c (x))" for sql in oracle._CONTRADICTIONS.values()]
    parts += [
        f"({span.last - span.first + 1} - {_THERE.format(teller, span.epoch, span.first, span.last)})"
        for teller, spans in floor.items()
        for span in spans
    ]
    return f"SELECT {' + '.join(parts)}"


@contextlib.contextmanager
def server_site(storage: str, sabotage: str = "") -> Iterator[ServerSite]:
    """A busy server: frozen by its processes on Btrfs, by whatever is cheapest on XFS."""
    with in_memory() as lab, Spawner({**lab.environment(), "SLACKWATER_TEST_SABOTAGE": sabotage}) as spawner:
        if storage == "btrfs":
            disk, other = lab.btrfs(), lab.xfs(1024 * MIB).path
            path, places = disk.path, [disk.subvolume(each) for each in ("data", "log")]
        else:
            xfs = lab.xfs(2048 * MIB)
            other = lab.btrfs(1024 * MIB).path
            path, places = xfs.path, [f"{xfs.path}/{each}" for each in ("data", "log")]
        options = {"max_slot_wal_keep_size": f"{KEPT_MB}MB"}
        cluster = lab.wheel_cluster(18, places[0], places[1], options)
        cluster.start()
        with Load(cluster, f"{lab.folder}/load", writers=1, pause_s=0.01) as load:
            hold = "process-freeze" if storage == "btrfs" else "auto"
            site = ServerSite(lab, spawner, "postgresql", storage, (path, other), tuple(places), cluster=cluster,
                              load=load, hold=hold, guarded=storage == "btrfs")  # fmt: skip
            for name in SPECIFICATIONS:
                site.specify(name, question({}))
            site.run("reconcile")
            site.untouched = frozenset(each for each in site.look() if not each.startswith("place "))
            yield site
