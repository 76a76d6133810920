# SPDX-License-Identifier: Apache-2.0
"""The catalog from storage alone.

What cannot be known again: sessions that left no replica, and when a replica was last verified. `catalog export` keeps
both.
"""

from dataclasses import dataclass

from slackwater.hosts.rights import require_root
from slackwater.sessions.adopt import adopt
from slackwater.sessions.alone import alone
from slackwater.sessions.cell import Cell


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was found on the storage, and what became of it."""

    restored: tuple[str, ...]
    """Replicas that are in the catalog now and were not before."""
    pinned: tuple[str, ...]
    """Which of them are pinned."""
    known: tuple[str, ...]
    """Replicas that the catalog knew."""
    left: tuple[str, ...]
    """What cannot be taken in, a sentence each."""


async def rebuild(cell: Cell) -> Rebuilt:
    """Take into the catalog every replica that is whole on the storage, with a session that tells of it. Idempotent.

    Sessions that were cut off are put right first: what they left may be whole, or go.

    Raises:
        BusyError: a session runs.
    """
    require_root()
    with alone(cell, "catalog rebuild"):
        await cell.host.reconcile()
        known = sorted(each.id for each in cell.catalog.replicas.list())
        adopted = await adopt(cell)
    return Rebuilt(adopted.ids, adopted.pinned, tuple(known), adopted.left)
