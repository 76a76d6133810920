# SPDX-License-Identifier: Apache-2.0
"""Rounds of cells for the test suite: every moment of a kind, each with every signal."""

import random
from collections.abc import Sequence

from tests.matrix import facts
from tests.matrix.cells import IN_WINDOW, TOO_SHORT, WINDOW, Cell, Fault, faults_of, run_cell
from tests.matrix.kinds import Kind, tidy
from tests.matrix.record import Record
from tests.matrix.site import Site

SIGNALS: dict[str, tuple[Fault, ...]] = {
    "SIGKILL": (Fault.KILL,),
    "SIGSTOP": (Fault.STOP_CONTINUE, Fault.STOP_KILL, Fault.ABORT),
    "SIGTERM": (Fault.TERM,),
    "Ctrl-C": (Fault.INTERRUPT,),
}
"""By signal: what it can be followed by; a cell gets one of them, drawn."""
MANY = 20
"""Replicas in a world, from which on it is made smaller: all of them are looked at in each cell."""


def moments(site: Site, kind: Kind) -> list[str]:
    """What a session of this kind goes through, watched once."""
    words = kind.begin(site)
    with site.noted():
        found = facts.targets(site.lab.state_dir, lambda: site.spawn(*words))
    tidy(site)
    return found


def strike(
    site: Site,
    kind: Kind,
    record: Record,
    signals: Sequence[str],
    rng: random.Random,
    *,
    window: Sequence[Fault] = (),
    one_drawn: bool = False,
) -> list[str]:
    """Strike a kind at each of its moments with each of some signals, or with one of them.

    Args:
        site: where.
        kind: of session.
        record: learns of every cell: of the struck ones, of those that could not be struck, and how many there are.
        signals: names in `SIGNALS`.
        rng: draws all that is drawn.
        window: the faults that are tried in its window, where it has one.
        one_drawn: draw one of the signals for each moment.

    Returns: the moments that could not be hit, and should have been.

    Raises:
        AssertionError: a violation.
    """
    known = moments(site, kind)
    record.exist(len(known) * len(signals))
    cells = [(each, signal) for each in known for signal in ([rng.choice(signals)] if one_drawn else signals)]
    chosen = [Cell(kind, moment, _drawn(kind, signal, rng)) for moment, signal in cells]
    if kind.window and site.guarded:
        record.exist(len(IN_WINDOW) if window else 0)
        chosen += [Cell(kind, WINDOW, each) for each in window]
    missed = []
    for cell in chosen:
        print(f"{site.engine} on {site.storage}: {cell}", flush=True)
        try:
            seen = run_cell(site, cell, known, rng)
        except AssertionError as e:
            record.violations.append(str(e))
            raise
        record.add(site, cell, seen)
        if not seen.hit and cell.moment not in TOO_SHORT:
            missed.append(str(cell))
        if len(site.replicas()) > MANY:
            site.shrink()
    return missed


def _drawn(kind: Kind, signal: str, rng: random.Random) -> Fault:
    return rng.choice([each for each in SIGNALS[signal] if each in faults_of(kind)])
