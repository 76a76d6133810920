# SPDX-License-Identifier: Apache-2.0
"""Putting right what a session left that was cut off, and making catalog and storage agree.

Every session does this before its own work; `slackwater reconcile` does only this, and explains it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from slackwater.errors import BusyError, NotFoundError, RefusedError, SlackwaterError
from slackwater.hosts.contract import Reconciled
from slackwater.hosts.local import require_root
from slackwater.model.replica import Replica, ReplicaState
from slackwater.model.session import Outcome, Session, SessionKind
from slackwater.sessions.cell import Cell
from slackwater.system.locks import SessionLock
from slackwater.system.processes import alive


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """What was found and done."""

    sessions: tuple[Reconciled, ...]
    released: tuple[str, ...]
    adopted: tuple[str, ...]
    """Replicas that were whole on the storage and not yet in the catalog."""
    aborted: tuple[str, ...]
    """Sessions that the catalog took for running, and whose process is dead."""
    missing: tuple[str, ...]
    """Replicas that the catalog knows and the storage does not hold as they were made."""
    deleted: tuple[str, ...]
    """Replicas whose deletion had been decided, and is now done."""

    @property
    def unmended(self) -> tuple[str, ...]:
        """What could not be put right now."""
        return tuple(f"{m.effect}: {m.error}" for each in self.sessions for m in each.mended if m.error)


async def reconcile(cell: Cell) -> ReconcileResult:
    """Put everything right that was cut off.

    Raises:
        BusyError: a session runs; what a killed guard left frozen was released all the same.
    """
    require_root()
    cell.places.ensure()
    released = tuple(cell.host.release_leftovers())
    with SessionLock(cell.places.session_lock) as lock:
        if not lock.acquire("reconcile"):
            raise BusyError(
                f"Another session runs: {lock.holder() or 'it has just begun'}.",
                data=" ".join(released) or "Nothing was changed.",
                hint="It puts right what was cut off before its own work; see `slackwater session list`.",
            )
        sessions = tuple(await cell.host.reconcile())
        return ReconcileResult(
            sessions=sessions,
            released=released,
            adopted=await _adopt(cell),
            deleted=await _finish_deletions(cell),
            aborted=_bury(cell),
            missing=await _compare(cell),
        )


async def mend(cell: Cell) -> Sequence[str]:
    """Mend what was cut off, and say so: what every session does first, holding the session's lock."""
    released = cell.host.release_leftovers()
    # An empty catalog may be a new one over old storage, where ids would otherwise be given a second time.
    fresh = not cell.catalog.sessions.list(limit=1)
    if not cell.host.pending() and not _dead(cell) and not fresh:
        return released
    sessions = await cell.host.reconcile()
    adopted = await _adopt(cell)
    await _finish_deletions(cell)
    _bury(cell)
    refuse_half_switched(sessions)
    told = [f"Session {each.session} had been cut off and was put right." for each in sessions if each.whole]
    told += [
        f"Session {each.session} was cut off; not put right yet: {m.effect}: {m.error}"
        for each in sessions
        for m in each.mended
        if m.error
    ]
    return [*released, *told, *(f"Replica {each} was whole and is now in the catalog." for each in adopted)]


def refuse_half_switched(sessions: Sequence[Reconciled]) -> None:
    """Refuse to go on beside a recovery that is neither finished nor undone: its volumes may not belong together.

    Raises:
        RefusedError: with what keeps it from being put right.
    """
    for each in sessions:
        if each.kind == SessionKind.RECOVERY and not each.whole:
            (first, *_) = [mended for mended in each.mended if mended.error]
            raise RefusedError(
                f"The recovery {each.session} was cut off and cannot be put right yet: {first.effect}: {first.error}",
                data="Nothing was begun. The volumes of that recovery may not belong together until it is put right.",
                hint="Remove what stands against it, then: slackwater reconcile",
                code="half-switched",
            )


def forget(cell: Cell, session: str) -> None:
    """Give up on a session that was cut off and cannot be put right; what it left stays as it is.

    Raises:
        NotFoundError: no such session waits to be put right.
    """
    require_root()
    if session not in cell.host.pending():
        raise NotFoundError(
            f"No session {session} waits to be put right.",
            data="Nothing was changed.",
            hint="`slackwater status` names those that do.",
        )
    cell.host.settle(session)


async def _adopt(cell: Cell) -> tuple[str, ...]:
    """Take into the catalog what is whole on the storage, as it was made."""
    known = {each.id for each in cell.catalog.replicas.list()}
    open_sessions = set(cell.host.pending())
    adopted = []
    for found in await cell.host.found():
        if found.document is None or found.session in known or found.session in open_sessions:
            continue
        replica = Replica(found.document)
        if not await cell.host.missing(replica):
            cell.catalog.replicas.add(replica)
            known.add(found.session)
            adopted.append(found.session)
    return tuple(adopted)


async def _finish_deletions(cell: Cell) -> tuple[str, ...]:
    """Delete and forget the replicas whose deletion had been decided; one that cannot be deleted now stays decided."""
    deleted = []
    for replica in cell.catalog.replicas.list(state=ReplicaState.DELETING):
        with suppress(SlackwaterError):
            await cell.host.delete(replica.document)
            cell.catalog.replicas.remove(replica.id)
            deleted.append(replica.id)
    return tuple(deleted)


def _dead(cell: Cell) -> list[Session]:
    return [each for each in cell.catalog.sessions.running() if not alive(each.process)]


def _bury(cell: Cell) -> tuple[str, ...]:
    """Record the end of sessions whose process died before it could: completed, if what they were for is there."""
    finished = {each.id for each in cell.catalog.replicas.list()}
    buried = []
    for dead in _dead(cell):
        outcome = Outcome.COMPLETED if dead.id in finished else Outcome.ABORTED
        cell.catalog.sessions.finish(dead, outcome)
        buried.append(dead.id)
    return tuple(buried)


async def _compare(cell: Cell) -> tuple[str, ...]:
    """Mark replicas that the storage does not hold as they were made, and those that are back."""
    missing = []
    for replica in cell.catalog.replicas.list():
        why = await cell.host.missing(replica)
        if why:
            missing.append(replica.id)
        state = ReplicaState.MISSING if why else ReplicaState.GOOD
        if replica.state is not ReplicaState.DELETING and replica.state is not state:
            cell.catalog.replicas.set_state(replica.id, state)
    return tuple(missing)
