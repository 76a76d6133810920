# SPDX-License-Identifier: Apache-2.0
"""`slackwater status`: where we stand, for people, programs and monitors."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from slackwater.cli import words
from slackwater.cli.app import verb
from slackwater.cli.frame import do, open_cell
from slackwater.cli.options import Json, MaybeSpec, duration_s, named
from slackwater.cli.values import Nagios
from slackwater.cli.waiting import LOOKING, waiting
from slackwater.errors import NotFoundError, RightsError

if TYPE_CHECKING:
    from slackwater.sessions.status import SpecificationStatus, Status

_OK, _WARNING, _CRITICAL, _UNKNOWN = range(4)
_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")

_Nagios = Annotated[
    bool, typer.Option("--nagios", help="One line for a monitor; exit status 0, 1, 2 or 3 as it reads.")
]
_WarnAge = Annotated[
    str, typer.Option("--warn-age", metavar="DURATION", help="With --nagios: WARNING when the last good one is older.")
]
_CriticalAge = Annotated[
    str,
    typer.Option("--critical-age", metavar="DURATION", help="With --nagios: CRITICAL when the last good one is older."),
]


def join(app: typer.Typer) -> None:
    """Add the command to the application."""
    verb(
        app,
        "status",
        "slackwater status",
        "slackwater status orders --json",
        "slackwater status --nagios --warn-age 26h --critical-age 50h",
        fails=(NotFoundError, RightsError),
    )(status)


def status(
    spec: MaybeSpec = "",
    nagios: _Nagios = False,
    warn_age: _WarnAge = "",
    critical_age: _CriticalAge = "",
    json: Json = False,
) -> object:
    """Show the last good replicas, and what can be turned back to.

    For each specification: its last good replica and the age of that, when it was verified, since when it can be turned
    back, and the room that is left.
    """
    ages = [
        duration_s(text, option) if text else None
        for text, option in ((warn_age, "--warn-age"), (critical_age, "--critical-age"))
    ]
    cell = open_cell()
    from slackwater.sessions import status as sessions

    with waiting(LOOKING, unless=json or nagios):
        found = do(partial(sessions.status, cell, spec))
    if spec and not found.specifications:
        named(cell, spec)
    return monitor(found, warn_s=ages[0], critical_s=ages[1]) if nagios else found


def monitor(found: "Status", *, warn_s: float | None, critical_s: float | None) -> Nagios:
    """Judge a status as a monitor does: the worst of all, in one line, with the numbers behind the bar.

    The form is that of the Monitoring Plugins Development Guidelines.
    """
    judged = [_judge(each, warn_s, critical_s) for each in found.specifications]
    judged += [(_WARNING, f"session {each} was cut off: slackwater reconcile") for each in found.pending]
    judged += [(_WARNING, f"specification {each} cannot be read: slackwater spec check") for each in found.broken]
    if not judged:
        return Nagios("SLACKWATER UNKNOWN - nothing is to be backed up here", _UNKNOWN)
    worst = max(level for level, _ in judged)
    said = "; ".join(text for level, text in sorted(judged, key=lambda pair: -pair[0]))
    numbers = " ".join(_numbers(each, warn_s, critical_s) for each in found.specifications)
    line = f"SLACKWATER {_WORDS[worst]} - {said}".replace("|", "/")
    return Nagios(f"{line} | {numbers}" if numbers else line, worst)


def _judge(each: "SpecificationStatus", warn_s: float | None, critical_s: float | None) -> tuple[int, str]:
    name = each.specification
    if not each.last_good or each.age_s is None:
        return _CRITICAL, f"{name}: no good replica"
    said = f"{name}: {each.last_good}, {words.ago(each.age_s)}"
    if critical_s is not None and each.age_s > critical_s:
        return _CRITICAL, f"{said}, too old"
    if warn_s is not None and each.age_s > warn_s:
        return _WARNING, f"{said}, too old"
    if each.failed:
        return _WARNING, f"{said}; {each.failed[0]} failed its verification"
    if each.low_room:
        return _WARNING, f"{said}; {each.low_room.rstrip('.')}"
    if any(gap.until is None for gap in each.gaps):
        return _WARNING, f"{said}; its log is not whole, so nothing goes beyond that until the next backup"
    return _OK, said


def _numbers(each: "SpecificationStatus", warn_s: float | None, critical_s: float | None) -> str:
    label = each.specification.replace("'", "").replace("=", "")
    limits = ";".join("" if limit is None else f"{limit:.0f}" for limit in (warn_s, critical_s))
    said = []
    if each.age_s is not None:
        said.append(f"'{label} age'={each.age_s:.0f}s;{limits};0")
    said.append(f"'{label} replicas'={each.replicas};;;0")
    if each.free_bytes is not None and each.total_bytes is not None:
        said.append(f"'{label} free'={each.free_bytes}B;;;0;{each.total_bytes}")
    return " ".join(said)
