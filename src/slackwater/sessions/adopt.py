# SPDX-License-Identifier: Apache-2.0
"""Taking into the catalog what is whole on the storage: what lies beside a replica is enough to know it again."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from slackwater.errors import SlackwaterError
from slackwater.model.replica import BackupComponents, FoundReplica, Replica, ReplicaKind
from slackwater.model.session import Message, Outcome, Session, SessionKind
from slackwater.sessions.cell import Cell


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was found that the catalog did not know."""

    replicas: tuple[Replica, ...]
    """Those that it knows now."""
    left: tuple[str, ...]
    """What cannot be taken in, a sentence each."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Which it knows now."""
        return tuple(each.id for each in self.replicas)

    @property
    def pinned(self) -> tuple[str, ...]:
        """Which of them are pinned."""
        return tuple(each.id for each in self.replicas if each.pinned)


async def adopt(cell: Cell) -> Adopted:
    """Take in every replica that is whole on the storage, as it was made, with a session that tells of it. Idempotent.

    What the catalog knows already is newer, and stays as it is. Whoever calls holds the session's lock.
    """
    known = {each.id for each in cell.catalog.replicas.list()}
    found = await cell.host.found()
    replicas = [each for each in _whole(found) if each.id not in known]
    against = {each.id: why for each in replicas if (why := await _against(cell, each))}
    taken = tuple(each for each in replicas if each.id not in against)
    cell.catalog.merge([_session(cell, each.document) for each in taken], taken)
    clones = {each.id for each in cell.catalog.clones.list()}
    bare = [each for each in found if each.document is None and each.session not in clones]
    left = [f"{replica} {why}." for replica, why in against.items()]
    left += [f"{each.session} ({', '.join(each.places)}) has no whole document beside it." for each in bare]
    return Adopted(taken, tuple(left))


async def agree_on_pins(cell: Cell) -> None:
    """See to it that catalog and storage say the same of every pin: one on either side counts. Idempotent.

    Either may be the older one: a catalog that was put back from a copy, a storage that could not be written.
    """
    known = {each.id: each for each in cell.catalog.replicas.list()}
    for found in await cell.host.found():
        replica = known.get(found.session)
        if replica is None or found.pinned in (None, replica.pinned):
            continue
        with suppress(SlackwaterError):  # a deletion that was decided, a storage that cannot be written
            if found.pinned:
                cell.catalog.replicas.pin(replica.id)
            else:
                await cell.host.pin(replica.document, pinned=True)


def _whole(found: Sequence[FoundReplica]) -> list[Replica]:
    """The replicas whose documents were found, each once, oldest first.

    Pinned where a pin is noted, and also where the storage cannot tell: a rotation too few costs nothing.
    """
    pins = {each.session for each in found if each.pinned is not False}
    documents = {each.session: each.document for each in found if each.document is not None}
    replicas = [Replica(document, pinned=session in pins) for session, document in documents.items()]
    return sorted(replicas, key=lambda each: (each.document.created, each.id))


async def _against(cell: Cell, replica: Replica) -> str:
    if replica.id in cell.host.pending():
        return "is of a session that was cut off and cannot be put right now: slackwater reconcile"
    why = await cell.host.missing(replica)
    return f"is not as it was made: {why}" if why else ""


def _session(cell: Cell, document: BackupComponents) -> Session:
    """What can be told of the session that made a replica."""
    backup = document.kind is ReplicaKind.BACKUP
    told: dict[str, object] = {"replica": document.session if backup else document.replica}
    if not backup:  # the timeline that it was on stays taken
        timelines = {str(each.component.ref): each.component.facts.get("timeline") for each in document.components}
        told["recovered"] = {ref: {"timeline": number} for ref, number in timelines.items() if number is not None}
    return Session(
        id=document.session,
        kind=SessionKind.BACKUP if backup else SessionKind.RECOVERY,
        specification=document.specification,
        outcome=Outcome.COMPLETED if told["replica"] else Outcome.ABORTED,  # a recovery that was taken back
        started=document.created,
        ended=document.created,
        messages=(Message(cell.clock.now(), "note", "Known again from the document beside its replica."),),
        document=told,
    )
