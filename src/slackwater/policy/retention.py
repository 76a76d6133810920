# SPDX-License-Identifier: Apache-2.0
"""Rotation: which replicas of a specification stay, and why each of the others may go."""

from collections.abc import Iterable
from dataclasses import dataclass

from slackwater.model.plan import Consistency
from slackwater.model.replica import Replica, ReplicaKind, ReplicaState


@dataclass(frozen=True, slots=True)
class Decision:
    """What rotation says about one replica."""

    replica: str
    keep: bool
    reason: str


def rotate(replicas: Iterable[Replica], keep: int) -> tuple[Decision, ...]:
    """Decide for every replica of one specification, newest first; nothing is deleted here.

    The newest `keep` good backups stay. Pinned ones stay beside them and do not count; so does the newest that is
    application-consistent, when all the newer ones are only crash-consistent. Undo replicas are for their owner to
    delete, and what is missing may be on a volume that is just not mounted: neither is touched. The last good backup
    stays, therefore, whatever comes in.

    Raises:
        ValueError: `keep` is below 1, or the replicas are of several specifications, of which each has its own last.
    """
    ordered = sorted(replicas, key=lambda each: (each.document.created, each.id), reverse=True)
    if keep < 1:
        raise ValueError(f"rotation keeps 1 or more, not {keep}")
    if len({each.document.specification for each in ordered}) > 1:
        raise ValueError("rotation decides for one specification at a time")
    counted = [each for each in ordered if _good(each) and not each.pinned]
    newest = {each.id: rank for rank, each in enumerate(counted[:keep], start=1)}
    consistent = next((e.id for e in ordered if _good(e) and e.document.consistency is Consistency.APPLICATION), "")
    return tuple(_decide(each, newest, consistent, keep) for each in ordered)


def _decide(replica: Replica, newest: dict[str, int], consistent: str, keep: int) -> Decision:
    if replica.document.kind is ReplicaKind.UNDO:
        return Decision(replica.id, True, "set aside by a recovery; rotation leaves it alone")
    if replica.state is ReplicaState.DELETING:
        return Decision(replica.id, False, "its deletion was decided before and is not finished")
    if not _good(replica):
        return Decision(replica.id, True, f"{replica.state.value}; it does not count, and rotation leaves it alone")
    if replica.pinned:
        return Decision(replica.id, True, "pinned; it does not count")
    if rank := newest.get(replica.id):
        return Decision(replica.id, True, f"good replica {rank} of the newest {keep}")
    if replica.id == consistent:
        return Decision(replica.id, True, "the newest that is application-consistent")
    return Decision(replica.id, False, f"older than the newest {keep}")


def _good(replica: Replica) -> bool:
    return replica.document.kind is ReplicaKind.BACKUP and replica.state is ReplicaState.GOOD
