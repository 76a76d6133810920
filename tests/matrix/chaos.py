# SPDX-License-Identifier: Apache-2.0
"""Cells of the matrix at random, for as long as one likes; it stops at the first violation: `make chaos`.

One line per cell, with the seed that drew it. Between the worlds, as far as they are there, come chunks of the
simulation and power cuts.
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from slackwater.system.clock import SYSTEM_CLOCK
from tests.matrix.banking import bank_site
from tests.matrix.cells import IN_WINDOW, WINDOW, Cell, Fault, faults_of, run_cell
from tests.matrix.kinds import Kind, kinds_of
from tests.matrix.posting import server_site
from tests.matrix.record import Record, append
from tests.matrix.rounds import moments
from tests.matrix.site import Site

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
WORLDS: dict[str, Callable[[], AbstractContextManager[Site]]] = {
    "sqlite-btrfs": lambda: bank_site("btrfs"),
    "sqlite-xfs": lambda: bank_site("xfs"),
    "postgresql-btrfs": lambda: server_site("btrfs"),
    "postgresql-xfs": lambda: server_site("xfs"),
}
CELLS_PER_WORLD = 40
"""Then it is taken away and another one begun: a world grows slower with what it keeps."""
CHUNK_S = 60
SIMULATION = "tests/simulation"
POWER_CUTS = "tests/e2e/power_cuts.py"


class ViolationError(Exception):
    """Something was not as it must be."""


def draw(rng: random.Random, site: Site, kind: Kind, known: list[str]) -> Cell:
    """A moment and a fault of this kind."""
    faults = [*faults_of(kind), *(IN_WINDOW if kind.window and site.guarded else ())]
    fault = rng.choice(faults)
    return Cell(kind, WINDOW if fault in IN_WINDOW else rng.choice(known), fault)


def cells(site: Site, record: Record, seed: str, ends_s: float, only: str = "") -> None:
    """Run cells in one world until it has seen enough, or the time is over.

    Raises:
        ViolationError: with all that is needed to see it again.
    """
    rng = random.Random(seed)
    known: dict[str, list[str]] = {}
    for number in range(CELLS_PER_WORLD):
        if SYSTEM_CLOCK.boot_s() > ends_s:
            return
        kind = _named(only) if only else rng.choice(kinds_of(site.engine))
        where = f"{site.engine}-{site.storage} seed {seed} cell {number}"
        where = f"{where}: {kind.name}"
        try:
            if kind.name not in known:
                known[kind.name] = moments(site, kind)
            cell = draw(rng, site, kind, known[kind.name])
            if only.count("|"):
                _, moment, fault = (each.strip() for each in only.split("|"))
                cell = Cell(kind, moment, Fault(fault))
            where = f"{where.partition(': ')[0]}: {cell}"
            seen = run_cell(site, cell, known[kind.name], random.Random(f"{seed} {number}"))
        except Exception as e:
            again = (
                f"SEED={seed.split('/', maxsplit=1)[0]} or: tests/isolated -m tests.matrix.chaos --world {site.engine}-"
            )
            again += f"{site.storage} --seed {seed!r} --only '{where.partition(': ')[2]}'"
            raise ViolationError(f"{where}\n{traceback.format_exc()}\n{_evidence(site)}\nAgain: {again}") from e
        record.add(site, cell, seen)
        print(f"{where} -> {seen.outcome if seen.hit else 'not hit'}, at {seen.landed or cell.moment},"
              f" {seen.replicas} replicas judged", flush=True)  # fmt: skip


def _named(only: str) -> Kind:
    return next(each for each in kinds_of("postgresql") if each.name == only.split("|", maxsplit=1)[0].strip())


def _evidence(site: Site) -> str:
    """How everything stands: what a reader of a violation asks first."""
    lines = [f"pending in the journal: {site.pending()}", f"clones: {site.clones()}"]
    with contextlib.suppress(Exception):
        lines += [str(each) for each in site._query("journal", "SELECT session, id, kind, state FROM effect")]
        lines += [f"{name}: {each}" for name, each in site.replicas().items()]
        lines += [str(each) for each in site.surplus(site.replicas())]
    return "\n".join(lines)


def others(record: Record, seed: str, turn: int, ends_s: float) -> None:
    """A chunk of the simulation, and now and then the power cuts, as far as this project has them.

    Raises:
        ViolationError: one of them failed.
    """
    left_s = int(min(CHUNK_S, ends_s - SYSTEM_CLOCK.boot_s()))
    if os.path.isdir(f"{ROOT}/{SIMULATION}") and left_s > 10:
        _other(record, "simulation", ["-m", "tests.simulation", "--minutes", f"{left_s / 60:.2f}"], seed)
    far_from_the_end = ends_s - SYSTEM_CLOCK.boot_s() > 5 * CHUNK_S
    if os.path.exists(f"{ROOT}/{POWER_CUTS}") and turn % 3 == 2 and far_from_the_end:
        own = str(random.Random(seed).randrange(1 << 32))
        _other(record, "power cuts", ["-m", "tests.e2e.power_cuts", "--minutes", "2", "--seed", own], seed)


def _other(record: Record, name: str, arguments: list[str], seed: str) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    print(f"{name}, {' '.join(arguments)}: status {done.returncode}, {last}", flush=True)
    record.extra[name] = record.extra.get(name, 0) + 1
    if done.returncode != 0:
        raise ViolationError(
            f"{name} of seed {seed}: python {' '.join(arguments)}\n{done.stdout[-8000:]}{done.stderr[-4000:]}"
        )


def turns(record: Record, arguments: argparse.Namespace, ends_s: float) -> Iterator[str]:
    """One world after the other, and what comes between them."""
    rng = random.Random(arguments.seed)
    names = [arguments.world] if arguments.world else list(WORLDS)
    turn = 0
    while SYSTEM_CLOCK.boot_s() < ends_s:
        if turn % len(names) == 0:
            rng.shuffle(names)
        name = names[turn % len(names)]
        seed = arguments.seed if arguments.only else f"{arguments.seed}/{turn}"
        with WORLDS[name]() as site:
            cells(site, record, seed, ends_s, arguments.only)
        if not arguments.world:
            others(record, seed, turn, ends_s)
        turn += 1
        yield f"{name} is done, {record.count} cells so far"


def main() -> int:
    """Run it; 0 when the time was over, 1 at a violation or a moment not hit, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", default="")
    parser.add_argument("--world", choices=WORLDS, default="")
    parser.add_argument("--only", default="", help="a kind, or KIND | MOMENT | FAULT")
    arguments = parser.parse_args()
    arguments.seed = arguments.seed or str(random.randrange(1 << 32))
    print(f"SEED={arguments.seed} MINUTES={arguments.minutes:g}", flush=True)
    record, status = Record(arguments.seed), 0
    ends_s = SYSTEM_CLOCK.boot_s() + arguments.minutes * 60
    try:
        for each in turns(record, arguments, ends_s):
            print(each, flush=True)
    except ViolationError as e:
        record.violations.append(str(e))
        status = 1
        print(f"VIOLATION: {e}", flush=True)
    except (KeyboardInterrupt, SystemExit):
        status = 130
    status = status or int(bool(record.missed()))
    append("chaos", record.document())
    counts = f"{record.count} cells, {record.replicas} replicas judged, {len(record.violations)} violations"
    print(f"{record.summary()}\n{counts}")
    return status


if __name__ == "__main__":
    sys.exit(main())
