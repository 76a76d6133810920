# SPDX-License-Identifier: Apache-2.0
"""Power cuts, one after the other on the same disk: `python -m tests.e2e.power_cuts --minutes 5 --seed 1`, as root.

Each is one cell: a filesystem, a session, a moment. What was seen is counted in `build/reliability/power.json`.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.e2e.power_moments import Moment, decided, done, effect, rotating, told
from tests.e2e.power_support import NAME, REPOSITORY, Power, power

FILESYSTEMS = {"btrfs": "process-freeze", "xfs": "auto"}
"""What is asked for as a hold on each."""
SESSIONS = ("backup", "rotation", "recovery", "roll-forward", "undo")
PHASES: dict[str, tuple[str, ...]] = {
    "backup": ("identify", "plan", "prepare", "freeze", "thaw", "record"),
    "recovery": ("check", "prepare", "stop", "switch", "start", "record"),
}
PHASES |= {"rotation": PHASES["backup"][-1:], "undo": PHASES["recovery"], "roll-forward": PHASES["recovery"]}


@dataclass(frozen=True)
class Cell:
    """One cut."""

    session: str
    moment: Moment
    orderly: bool = False
    """A reboot: the machine is shut down, and nobody's power is cut."""


def drawn(rng: random.Random, filesystem: str) -> Iterator[Cell]:
    """Cells without end: at random within a phase, or at a moment that is told."""
    provider = "btrfs" if filesystem == "btrfs" else "reflink"
    while True:
        session = rng.choice(SESSIONS)
        at_moments = [done(), decided()]
        if session == "rotation":
            at_moments += [rotating()] * 4
        elif session in ("recovery", "roll-forward", "undo"):
            at_moments += [effect(f"{provider}.exchange", "done"), effect("postgresql.start", "done")]
        else:
            at_moments += [effect(f"{provider}.snapshot", "intent"), effect(f"{provider}.snapshot", "done")]
        within = told(rng.choice(PHASES[session]), rng.random() ** 2 * 2.0)
        yield Cell(session, rng.choice([within, within, rng.choice(at_moments)]), orderly=rng.random() < 0.2)


def play(machine: Power, cells: Iterable[Cell], rng: random.Random) -> Iterator[dict[str, str]]:
    """Cut the power of a machine again and again, and give what was seen after each cut."""
    machine.boot()
    assert machine.now.ask("start") == ""
    machine.go()
    machine._timeline("at first", new=True)
    for each in cells:
        words, source = _ready(machine, each.session)
        kind = {"rotation": "backup", "roll-forward": "recovery"}.get(each.session, each.session)
        cut = machine.strike(kind, words, each.moment, source, orderly=each.orderly)
        print(f"{machine.filesystem}: {each.session} {cut.told.session} cut {cut.moment}", flush=True)
        seen = machine.check(cut, database_first=rng.random() < 0.5, look_into=rng.random() < 0.3)
        yield {"filesystem": machine.filesystem, "session": each.session, "moment": cut.moment, "seen": seen}


def _ready(machine: Power, session: str) -> tuple[tuple[str, ...], str]:
    """See to it that there is what the session needs; its command, and what it recovers from."""
    backups = [each["id"] for each in machine.replicas() if each["kind"] == "backup"]
    needed = {"rotation": machine.keep, "recovery": 1, "roll-forward": 1, "undo": 1}.get(session, 0)
    backups += [machine.back_up() for _ in range(needed - len(backups))]
    if session in ("recovery", "roll-forward"):
        forward = ("--to", "latest") if session == "roll-forward" else ()
        return ("recover", NAME, "--replica", backups[-1], *forward, "--yes"), backups[-1]
    if session == "undo":
        undo = machine.newest_undo() or machine.recover()
        return ("recover", NAME, "--undo", "--yes"), undo
    return ("backup", NAME), ""


def write(cells: Iterable[dict[str, str]], seed: int) -> None:
    """Say what was seen, each kind of cell once, with how often."""
    path = f"{REPOSITORY}/build/reliability/power.json"
    counted = Counter(tuple(sorted(each.items())) for each in cells)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    found = [dict(each) | {"count": count} for each, count in sorted(counted.items())]
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"what": "power cuts", "cells": found, "seed": seed}, f, indent=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--filesystem", choices=FILESYSTEMS, action="append")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    filesystems = options.filesystem or list(FILESYSTEMS)
    seen: list[dict[str, str]] = []
    for filesystem in filesystems:
        rng = random.Random(f"{options.seed} {filesystem}")
        ends_s = time.monotonic() + options.minutes * 60 / len(filesystems)
        with power(filesystem, hold=FILESYSTEMS[filesystem]) as machine:
            for each in play(machine, drawn(rng, filesystem), rng):
                seen.append(each)
                print(f"  {each['seen']}", flush=True)
                write(seen, options.seed)
                if time.monotonic() > ends_s:
                    break
    print(f"{len(seen)} power cuts, seed {options.seed}", flush=True)
    sys.exit(0 if seen else 1)


if __name__ == "__main__":
    main()
