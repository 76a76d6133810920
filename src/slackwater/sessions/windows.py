# SPDX-License-Identifier: Apache-2.0
"""The recovery windows of a specification, found on the storage when they are asked for."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from slackwater.config.specification import Specification
from slackwater.errors import SlackwaterError
from slackwater.model.replica import BackupComponents, Replica, ReplicaKind, ReplicaState
from slackwater.model.target import Loss, Reach
from slackwater.policy.windows import Gap, RecoveryWindow, Span, gaps, lost
from slackwater.sessions.cell import Cell
from slackwater.sessions.target import resolve


@dataclass(frozen=True, slots=True)
class Windows:
    """To which moments an application can be recovered, from each of its replicas on."""

    specification: str
    windows: tuple[RecoveryWindow, ...]
    """The newest first."""
    gaps: tuple[Gap, ...] = ()
    """What is lost of the time since the oldest of them began."""
    losses: tuple[Loss, ...] = ()
    """Transactions by which rows were lost; the newest first."""
    unnamed: str = ""
    """Why some of them are told in numbers of the engine's; empty when none is."""
    unread: tuple[str, ...] = ()
    """Behind which replicas the log was not read to its end, so that some may not be told, each with why."""


async def windows(cell: Cell, target: str) -> Windows:
    """Look how far each good replica of a specification goes forward. Reads only.

    Raises:
        NotFoundError: there is no such specification, and no replica of that name.
    """
    if not cell.catalog.replicas.list(specification=target):
        resolve(cell, target)
    shown = await found(cell, target)
    return Windows(target, shown, gaps(shown, cell.clock.now()))


async def found(cell: Cell, specification: str, without: Collection[str] = ()) -> tuple[RecoveryWindow, ...]:
    """The same, as it would be without some replicas; those of other specifications may hold log, too."""
    mine, holding = on_the_way(cell, specification, without)
    reached = await cell.host.horizons(holding, archive_of(cell, specification)) if mine else {}
    return tuple(_window(each.id, each.document.created, reached.get(each.id)) for each in reversed(mine))


def archive_of(cell: Cell, specification: str) -> str | None:
    """How the archive of a specification's log is asked, see `LogSource`; None for none."""
    return next((each.recovery.asked for each in cell.specifications[0] if each.name == specification), None)


def on_the_way(
    cell: Cell, specification: str, without: Collection[str] = ()
) -> tuple[list[Replica], list[BackupComponents]]:
    """The good replicas of a specification, and all that may hold log of the same components; the oldest first."""
    everything = [each for each in cell.catalog.replicas.list()[::-1] if each.id not in without]
    mine = [
        each
        for each in everything
        if each.document.specification == specification
        and each.document.kind is ReplicaKind.BACKUP
        and each.state is ReplicaState.GOOD
    ]
    sharing = {component for each in mine for component in each.components}
    return mine, [each.document for each in everything if sharing & set(each.components)]


def _window(replica: str, created: datetime, reach: Reach | None) -> RecoveryWindow:
    if reach is None:
        return RecoveryWindow(replica, created, created, why="its copies cannot be reached now")
    if not reach.against:
        return RecoveryWindow(replica, created, None, reach.bytes)
    return RecoveryWindow(replica, created, max(created, reach.at or created), reach.bytes, reach.against)


async def cut_by(cell: Cell, specification: Specification, going: Collection[str]) -> tuple[Span, ...]:
    """The moments that nothing leads to any more when these replicas are gone; only where a log is kept. Reads only."""
    if specification.recovery.logs == "none" or not going:
        return ()
    before = await found(cell, specification.name)
    return lost(before, await found(cell, specification.name, going), cell.clock.now())


async def cut_if_known(cell: Cell, specification: Specification, going: Collection[str]) -> tuple[Span, ...]:
    """The same as far as it can be told: what cannot be looked at now keeps nobody from deleting."""
    try:
        return await cut_by(cell, specification, going)
    except SlackwaterError:
        return ()


def in_words(span: Span) -> str:
    """Say that these moments are lost."""
    since, until = span
    return (
        f"No moment between {since:%Y-%m-%d %H:%M:%S} and {until:%Y-%m-%d %H:%M:%S} UTC can be recovered to any more."
    )
