# SPDX-License-Identifier: Apache-2.0
"""Comparing catalog and storage both ways, each difference by name. Reads only."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from slackwater.model.replica import FoundReplica, Replica, ReplicaState
from slackwater.sessions.cell import Cell
from slackwater.system.processes import alive


class DifferenceKind(StrEnum):
    """How catalog and storage differ."""

    MISSING = "missing"
    """In the catalog, not on the storage as it was made."""
    BACK = "back"
    """Called missing by the catalog, and on the storage as it was made."""
    UNKNOWN = "unknown"
    """Whole on the storage, not in the catalog."""
    UNDOCUMENTED = "undocumented"
    """On the storage with our tag, without its document: never recovered from, never deleted by itself."""
    DOCUMENT = "document"
    """The document beside it is whole, and another than the catalog's."""
    PIN = "pin"
    """Pinned in the catalog and not beside it, or the other way round."""
    UNFINISHED = "unfinished"
    """Its deletion was decided and not finished, or its session was cut off."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference."""

    replica: str
    kind: DifferenceKind
    sentence: str


async def check(cell: Cell) -> tuple[Difference, ...]:
    """Every difference between catalog and storage; an empty answer means that they agree.

    What a session that runs is making now is no difference, and a clone is none.
    """
    known = {each.id: each for each in cell.catalog.replicas.list()}
    found = await cell.host.found()
    differences: list[Difference] = []
    for replica in known.values():
        differences += _of_known(replica, await cell.host.missing(replica))
    busy = {each.id for each in cell.catalog.sessions.running() if alive(each.process)}
    busy |= {each.id for each in cell.catalog.clones.list()}
    cut_off = set(cell.host.pending())
    for each in found:
        if each.session not in busy:
            differences += _of_found(each, known, cut_off)
    return tuple(dict.fromkeys(differences))


def _of_known(replica: Replica, why: str) -> Iterator[Difference]:
    name = replica.id
    if replica.state is ReplicaState.DELETING:
        sentence = f"{name}: its deletion was decided and is not finished; `slackwater reconcile` goes on with it."
        yield Difference(name, DifferenceKind.UNFINISHED, sentence)
    elif why:
        yield Difference(name, DifferenceKind.MISSING, f"{name}: {why}.")
    elif replica.state is ReplicaState.MISSING:
        sentence = f"{name} is there as it was made, and the catalog calls it missing; see `slackwater reconcile`."
        yield Difference(name, DifferenceKind.BACK, sentence)


def _of_found(found: FoundReplica, known: Mapping[str, Replica], cut_off: set[str]) -> Iterator[Difference]:
    name, where = found.session, ", ".join(found.places)
    replica = known.get(name)
    if name in cut_off:
        sentence = f"{name} ({where}) is of a session that was cut off; `slackwater reconcile` puts it right."
        yield Difference(name, DifferenceKind.UNFINISHED, sentence)
    elif found.document is None:
        sentence = f"{name} ({where}) has no readable document beside it."
        yield Difference(name, DifferenceKind.UNDOCUMENTED, sentence)
    elif replica is None:
        sentence = f"{name} ({where}) is whole and not in the catalog; `slackwater catalog rebuild` adds it."
        yield Difference(name, DifferenceKind.UNKNOWN, sentence)
    else:
        yield from _of_both(found, replica)


def _of_both(found: FoundReplica, replica: Replica) -> Iterator[Difference]:
    name = replica.id
    if found.document != replica.document:
        sentence = f"{name}: the document beside it is not the one that the catalog has."
        yield Difference(name, DifferenceKind.DOCUMENT, sentence)
    if found.pinned is not None and found.pinned != replica.pinned and replica.state is not ReplicaState.DELETING:
        said = ("pinned", "not pinned") if replica.pinned else ("not pinned", "pinned")
        sentence = f"{name} is {said[0]} in the catalog and {said[1]} beside it: the pin counts; slackwater reconcile"
        yield Difference(name, DifferenceKind.PIN, f"{sentence}.")
