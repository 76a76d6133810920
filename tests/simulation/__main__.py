# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.simulation SEED` tells the story of one world; without a seed, new worlds are lived for a while."""

import argparse
import itertools
import multiprocessing
import os
import random
import sys
import time

from tests.simulation.bulk import Tally, keep, many, told
from tests.simulation.kernel import simulated
from tests.simulation.worlds import live

_QUIET = (":before", ":after", ":made", ":locked")


def main() -> int:
    """0 when nothing was wrong."""
    asked = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    asked.add_argument("seed", nargs="?", type=int, help="one world, told line by line")
    asked.add_argument("--all", action="store_true", help="with every point that was passed")
    asked.add_argument("--minutes", type=float, default=1.0, help="how long new worlds are lived")
    asked.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = asked.parse_args()
    if options.seed is not None:
        return _one(options.seed, every=options.all)
    return _new(options.minutes, options.processes)


def _one(seed: int, *, every: bool) -> int:
    with simulated() as folder:
        lived = live(seed, folder)
    for at_s, text in lived.trace:
        if every or not text.endswith(_QUIET):
            print(f"{at_s:14.3f}  {text}")
    print(f"{lived.sessions} sessions. {told(lived) if lived.violations else 'Nothing was wrong.'}")
    return 1 if lived.violations else 0


def _new(minutes: float, processes: int) -> int:
    base = random.SystemRandom().randrange(1 << 40)
    print(f"worlds from seed {base} on, {processes} at once, for {minutes:g} min", flush=True)
    until_s = time.monotonic() + minutes * 60
    with multiprocessing.Pool(processes) as pool:
        tallies = pool.starmap(_some, [(base + number, processes, until_s) for number in range(processes)])
    total = Tally()
    for each in tallies:
        total.worlds += each.worlds
        total.sessions += each.sessions
        total.faults += each.faults
        total.ended += each.ended
        total.broken += each.broken
    keep("new", total, base)
    print(
        f"{total.worlds} worlds, {total.sessions} sessions, {sum(total.faults.values())} faults: {dict(total.faults)}"
    )
    for lived in total.broken:
        print(told(lived))
    return 1 if total.broken else 0


def _some(first: int, step: int, until_s: float) -> Tally:
    return many(itertools.count(first, step), Tally(), until_s=until_s)


if __name__ == "__main__":
    sys.exit(main())
