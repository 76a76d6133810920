# SPDX-License-Identifier: Apache-2.0
"""Putting right what a session left that was cut off, and making catalog and storage agree.

Every session does this before its own work; `slackwater reconcile` does only this, and explains it.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from slackwater.errors import BusyError, NotFoundError, RefusedError, SlackwaterError
from slackwater.hosts.contract import Reconciled
from slackwater.hosts.rights import require_rights
from slackwater.journal.journal import Decision
from slackwater.model.clone import Clone, CloneState
from slackwater.model.replica import Replica, ReplicaKind, ReplicaState
from slackwater.model.session import Message, Outcome, Session, SessionKind
from slackwater.sessions.adopt import adopt, agree_on_pins
from slackwater.sessions.cell import Cell
from slackwater.sessions.compare import compare
from slackwater.sessions.cut_off import CutOff
from slackwater.sessions.expiry import expire_undo, younger
from slackwater.sessions.logs import drop_unwanted
from slackwater.system.locks import SessionLock
from slackwater.system.processes import alive


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """What was found and done."""

    sessions: tuple[CutOff, ...]
    released: tuple[str, ...]
    """Holds that a killed guard had left, a sentence each."""
    adopted: tuple[str, ...]
    """Replicas that were whole on the storage and not yet in the catalog."""
    pinned: tuple[str, ...]
    """Which of them are pinned."""
    aborted: tuple[str, ...]
    """Sessions that the catalog took for running, and whose process is dead."""
    missing: Mapping[str, str]
    """Replicas that the catalog knows and the storage does not hold as they were made, and why."""
    deleted: tuple[str, ...]
    """Replicas whose deletion had been decided, and is now done."""
    kept: tuple[str, ...] = ()
    """Replicas whose deletion had been decided and not begun, and which are by now the last good ones: they stay."""
    clones: tuple[str, ...] = ()
    """Names of clones that had expired, or of which nothing was left, and which are forgotten now."""
    expired: tuple[str, ...] = ()
    """Undo replicas that had been kept for long enough, and are deleted now."""
    lost: tuple[str, ...] = ()
    """Moments that nothing leads to any more without them, a sentence each."""
    left: tuple[str, ...] = ()
    """What lies on the storage with our tag and is left alone, a sentence each."""
    logs: tuple[str, ...] = ()
    """Logs that were kept for nobody any more, a sentence each."""
    undeleted: tuple[str, ...] = ()
    """Replicas and clones whose deletion is decided and cannot be done now, with why."""

    @property
    def unmended(self) -> tuple[str, ...]:
        """What could not be put right now."""
        left = (f"{m.effect}: {m.error}" for each in self.sessions for m in each.mended.mended if m.error)
        return (*left, *self.undeleted)


async def reconcile(cell: Cell) -> ReconcileResult:
    """Put everything right that was cut off.

    Raises:
        BusyError: a session runs; what a killed guard left frozen was released all the same.
    """
    require_rights(cell.places.state_dir)
    cell.places.ensure()
    released = tuple(cell.host.release_leftovers())
    with SessionLock(cell.places.session_lock) as lock:
        if not lock.acquire("reconcile"):
            raise BusyError(
                f"Another session runs: {lock.holder() or 'it has just begun'}.",
                data=" ".join(released) or "Nothing was changed.",
                hint="It puts right what was cut off before its own work; see `slackwater session list`.",
            )
        sessions = _told_of(cell, await cell.host.reconcile())
        adopted = await adopt(cell)
        sessions, compared = await compare(cell, sessions)
        deleted, kept, undeleted = await _finish_deletions(cell)
        expired, lost, unexpired = await expire_undo(cell)
        logs = await drop_unwanted(cell)
        ended, unended = await _end_due_clones(cell)
        return ReconcileResult(
            sessions=sessions,
            released=released,
            adopted=adopted.ids,
            pinned=adopted.pinned,
            deleted=deleted,
            kept=kept,
            expired=expired,
            lost=lost,
            clones=(*ended, *await _forget_gone_clones(cell)),
            aborted=_bury(cell, sessions, compared),
            missing=await _compare(cell),
            left=adopted.left,
            logs=tuple(logs),
            undeleted=(*undeleted, *unended, *unexpired),
        )


async def mend(cell: Cell) -> Sequence[str]:
    """Mend what was cut off, and say so: what every session does first, holding the session's lock."""
    released = cell.host.release_leftovers()
    # An empty catalog may be a new one over old storage, where ids would otherwise be given a second time.
    fresh = not cell.catalog.sessions.list(limit=1)
    ended = [f"The clone {each} had expired and is deleted." for each in (await _end_due_clones(cell))[0]]
    if not cell.host.pending() and not _dead(cell) and not fresh:
        return [*released, *ended]
    sessions = _told_of(cell, await cell.host.reconcile())
    adopted = await adopt(cell)
    sessions, compared = await compare(cell, sessions)
    await _finish_deletions(cell)
    await _forget_gone_clones(cell)
    _bury(cell, sessions, compared)
    refuse_half_switched([each.mended for each in sessions])
    return [*released, *ended, *(each.in_short for each in sessions), *(_told(each) for each in adopted.replicas)]


def _told_of(cell: Cell, sessions: Sequence[Reconciled]) -> tuple[CutOff, ...]:
    """Each with what the catalog knows of it."""
    told = []
    for each in sessions:
        try:
            known = cell.catalog.sessions.get(each.session)
            told.append(CutOff(each, known.specification, known.started))
        except NotFoundError:
            told.append(CutOff(each))
    return tuple(told)


def _told(replica: Replica) -> str:
    said = f"Replica {replica.id} was whole on the storage and not in the catalog. It is now"
    return f"{said}, and is pinned." if replica.pinned else f"{said}."


def refuse_half_switched(sessions: Sequence[Reconciled]) -> None:
    """Refuse to go on beside a recovery that is neither finished nor undone: its volumes may not belong together.

    That its application does not start on what it had before is no reason: it may have been destroyed, and the next
    recovery is what helps.

    Raises:
        RefusedError: with what keeps it from being put right.
    """
    for each in sessions:
        against = [mended for mended in each.mended if mended.error and not mended.unstarted]
        if each.kind == SessionKind.RECOVERY and against:
            first = against[0]
            raise RefusedError(
                f"The recovery {each.session} was cut off and cannot be put right yet: {first.effect}: {first.error}",
                data="Nothing was begun. The volumes of that recovery may not belong together until it is put right.",
                hint="Remove what stands against it, then: slackwater reconcile"
                + (f". Or go back: slackwater session abort {each.session}" if each.found is Decision.STAY else ""),
                code="half-switched",
            )


def forget(cell: Cell, session: str) -> None:
    """Give up on a session that was cut off and cannot be put right; what it left stays as it is.

    Raises:
        NotFoundError: no such session waits to be put right.
    """
    require_rights(cell.places.state_dir)
    if session not in cell.host.pending():
        raise NotFoundError(
            f"No session {session} waits to be put right.",
            data="Nothing was changed.",
            hint="`slackwater status` names those that do.",
        )
    cell.host.take_over(session)
    cell.host.settle(session)


async def _finish_deletions(cell: Cell) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Delete and forget the replicas whose deletion had been decided; one that cannot be deleted now stays decided.

    Returns: which were deleted; which stay, being the last; which were not deleted, and why, a sentence each.
    """
    deleted, kept, left = [], [], []
    for replica in cell.catalog.replicas.list(state=ReplicaState.DELETING):
        try:
            if await _is_the_last(cell, replica):
                cell.catalog.replicas.set_state(replica.id, ReplicaState.GOOD)
                kept.append(replica.id)
                continue
            await cell.host.delete(replica.document)
            cell.catalog.replicas.remove(replica.id)
            deleted.append(replica.id)
        except SlackwaterError as e:
            left.append(f"delete replica {replica.id}: {e.sentence}")
    return tuple(deleted), tuple(kept), tuple(left)


async def _is_the_last(cell: Cell, replica: Replica) -> bool:
    """Whether a backup whose deletion was decided is whole, and the one in whose favour that was is gone since.

    The catalog may not know that yet: each that it calls good is looked for on the storage.
    """
    same = cell.catalog.replicas.list(specification=replica.document.specification, kind=ReplicaKind.BACKUP)
    failed = replica.verification is not None and not replica.verification.passed
    if replica not in same or failed:
        return False
    for each in same:
        if each.state is ReplicaState.GOOD and not await cell.host.missing(each):
            return False
    return not await cell.host.missing(replica)


async def _end_due_clones(cell: Cell) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Delete clones that have expired, or whose deletion had been decided; one that cannot go now stays decided.

    Returns: names of those that were deleted; which were not, and why, a sentence each.
    """
    ended, left = [], []
    for clone in cell.catalog.clones.list(due=cell.clock.now()):
        if not _too_young(cell, clone) and not cell.host.presented(clone.document.copies):
            try:
                cell.catalog.clones.set_deleting(clone.id)
                await cell.host.end_clone(clone.document)
                cell.catalog.clones.remove(clone.id)
                ended.append(clone.name)
            except SlackwaterError as e:
                left.append(f"delete clone {clone.name}: {e.sentence}")
    return tuple(ended), tuple(left)


def _too_young(cell: Cell, clone: Clone) -> bool:
    """Whether a clone has expired only because the clock was set: in this boot, its session began not so long ago."""
    if clone.expires is None or clone.state is CloneState.DELETING:
        return False
    return younger(cell, clone.id, (clone.expires - clone.created).total_seconds())


async def _forget_gone_clones(cell: Cell) -> tuple[str, ...]:
    """Forget clones of which the storage holds nothing: a session was cut off between making and settling them."""
    gone = []
    for clone in cell.catalog.clones.list():
        with suppress(SlackwaterError):
            if await cell.host.clone_missing(clone.document):
                await cell.host.end_clone(clone.document)
                cell.catalog.clones.remove(clone.id)
                gone.append(clone.name)
    return tuple(gone)


def _dead(cell: Cell) -> list[Session]:
    return [each for each in cell.catalog.sessions.running() if not alive(each.process)]


def _bury(cell: Cell, sessions: Sequence[CutOff], compared: Mapping[str, Message]) -> tuple[str, ...]:
    """Record the end of sessions whose process died before it could: completed, if what they were for is there.

    What was done about them is told with them, for `session show`.
    """
    # What is kept of a recovery that was taken back names no replica that it had put in place.
    replicas = cell.catalog.replicas.list()
    finished = {each.id for each in replicas if each.document.kind is ReplicaKind.BACKUP or each.document.replica}
    finished |= {each.id for each in cell.catalog.clones.list()}
    buried = []
    for dead in _dead(cell):
        outcome = Outcome.COMPLETED if dead.id in finished else Outcome.ABORTED
        if dead.id in compared and compared[dead.id].severity == "error":
            outcome = Outcome.COMPLETED_WITH_FAILURES
        told = [line for each in sessions if each.mended.session == dead.id for line in each.story(cell.clock.now())]
        cell.catalog.sessions.finish(replace(dead, messages=(*dead.messages, *told)), outcome)
        buried.append(dead.id)
    return tuple(buried)


async def _compare(cell: Cell) -> Mapping[str, str]:
    """Mark replicas that the storage does not hold as they were made, and those that are back."""
    missing = {}
    for replica in cell.catalog.replicas.list():
        why = await cell.host.missing(replica)
        if why:
            missing[replica.id] = why
        failed = replica.verification is not None and not replica.verification.passed
        state = ReplicaState.MISSING if why else ReplicaState.FAILED if failed else ReplicaState.GOOD
        if replica.state is not ReplicaState.DELETING and replica.state is not state:
            cell.catalog.replicas.set_state(replica.id, state)
    await agree_on_pins(cell)
    return missing
