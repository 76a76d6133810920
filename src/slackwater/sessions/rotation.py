# SPDX-License-Identifier: Apache-2.0
"""Deleting replicas: by rotation and by hand. Decided in the catalog first, done on the storage, then forgotten."""

from slackwater.errors import RefusedError
from slackwater.model.replica import Replica, ReplicaState
from slackwater.model.session import SessionKind
from slackwater.policy.retention import Decision
from slackwater.policy.retention import rotate as decide
from slackwater.sessions.cell import Cell
from slackwater.sessions.running import running
from slackwater.system.story import Listener


async def rotate(cell: Cell, specification: str, keep: int, *, made: str) -> tuple[Decision, ...]:
    """Delete what a specification's rotation does not keep; each decision with its reason.

    The replica that was just `made` stays, whatever the clock says of it: it is the one that is known to be good.
    """
    replicas = {each.id: each for each in cell.catalog.replicas.list(specification=specification)}
    decided = decide(list(replicas.values()), keep)
    decisions = tuple(Decision(made, True, "just made") if each.replica == made else each for each in decided)
    for decision in decisions:
        if not decision.keep:
            await forget(cell, replicas[decision.replica])
    return decisions


async def forget(cell: Cell, replica: Replica) -> None:
    """Delete one replica for good, holding the session's lock; a reconcile goes on where a crash cut it off."""
    cell.catalog.replicas.set_state(replica.id, ReplicaState.DELETING)
    await cell.host.delete(replica.document)
    cell.catalog.replicas.remove(replica.id)


async def delete(cell: Cell, replica: Replica, *, wait_s: float = 0.0, listener: Listener | None = None) -> str:
    """Delete a replica on request; returns the session's id.

    Raises:
        RefusedError: it is pinned.
    """
    if replica.pinned:
        raise RefusedError(
            f"The replica {replica.id} is pinned.",
            data="Nothing was deleted.",
            hint=f"slackwater replica unpin {replica.id}",
            code="pinned",
        )
    specification = replica.document.specification
    async with running(cell, SessionKind.DELETION, specification, wait_s=wait_s, listener=listener) as run:
        run.document["replica"] = replica.id
        run.keep(f"The deletion of {replica.id} is finished by the next `slackwater reconcile`.")
        await forget(cell, replica)
    return run.id
