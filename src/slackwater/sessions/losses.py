# SPDX-License-Identifier: Apache-2.0
"""Finding the mistake: the transactions by which rows were lost, with the target that goes right before each."""

from collections.abc import Sequence
from dataclasses import replace

from slackwater.errors import AbortedError, NotFoundError, SlackwaterError
from slackwater.model.replica import Replica
from slackwater.model.session import SessionKind
from slackwater.model.target import Loss, Losses
from slackwater.sessions.cell import Cell
from slackwater.sessions.recover import choose
from slackwater.sessions.running import running
from slackwater.sessions.target import refuse_going
from slackwater.sessions.verify import order_of, take_away
from slackwater.sessions.windows import Windows, archive_of, on_the_way, windows
from slackwater.system.story import Listener

#: As many as a person looks at: older log is not read for more.
MOST = 20


async def listed(
    cell: Cell, target: str, most: int | None = None, *, behind: str = "", listener: Listener | None = None
) -> Windows:
    """The recovery windows of a specification, and what was lost in them.

    Where there is something to be named, a session makes a clone of the replica before it, asks that, and takes it away
    again. Where that cannot be, it is told in numbers, with why.

    An archive is asked for all of the log behind one replica, which it may take its time for.

    Args:
        cell: where.
        target: the specification.
        most: no older log is read when so many tables and databases were found lost; None for all of it.
        behind: the replica behind which an archive is asked, see `choose`; empty for the newest.
        listener: hears the story of such a session.

    Raises:
        NotFoundError: there is no such specification, and no replica of that name, or no good one called `behind`.
        AbortedError: it was stopped on request; nothing is left of it.
    """
    shown = await windows(cell, target)
    mine, holding = on_the_way(cell, target)
    ids = [each.id for each in mine]
    asking = choose(cell, target, behind).id if behind else ids[-1] if ids else ""
    if behind and asking not in ids:
        raise NotFoundError(
            f"{asking} is no good replica of a backup, so that nothing goes forward from it.",
            data="Nothing was changed.",
            hint=f"slackwater recover {target} --list shows those there are.",
        )
    archive = archive_of(cell, target)
    told = await cell.host.losses(holding, set(ids), most, archive, asking) if mine else {}
    found: list[Loss] = []
    unnamed = ""
    for each in reversed(mine):
        if (losses := told.get(each.id)) and losses.found:
            try:
                found += await _named(cell, each, losses, listener)
            except AbortedError:
                raise
            except SlackwaterError as e:
                found += losses.found
                unnamed = unnamed or e.sentence
    unread = []
    for name in ids:
        if name in told and (why := told[name].against):
            elsewhere = told[name].lacking and archive is not None and name != asking
            ask = f" (slackwater recover {target} --list --replica {name} asks the archive for it)" if elsewhere else ""
            unread.append(f"{name}: {why.rstrip('.')}{ask}")
    if left := [name for name in ids if name not in told]:
        reads = f"slackwater recover {target} --list --replica {left[-1]} reads on, --json all"
        unread.insert(
            0, f"{' to '.join(dict.fromkeys((left[0], left[-1])))}: so many were found behind newer ones ({reads})"
        )
    return replace(shown, losses=tuple(found), unnamed=unnamed, unread=tuple(unread))


async def _named(cell: Cell, source: Replica, losses: Losses, listener: Listener | None) -> Sequence[Loss]:
    if cell.host.slow_to_clone(source.document):
        raise SlackwaterError(f"To ask {source.id} all of its data would have to be copied.")
    writing = cell.for_writing()
    kind, specification = SessionKind.LISTING, source.document.specification
    async with running(writing, kind, specification, wait_s=0.0, listener=listener) as run:
        refuse_going(writing, source)
        run.document["replica"] = source.id
        order = order_of(writing, source.document, run.id, private=True)
        started = await writing.host.clone(run.id, order, run.story)
        found = await writing.host.name_losses(started, losses)
        await take_away(writing, run)
    return found
