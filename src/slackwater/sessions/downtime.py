# SPDX-License-Identifier: Apache-2.0
"""How long a recovery will keep an application down, by what was measured before."""

from dataclasses import dataclass
from itertools import islice

from slackwater.model.replica import Replica
from slackwater.model.session import SessionKind
from slackwater.sessions.cell import Cell

_LOOKED_AT = 3


@dataclass(frozen=True, slots=True)
class Downtime:
    """What was measured, and where."""

    ms: float
    whole: bool
    """True for recoveries; False for a verification, which knows what its engine took, and no stop, switch or service.
    """
    of: str
    """The session that measured it."""


def foreseen(cell: Cell, replica: Replica) -> Downtime | None:
    """The longest of the specification's last three recoveries, else the replica's verification, else None."""
    sessions = cell.catalog.sessions.list(replica.document.specification)
    measured = (
        (float(each.document["downtime_ms"]), each.id)
        for each in sessions
        if each.kind is SessionKind.RECOVERY and each.document.get("downtime_ms")
    )
    if longest := max(islice(measured, _LOOKED_AT), default=None):
        return Downtime(longest[0], True, longest[1])
    if replica.verification is not None and replica.verification.passed:
        return Downtime(replica.verification.recovery_ms, False, replica.verification.session)
    return None
