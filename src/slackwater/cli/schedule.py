# SPDX-License-Identifier: Apache-2.0
"""`slackwater schedule`: enable, disable, list."""

import re
from functools import partial
from typing import Annotated

import typer

from slackwater.cli import completion
from slackwater.cli.app import new_app, verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.options import Json, Target
from slackwater.cli.values import ScheduleChanged, Schedules
from slackwater.cli.waiting import ASKING, waiting
from slackwater.errors import NotFoundError, RefusedError, RightsError, UsageError

_TIME = re.compile(r"([01]?\d|2[0-3]):[0-5]\d")
_Daily = Annotated[str, typer.Option("--daily", metavar="HH:MM", help="Every day at this time, as 02:00.")]
_Hourly = Annotated[bool, typer.Option("--hourly", help="Every hour.")]
_Weekly = Annotated[bool, typer.Option("--weekly", help="Every Monday at midnight.")]
_Calendar = Annotated[
    str, typer.Option("--calendar", metavar="EVENT", help='Any calendar event of systemd, as "Mon..Fri 02:00".')
]
_Scheduled = Annotated[
    str,
    typer.Argument(
        metavar="SPEC|WRITER:COMPONENT", help="What has a schedule.", autocompletion=completion.specifications
    ),
]

schedules = new_app("Take backups by schedule: timers of systemd.")


def join(app: typer.Typer) -> None:
    """Add the noun to the application."""
    app.add_typer(schedules, name="schedule")


@verb(
    schedules,
    "enable",
    "slackwater schedule enable orders --daily 02:00",
    'slackwater schedule enable orders --calendar "Mon..Fri 02,14:30"',
    fails=(NotFoundError, RefusedError, RightsError),
)
def enable(
    target: Target,
    daily: _Daily = "",
    hourly: _Hourly = False,
    weekly: _Weekly = False,
    calendar: _Calendar = "",
    json: Json = False,
) -> ScheduleChanged:
    """Back something up at fixed times from now on.

    A time that was missed, since the machine was off, is made up for. Times are those of the host's time zone.
    """
    event = _event(daily, hourly=hourly, weekly=weekly, calendar=calendar)
    from slackwater.sessions import schedule as sessions

    with waiting(ASKING, unless=json):
        return ScheduleChanged(do(partial(sessions.enable, open_cell(), target, event)), enabled=True)


@verb(
    schedules,
    "disable",
    "slackwater schedule disable orders",
    fails=(NotFoundError, RefusedError, RightsError),
)
def disable(target: _Scheduled, json: Json = False) -> ScheduleChanged:
    """End a schedule.

    A backup that runs goes on; replicas stay.
    """
    from slackwater.sessions import schedule as sessions

    return ScheduleChanged(sessions.disable(target), enabled=False)


@verb(schedules, "list", "slackwater schedule list", fails=(RefusedError,))
def list_schedules(json: Json = False) -> Schedules:
    """List all schedules: when they run next, and how it went last."""
    from slackwater.system.timers import timers

    return Schedules(timers())


def _event(daily: str, *, hourly: bool, weekly: bool, calendar: str) -> str:
    """The calendar event that was asked for.

    Raises:
        UsageError: none was, or several, or what was given is no time of day.
    """
    events = [event for event, asked in (("hourly", hourly), ("weekly", weekly)) if asked]
    if daily:
        if not _TIME.fullmatch(daily):
            raise UsageError(
                f"--daily: {daily!r} is no time of day.", data="Nothing was changed.", hint="As in: --daily 02:00"
            )
        events.append(f"*-*-* {daily}:00")
    if calendar:
        events.append(calendar)
    if len(events) != 1:
        raise UsageError(
            "Say when in one way: --hourly, --daily, --weekly or --calendar.",
            data="Nothing was changed.",
            hint="As in: --daily 02:00",
        )
    return events[0]
