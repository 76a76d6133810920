# SPDX-License-Identifier: Apache-2.0
"""Whether a recovery on Btrfs takes longer for a large database: beside the same by hand, and pgBackRest's restore.

    .venv/bin/python bench/recovery_size.py [--sizes 0.1,10] [--times 5] [--folder /tmp]

As root, with Debian's PostgreSQL and pgbackrest. For each size (GB) a cluster on a scratch Btrfs in a file below the
folder, which needs three times the room of the largest. Each recovery begins with a server that has committed since,
and is timed until the server answers. What the engine itself says that its replay took is told apart: it depends on
what was written, and not on how large the database is. Prints a table, and writes `build/bench/recovery-size.json`.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial

import psycopg

from slackwater.demo.cluster import DebianCluster
from slackwater.demo.disk import BtrfsDisk
from slackwater.demo.lab import Lab
from slackwater.demo.load import Load
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.command import run

GB = 10**9
PATIENCE_S = 3600.0
COMMITS = 100
"""How much is written between a copy and a recovery to it."""
ROW_BYTES, ROWS = 1856, 16384
"""A table of such rows has four on each page of 8 KiB: a block of them is 32 MiB."""
_REPLAY = re.compile(r"redo done at \S+ system usage: .*elapsed: ([\d.]+) s")


@dataclass
class Recovery:
    """One recovery of one kind."""

    down_s: float
    """From the order to stop until the server answers."""
    replay_s: float
    """What the engine says that its replay took; it is part of `down_s`."""
    whole_s: float
    """From the order to recover to its end."""
    steps_s: dict[str, float] = field(default_factory=dict)


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


class Bench:
    """A cluster of some size on a Btrfs of its own."""

    def __init__(self, lab: Lab, size_bytes: int) -> None:
        self.lab, self.size_bytes = lab, size_bytes
        self.disk: BtrfsDisk = lab.btrfs(3 * size_bytes + 4 * GB)
        self.cluster: DebianCluster = lab.cluster(self.disk.subvolume("data"), options={"autovacuum": "off"})
        self.cluster.start()

    def fill(self) -> None:
        """Bytes that nobody can compress, copied without a log and without waiting for the disk."""
        self.configure(wal_level="minimal", max_wal_senders="0", fsync="off", full_page_writes="off")
        row = b"\x00\x01" + ROW_BYTES.to_bytes(4, "big")
        block = b"".join(row + os.urandom(ROW_BYTES) for _ in range(ROWS))
        with self.cluster.connect() as connection:
            connection.execute("CREATE TABLE filling (bytes bytea)")
            with connection.cursor().copy("COPY filling FROM STDIN (FORMAT binary, FREEZE)") as copy:
                copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
                for _ in range(max(1, self.size_bytes // (ROWS // 4 * 8192))):
                    copy.write(block)
                copy.write(b"\xff\xff")
        self.configure()
        run("sync", "-f", self.disk.path, timeout_s=PATIENCE_S)

    def configure(self, **settings: str) -> None:
        """Restart with these settings and no other."""
        with self.cluster.connect(autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET ALL")
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        self.cluster.stop()
        self.cluster.start()

    def write(self) -> None:
        """Commit something, so that there is something to go back from."""
        with Load(self.cluster, f"{self.lab.folder}/load") as load:
            load.wait(COMMITS, timeout_s=PATIENCE_S)

    def replay_s(self) -> float:
        """What the last start's replay took by the engine's word; nothing where it had none to do."""
        with open(self.cluster.log, encoding="utf-8", errors="replace") as f:
            last = f.read().rpartition("starting PostgreSQL")[2]
        return sum(float(each) for each in _REPLAY.findall(last))

    def answers(self) -> None:
        """Wait until it does."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self.cluster.connect(autocommit=True) as connection:
                    connection.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    # -- three ways ------------------------------------------------------------------------------------------------

    def ours(self, times: int) -> list[Recovery]:
        """`slackwater recover`, which also proves that the server is back before it says so."""
        self.lab.slackwater("backup", self.cluster.ref, timeout_s=PATIENCE_S)
        found = []
        for _ in range(times):
            self.write()
            began = time.monotonic()
            said = self.lab.slackwater("recover", self.cluster.ref, "--yes", timeout_s=PATIENCE_S).document
            whole_s = time.monotonic() - began
            steps = {each["name"]: each["duration_ms"] / 1000 for each in said["phases"]}
            found.append(Recovery(said["downtime_ms"] / 1000, self.replay_s(), whole_s, steps))
            self.lab.slackwater("replica", "delete", str(said["undo_replica"]), "--yes")
        return found

    def by_hand(self, times: int) -> list[Recovery]:
        """What an administrator types who knows what to do, without a check and without a new timeline."""
        live, copy, new, old = (f"{self.disk.path}/{name}" for name in ("data", "copy", "new", "old"))
        with self.cluster.connect(autocommit=True) as connection:
            connection.execute("CHECKPOINT")
        run("btrfs", "subvolume", "snapshot", "-r", live, copy)
        found = []
        for _ in range(times):
            self.write()
            steps = {
                "snapshot": seconds(lambda: run("btrfs", "subvolume", "snapshot", copy, new)),
                "stop": seconds(self.cluster.stop),
                "mv": seconds(lambda: (os.rename(live, old), os.rename(new, live))),
                "start": seconds(self._start),
            }
            whole_s = sum(steps.values())
            found.append(Recovery(whole_s - steps["snapshot"], self.replay_s(), whole_s, steps))
            run("btrfs", "subvolume", "delete", old)
        return found

    def _start(self) -> None:
        pid = f"{self.cluster.data_dir}/postmaster.pid"
        if os.path.exists(pid):
            os.unlink(pid)  # it came with the snapshot
        self.cluster.start()
        self.answers()

    def pgbackrest(self) -> Iterator[tuple[str, list[Recovery]]]:
        """A restore from a repository on a local disk: of what differs, and into an empty directory."""
        repository, lock, data = f"{self.lab.folder}/repository", f"{self.lab.folder}/lock", self.cluster.data_dir
        os.mkdir(repository)
        os.mkdir(lock)
        words = (
            "pgbackrest", "--stanza=bench", f"--repo1-path={repository}", f"--pg1-path={data}", f"--lock-path={lock}",
            "--log-level-file=off",
        )  # fmt: skip
        self.cluster.stop()
        run(*words, "--no-online", "stanza-create")
        copy = (*words, "--no-online", "--type=full", "--compress-type=none", "--process-max=2", "backup")
        print(f"pgBackRest: backed up in {seconds(lambda: run(*copy, timeout_s=PATIENCE_S)):.0f} s", flush=True)
        for way, options in (("pgBackRest, --delta", ("--delta",)), ("pgBackRest, empty directory", ())):
            self.cluster.start()
            self.write()
            steps = {"stop": seconds(self.cluster.stop)}
            if not options:
                run("find", data, "-mindepth", "1", "-delete", timeout_s=PATIENCE_S)
            order = (*words, "--process-max=2", "--type=none", *options, "restore")
            steps["restore"] = seconds(partial(run, *order, timeout_s=PATIENCE_S))
            steps["start"] = seconds(self._start)
            whole_s = sum(steps.values())
            yield way, [Recovery(whole_s, self.replay_s(), whole_s, steps)]
            self.cluster.stop()


def measure(size_gb: float, times: int, folder: str) -> Iterator[tuple[str, list[Recovery]]]:
    """All ways at one size, each as soon as it is done."""
    with Lab(folder) as lab:
        bench = Bench(lab, int(size_gb * GB))
        print(f"{size_gb:g} GB: filled in {seconds(bench.fill):.0f} s", flush=True)
        yield "slackwater recover", bench.ours(times)
        yield "the steps by hand", bench.by_hand(times)
        yield from bench.pgbackrest()


def show(way: str, size_gb: float, rows: list[Recovery]) -> None:
    """One row of the table, in seconds, and what the steps took: medians."""
    without = statistics.median(each.down_s - each.replay_s for each in rows)
    down, replay, whole = (
        statistics.median(getattr(each, name) for each in rows) for name in ("down_s", "replay_s", "whole_s")
    )
    print(f"{way:<30}{size_gb:>6g}{down:>9.2f}{replay:>9.2f}{without:>9.2f}{whole:>9.2f}{len(rows):>7}")
    steps = {name: statistics.median(each.steps_s.get(name, 0.0) for each in rows) for name in rows[0].steps_s}
    print("    " + ", ".join(f"{name} {took:.2f}" for name, took in steps.items()), flush=True)


def machine() -> dict[str, object]:
    """On what this ran, and what else it had to do."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "at": SYSTEM_CLOCK.now().isoformat(timespec="seconds"),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "memory_bytes": memory,
        "load": [round(each, 1) for each in os.getloadavg()],
    }


def main() -> None:
    """Measure every size, print, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="0.1,10")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    sizes = [float(each) for each in options.sizes.split(",")]
    room = shutil.disk_usage(options.folder).free
    if room < 3 * max(sizes) * GB + 5 * GB:
        raise SystemExit(f"{options.folder} has room for {room / GB:.0f} GB; three times the largest size is needed.")
    before = machine()
    print(f"load of the machine: {before['load']}, {before['processors']} processors")
    print(f"{'medians, in seconds':<30}{'GB':>6}{'down':>9}{'replay':>9}{'without':>9}{'whole':>9}{'times':>7}")
    told: list[dict[str, object]] = []
    os.makedirs("build/bench", exist_ok=True)
    for size_gb in sizes:
        for way, rows in measure(size_gb, options.times, options.folder):
            show(way, size_gb, rows)
            told.append({"way": way, "size_gb": size_gb, "recoveries": [asdict(each) for each in rows], **machine()})
            with open("build/bench/recovery-size.json", "w", encoding="utf-8") as f:
                json.dump({"before": before, "found": told}, f, indent=1)
    print(f"load of the machine: {machine()['load']}")


if __name__ == "__main__":
    main()
