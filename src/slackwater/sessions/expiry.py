# SPDX-License-Identifier: Apache-2.0
"""What goes by its age: undo replicas, whose recovery is so long ago that nobody will take it back."""

from datetime import timedelta

import anyio
import anyio.lowlevel

from slackwater.errors import NotFoundError, SlackwaterError
from slackwater.model.replica import Replica, ReplicaKind, ReplicaState
from slackwater.policy.retention import expired
from slackwater.sessions.cell import Cell
from slackwater.sessions.target import resolve
from slackwater.sessions.windows import cut_if_known, in_words
from slackwater.system.processes import begun_s

_SEEN_S = 86400.0


def younger(cell: Cell, session: str, seconds: float) -> bool:
    """Whether a session of this boot began less than that long ago, whatever the clock was set to since."""
    try:
        began_s = begun_s(cell.catalog.sessions.get(session).process)
    except NotFoundError:
        return False
    return began_s is not None and 0 <= cell.clock.boot_s() - began_s < seconds


def _aged(cell: Cell, replica: Replica, keep_s: float) -> bool:
    """Whether an undo replica has been there for so long as far as anybody but the clock can tell.

    A clock that is ahead after a restart looks like time that has passed. So some session must have been recorded when
    it had been kept for long enough, and that must be a day ago, or once more as long: by then somebody has seen the
    clock.
    """
    if younger(cell, replica.id, keep_s):
        return False
    due = replica.document.created + timedelta(seconds=keep_s)
    latest = cell.clock.now() - timedelta(seconds=min(_SEEN_S, keep_s))
    return any(due <= each.started <= latest for each in cell.catalog.sessions.list())


def undo_expires(cell: Cell, replica: Replica, keep_s: float) -> bool:
    """Whether an undo replica has been kept for long enough, by the clock and by what else there is to tell."""
    return expired(replica, keep_s, cell.clock.now()) and _aged(cell, replica, keep_s)


async def forget(cell: Cell, replica: Replica) -> None:
    """Delete one replica for good, holding the session's lock; a reconcile goes on where a crash cut it off.

    A request to stop comes before it or after it: it would have to wait for the storage anyway, and so nothing is left.
    """
    await anyio.lowlevel.checkpoint()
    with anyio.CancelScope(shield=True):
        cell.catalog.replicas.set_state(replica.id, ReplicaState.DELETING)
        await cell.host.delete(replica.document)
        cell.catalog.replicas.remove(replica.id)


async def expire_undo(cell: Cell) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Delete the undo replicas that are older than their specification wants them kept, but not what is mounted.

    Returns: which were deleted; what goes with them of the recovery windows, a sentence each; which could not be
        deleted, and why, a sentence each.
    """
    gone: list[str] = []
    lost: list[str] = []
    left: list[str] = []
    for replica in cell.catalog.replicas.list(kind=ReplicaKind.UNDO):
        try:
            specification = resolve(cell, replica.document.specification)
        except SlackwaterError:  # a specification that cannot be read may want it
            continue
        keep_s = specification.recovery.undo_keep
        if undo_expires(cell, replica, keep_s) and not cell.host.presented(replica.document.copies):
            try:
                cut = await cut_if_known(cell, specification, [replica.id])
                await forget(cell, replica)
                gone.append(replica.id)
                lost += map(in_words, cut)
            except SlackwaterError as e:
                left.append(f"delete replica {replica.id}: {e.sentence}")
    return tuple(gone), tuple(lost), tuple(left)


def undo_until(cell: Cell, replica: Replica) -> timedelta | None:
    """How long an undo replica is kept from its making on; None for as long as nobody deletes it."""
    if replica.pinned or replica.state is not ReplicaState.GOOD or not replica.document.replica:
        return None
    try:
        return timedelta(seconds=resolve(cell, replica.document.specification).recovery.undo_keep)
    except SlackwaterError:
        return None
