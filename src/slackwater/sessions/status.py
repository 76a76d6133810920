# SPDX-License-Identifier: Apache-2.0
"""Where we stand: for each specification the last good replica and its age, and what it can be turned back to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from slackwater.model.replica import Replica, ReplicaKind, ReplicaState
from slackwater.model.session import Session
from slackwater.policy.room import enough
from slackwater.policy.windows import Gap, RecoveryWindow, gaps
from slackwater.sessions.cell import Cell
from slackwater.sessions.expiry import undo_until
from slackwater.sessions.windows import found


@dataclass(frozen=True, slots=True)
class UndoKept:
    """What a recovery set aside."""

    replica: str
    created: datetime
    age_s: float
    expires: datetime | None
    """When it has been kept for long enough; None: it stays until somebody deletes it."""


@dataclass(frozen=True, slots=True)
class SpecificationStatus:
    """One specification, or one component that is backed up without one."""

    specification: str
    last_good: str
    """The newest good replica; empty for none."""
    last_good_at: datetime | None
    age_s: float | None
    verified: datetime | None
    recoverable_from: datetime | None
    recoverable_to: datetime | None
    replicas: int
    undo_replicas: int
    last_session: Session | None
    free_bytes: int | None
    total_bytes: int | None
    failed: tuple[str, ...] = ()
    """Replicas whose last verification failed."""
    windows: tuple[RecoveryWindow, ...] = ()
    """Of each good replica, the newest first; empty where no log is kept."""
    gaps: tuple[Gap, ...] = ()
    """What is lost of the time since the oldest of the windows began."""
    undo: tuple[UndoKept, ...] = ()
    """What recoveries set aside, the newest first."""
    low_room: str = ""
    """Why the next backup would be refused for want of room on the live volumes; empty where it would not."""


@dataclass(frozen=True, slots=True)
class Status:
    """The cell's state."""

    specifications: tuple[SpecificationStatus, ...]
    pending: tuple[str, ...]
    """Sessions that were cut off: `slackwater reconcile` puts them right."""
    broken: tuple[str, ...]
    """Specifications that cannot be read."""


async def status(cell: Cell, only: str = "") -> Status:
    """Read the catalog, and the room on the volumes. Reads only."""
    good, broken = cell.specifications
    names = {each.name for each in good} | {each.document.specification for each in cell.catalog.replicas.list()}
    wanted = sorted(name for name in names if not only or name == only)
    return Status(
        specifications=tuple([await _one(cell, name) for name in wanted]),
        pending=tuple(cell.host.pending()),
        broken=tuple(each.name for each in broken),
    )


async def _one(cell: Cell, name: str) -> SpecificationStatus:
    replicas = cell.catalog.replicas.list(specification=name)
    backups = _good(replicas, ReplicaKind.BACKUP)
    newest = backups[-1] if backups else None
    sessions = cell.catalog.sessions.list(specification=name, limit=1)
    room = await cell.host.room(newest.volumes) if newest else None
    windows = await found(cell, name) if _keeps_log(cell, name) else ()
    return SpecificationStatus(
        specification=name,
        last_good=newest.id if newest else "",
        last_good_at=newest.document.created if newest else None,
        age_s=(cell.clock.now() - newest.document.created).total_seconds() if newest else None,
        verified=newest.verified if newest else None,
        recoverable_from=backups[0].document.created if backups else None,
        recoverable_to=newest.document.created if newest else None,
        replicas=len(backups),
        undo_replicas=len(_good(replicas, ReplicaKind.UNDO)),
        last_session=sessions[0] if sessions else None,
        free_bytes=room.free_bytes if room else None,
        total_bytes=room.total_bytes if room else None,
        failed=tuple(each.id for each in replicas if each.state is ReplicaState.FAILED),
        windows=windows,
        gaps=gaps(windows, cell.clock.now()),
        undo=tuple(_undo(cell, each) for each in reversed(_good(replicas, ReplicaKind.UNDO))),
        low_room=await _low_room(cell, name, newest),
    )


async def _low_room(cell: Cell, name: str, newest: Replica | None) -> str:
    asked = [each.replica.min_free for each in cell.specifications[0] if each.name == name]
    for volume in newest.volumes if newest and asked else ():
        room = await cell.host.room([volume])
        if room and (low := enough(room, asked[0], volume.path)):
            return low.sentence
    return ""


def _keeps_log(cell: Cell, name: str) -> bool:
    return any(each.name == name and each.recovery.logs != "none" for each in cell.specifications[0])


def _undo(cell: Cell, replica: Replica) -> UndoKept:
    created, keep = replica.document.created, undo_until(cell, replica)
    age_s = (cell.clock.now() - created).total_seconds()
    return UndoKept(replica.id, created, age_s, created + keep if keep else None)


def _good(replicas: Sequence[Replica], kind: ReplicaKind) -> list[Replica]:
    """Those of some replicas, newest first, that are good and of a kind, oldest first."""
    return [each for each in reversed(replicas) if each.document.kind is kind and each.state is ReplicaState.GOOD]
