# SPDX-License-Identifier: Apache-2.0
"""Keep the lock of an exercise's application: `python -m slackwater.writers._test.keeper NAME`.

It is a program of its own, as every keeper, so its faults are asked for here: at its start (`writer.keeper.ready`), and
at each order.
"""

import fcntl
import sys

from slackwater.exercise.faults import strike
from slackwater.exercise.file import current

ORDERS = {"hold": "held", "release": "released"}
_HARD = {"held": "busy", "released": "lost", "ready": "busy"}
EVENTS = tuple(f"writer.keeper.{each}" for each in ("ready", *ORDERS))


def main(name: str) -> None:
    """Obey orders until they end."""
    exercise = current()
    if exercise is None:
        return
    with open(exercise.state(f"{name}.lock"), "ab") as lock:
        _obey(name, "ready", "ready", lock.fileno(), fcntl.LOCK_UN)
        for line in sys.stdin:
            order = line.strip()
            if order in ORDERS:
                _obey(name, order, ORDERS[order], lock.fileno(), fcntl.LOCK_EX if order == "hold" else fcntl.LOCK_UN)


def _obey(name: str, order: str, answer: str, lock: int, how: int) -> None:
    exercise = current()
    try:
        if exercise is None or strike(exercise, f"writer.keeper.{order}", frozenset({name})) is None:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
    except Exception as e:  # noqa: BLE001  # whatever is wanted is said in the keeper's own words
        answer = f"{_HARD[answer]} {e}"
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
