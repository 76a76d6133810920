# SPDX-License-Identifier: Apache-2.0
"""Backups by schedule: timers of systemd, one for each specification or component."""

from slackwater.errors import NotFoundError
from slackwater.hosts.rights import require_root
from slackwater.sessions.cell import Cell
from slackwater.sessions.target import resolve, select
from slackwater.system import timers
from slackwater.system.timers import Timer


async def enable(cell: Cell, target: str, calendar: str) -> Timer:
    """Back `target` up at these times from now on; a schedule that it has is replaced.

    Raises:
        NotFoundError: no such specification or component.
        UsageError: the specification is wrong, or that is no calendar event.
        RefusedError: there is no systemd to do it.
    """
    require_root()
    specification = resolve(cell, target)
    if ":" in target:  # nothing else would tell of a slip of the pen before the first night
        select(await cell.host.identify(), specification.components)
    timers.enable(specification.name, calendar)
    return _find(specification.name)


def disable(target: str) -> Timer:
    """End the schedule of `target`, which need not be there any more; returns what it was.

    Raises:
        NotFoundError: it has none.
    """
    require_root()
    ended = _find(target)
    timers.disable(target)
    return ended


def _find(name: str) -> Timer:
    for each in timers.timers():
        if each.name == name:
            return each
    raise NotFoundError(
        f"There is no schedule for {name}.",
        data="Nothing was changed.",
        hint="`slackwater schedule list` shows those there are.",
    )
