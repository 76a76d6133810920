# SPDX-License-Identifier: Apache-2.0
"""Living many worlds, and writing down how many there were."""

import json
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.simulation.kernel import simulated
from tests.simulation.worlds import Lived, live

_BUILD = Path(__file__).parents[2] / "build"


class Tally:
    """How many worlds there were, and what happened in them."""

    def __init__(self) -> None:
        self.worlds = self.sessions = 0
        self.faults: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.broken: list[Lived] = []

    def add(self, lived: Lived) -> None:
        """Count one."""
        self.worlds += 1
        self.sessions += lived.sessions
        self.faults += lived.faults
        self.ended += lived.ended
        if lived.violations:
            self.broken.append(lived)

    def report(self, seed: int) -> dict[str, object]:
        """As it is kept."""
        return {
            "what": "simulation", "sessions": self.sessions, "worlds": self.worlds, "faults": dict(self.faults),
            "ended": dict(self.ended), "violations": len(self.broken), "seed": seed,
            "broken": [each.seed for each in self.broken],
        }  # fmt: skip


def many(seeds: Iterable[int], tally: Tally, *, until_s: float = float("inf")) -> Tally:
    """Live these worlds one after the other, until the real clock (time.monotonic) shows `until_s`."""
    with simulated() as folder:
        for seed in seeds:
            tally.add(live(seed, folder))
            if time.monotonic() > until_s:
                break
    return tally


def told(lived: Lived) -> str:
    """What is wrong with a world, and how to see it again."""
    return f"seed {lived.seed}: {'; '.join(lived.violations)} (make simulate SEED={lived.seed})"


def keep(part: str, tally: Tally, seed: int) -> None:
    """Write down one part, and the sum of all parts in `build/reliability/simulation.json`."""
    parts = _BUILD / "simulation"
    parts.mkdir(parents=True, exist_ok=True)
    _replace(parts / f"{part}.json", tally.report(seed))
    total = Tally()
    found = [json.loads(each.read_text(encoding="utf-8")) for each in sorted(parts.glob("*.json"))]
    for each in found:
        total.worlds += each["worlds"]
        total.sessions += each["sessions"]
        total.faults += Counter(each["faults"])
        total.ended += Counter(each["ended"])
    report = total.report(min(each["seed"] for each in found))
    report |= {"violations": sum(e["violations"] for e in found), "broken": [s for e in found for s in e["broken"]]}
    (_BUILD / "reliability").mkdir(parents=True, exist_ok=True)
    _replace(_BUILD / "reliability" / "simulation.json", report)


def _replace(path: Path, report: Mapping[str, object]) -> None:
    """Write it as a whole: other workers read and write it, too, and may have our process id where they live."""
    draft = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    draft.write_text(json.dumps(report, indent=1), encoding="utf-8")
    draft.replace(path)
