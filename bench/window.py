# SPDX-License-Identifier: Apache-2.0
"""How long an application is kept waiting, against the raw system call in the same run.

    .venv/bin/python bench/window.py [BACKUPS]

As root: a scratch Btrfs and PostgreSQL under load, backed up on one subvolume (no hold) and on two (process freeze);
next to each backup the bare snapshot ioctl on the same volume under the same load. Prints medians and the range.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable

from slackwater.demo.lab import Lab
from slackwater.demo.load import Load
from slackwater.system import btrfs, files


def timed_ms(call: Callable[[], object]) -> float:
    """How long a call takes, in milliseconds."""
    began = time.monotonic()
    call()
    return (time.monotonic() - began) * 1000


def raw_snapshot_ms(disk: str, volume: str, number: int) -> float:
    """One bare snapshot ioctl, descriptors open and dirty pages written back, as our window has it."""
    directory, source = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (disk, volume))
    try:
        files.write_back(source)
        order = btrfs.snapshot_order(source, f"raw-{number}", read_only=True)
        return timed_ms(lambda: btrfs.snapshot(directory, order))
    finally:
        os.close(directory)
        os.close(source)


def show(name: str, values: list[float], unit: str = "ms") -> None:
    """One row of the table."""
    low, high = min(values), max(values)
    print(f"{name:<46}{statistics.median(values):>9.1f}{low:>9.1f}{high:>9.1f}  {unit}")


def measure(lab: Lab, volumes: int, backups: int) -> None:
    """Back up a loaded cluster again and again."""
    disk = lab.btrfs()
    data = disk.subvolume("data")
    cluster = lab.cluster(data_dir=data, wal_dir=disk.subvolume("wal") if volumes == 2 else None)
    if not cluster.running:
        cluster.start()
    frozen, held, snapshot, raw, gaps = [], [], [], [], []
    with Load(cluster, lab.folder) as load:
        load.wait(200)
        for number in range(backups):
            began = time.clock_gettime(time.CLOCK_BOOTTIME)
            answer = lab.slackwater("backup", cluster.ref).document
            gaps.append(load.longest_gap_s(began) * 1000)
            frozen.append(answer["window"]["frozen_ms"])
            held.append(answer["window"]["held_ms"])
            snapshot += [each["duration_ms"] for each in answer["phases"] if each["name"] == "snapshot"]
            raw.append(raw_snapshot_ms(disk.path, data, number))
        answers = [lab.slackwater("recover", cluster.ref, "--yes").document for _ in range(3)]
        down = [answer["downtime_ms"] for answer in answers]
    print(f"\n{volumes} subvolume{'s' if volumes > 1 else ''}, {backups} backups under load   median   least   most")
    show("the bare snapshot ioctl, one volume", raw)
    show(f"our snapshot phase, {volumes} volume(s)", snapshot)
    if volumes > 1:
        show("application held still", held)
        show("order to freeze until everything moves", frozen)
    show("longest gap between acknowledged commits", gaps)
    show("application down for a recovery", down)


def main() -> None:
    """Measure both layouts."""
    backups = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    for volumes in (1, 2):
        with Lab() as lab:
            measure(lab, volumes, backups)


if __name__ == "__main__":
    main()
