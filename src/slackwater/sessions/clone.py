# SPDX-License-Identifier: Apache-2.0
"""Clones for tests: a thin writable copy of a replica with its engine running, apart from everything."""

from dataclasses import dataclass
from datetime import timedelta

from slackwater.config.specification import check_name
from slackwater.errors import RefusedError
from slackwater.model.clone import Clone, CloneKind
from slackwater.model.replica import Replica
from slackwater.model.session import Phase, PhaseRecord, SessionKind
from slackwater.sessions.cell import Cell
from slackwater.sessions.running import running
from slackwater.sessions.target import refuse_going
from slackwater.sessions.verify import order_of
from slackwater.system.story import Listener


@dataclass(frozen=True, slots=True)
class CloneShown:
    """A clone, and how it stands now."""

    clone: Clone
    running: bool
    mounted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CloneResult:
    """A clone that was made."""

    session: str
    shown: CloneShown
    phases: tuple[PhaseRecord, ...]


async def create(
    cell: Cell,
    chosen: Replica,
    name: str,
    ttl_s: float | None,
    *,
    wait_s: float = 0.0,
    listener: Listener | None = None,
) -> CloneResult:
    """Make a clone of a replica, start the engine on it, and keep it.

    Args:
        cell: where.
        chosen: the replica.
        name: of the clone; no other may bear it.
        ttl_s: after how long it is deleted by the next session or reconcile; None for never.
        wait_s: for another session.
        listener: hears the story.

    Raises:
        RefusedError: the name is taken, or the replica's engine could reach the original here.
        VerificationError: the engine does not recover on it; nothing was kept.
    """
    check_name(name, "clone")
    cell.catalog.clones.refuse_taken(name)
    specification = chosen.document.specification
    async with running(cell, SessionKind.CLONE, specification, wait_s=wait_s, listener=listener) as run:
        refuse_going(cell, chosen)
        run.document |= {"replica": chosen.id, "clone": name}
        started = await cell.host.clone(run.id, order_of(cell, chosen.document, run.id, private=False), run.story)
        with run.story.phase(Phase.RECORD):
            now = cell.clock.now()
            clone = Clone(
                id=run.id, name=name, kind=CloneKind.ENGINE, replica=chosen.id, specification=specification,
                created=now, expires=None if ttl_s is None else now + timedelta(seconds=ttl_s),
                document=started.document,
            )  # fmt: skip
            cell.catalog.clones.add(clone)
        run.keep(f"The clone {name} is made and kept.")
    return CloneResult(run.id, show(cell, clone), run.story.phases)


def listed(cell: Cell) -> tuple[CloneShown, ...]:
    """Every clone, newest first."""
    return tuple(show(cell, each) for each in cell.catalog.clones.list())


def show(cell: Cell, clone: Clone) -> CloneShown:
    """How a clone stands: the kernel is asked, not the catalog."""
    return CloneShown(clone, cell.host.clone_runs(clone.document), tuple(cell.host.presented(clone.document.copies)))


async def delete(cell: Cell, name: str, *, wait_s: float = 0.0, listener: Listener | None = None) -> Clone:
    """End the engine of a clone and delete it, with all that was written to it. The replica stays.

    Raises:
        NotFoundError: there is no such clone.
        RefusedError: it is mounted.
    """
    clone = cell.catalog.clones.find(name)
    if where := cell.host.presented(clone.document.copies):
        raise RefusedError(
            f"The clone {name} is mounted at {', '.join(where)}.",
            data="Nothing was deleted.",
            hint=f"slackwater replica unmount {where[0]}",
            code="mounted",
        )
    async with running(cell, SessionKind.CLONE, clone.specification, wait_s=wait_s, listener=listener) as run:
        run.document |= {"replica": clone.replica, "clone": name}
        run.keep(f"The deletion of the clone {name} is finished by the next `slackwater reconcile`.")
        await forget(cell, clone)
    return clone


async def forget(cell: Cell, clone: Clone) -> None:
    """Delete one clone, holding the session's lock; decided first, so that a reconcile goes on where a crash cut it."""
    cell.catalog.clones.set_deleting(clone.id)
    await cell.host.end_clone(clone.document)
    cell.catalog.clones.remove(clone.id)
