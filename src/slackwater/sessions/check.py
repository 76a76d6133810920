# SPDX-License-Identifier: Apache-2.0
"""Comparing catalog and storage both ways, each difference by name. Reads only."""

from dataclasses import dataclass
from enum import StrEnum

from slackwater.sessions.cell import Cell


class DifferenceKind(StrEnum):
    """How catalog and storage differ."""

    MISSING = "missing"
    """In the catalog, not on the storage as it was made."""
    UNKNOWN = "unknown"
    """Whole on the storage, not in the catalog."""
    UNDOCUMENTED = "undocumented"
    """On the storage with our tag, without its document: never recovered from, never deleted by itself."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference."""

    replica: str
    kind: DifferenceKind
    sentence: str


async def check(cell: Cell) -> tuple[Difference, ...]:
    """Every difference between catalog and storage; an empty answer means that they agree."""
    known = {each.id: each for each in cell.catalog.replicas.list()}
    differences = [
        Difference(replica.id, DifferenceKind.MISSING, f"{replica.id}: {why}.")
        for replica in known.values()
        if (why := await cell.host.missing(replica))
    ]
    for found in await cell.host.found():
        where = ", ".join(found.places)
        if found.document is None:
            sentence = f"{found.session} ({where}) has no readable document beside it."
            differences.append(Difference(found.session, DifferenceKind.UNDOCUMENTED, sentence))
        elif found.session not in known:
            sentence = f"{found.session} ({where}) is whole and not in the catalog; `slackwater reconcile` adds it."
            differences.append(Difference(found.session, DifferenceKind.UNKNOWN, sentence))
    return tuple(differences)
