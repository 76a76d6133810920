# SPDX-License-Identifier: Apache-2.0
"""Timers of systemd: one instance of our templates `slackwater-backup@` for everything that is backed up by schedule.

The instance's name is what is backed up, escaped as systemd.unit(5) says. When it runs stands in a drop-in of ours
beside the administrator's own, which are left alone.
"""

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from slackwater.errors import RefusedError, SlackwaterError, UsageError
from slackwater.system.command import run
from slackwater.system.services import booted

_UNITS = "/etc/systemd/system"
_STAMPS = "/var/lib/systemd/timers"
_PREFIX = "slackwater-backup@"
_DROP_IN = "schedule.conf"
_PLAIN = re.compile(rb"[A-Za-z0-9:_.]")
_CALENDAR = re.compile(r"[A-Za-z0-9 ,.:*/~_+-]+")
_TEXT = """# Written by `slackwater schedule enable`, and taken away by `slackwater schedule disable`.
[Timer]
OnCalendar=
OnCalendar={calendar}
"""


@dataclass(frozen=True, slots=True)
class Timer:
    """One timer, as systemd knows it."""

    name: str
    """What it backs up."""
    unit: str
    calendar: str
    active: bool
    enabled: bool
    """Whether it is started at boot."""
    next: datetime | None
    last: datetime | None
    result: str
    """How the last run of its service ended, in systemd's words: `success`, `exit-code`, `signal`."""
    status: int
    """Exit status of that run."""


def escape(name: str) -> str:
    """Write a name as part of a unit's name, as systemd-escape(1) does."""
    escaped = [_escaped(byte, first=not at) for at, byte in enumerate(name.encode(errors="surrogateescape"))]
    return "".join(escaped)


def _escaped(byte: int, *, first: bool) -> str:
    if byte == ord("/"):
        return "-"
    plain = _PLAIN.match(bytes([byte])) and not (first and byte == ord("."))
    return chr(byte) if plain else f"\\x{byte:02x}"


def unescape(escaped: str) -> str:
    """Read the name back."""
    slashed = escaped.replace("-", "/").encode()
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), slashed).decode(
        errors="surrogateescape"
    )


def timer_of(name: str) -> str:
    """The unit of the timer for a name."""
    return f"{_PREFIX}{escape(name)}.timer"


def check_calendar(calendar: str) -> None:
    """Refuse what systemd.time(7) does not know as a calendar event.

    Raises:
        UsageError: with systemd's own words, where systemd-analyze is there to ask.
    """
    said = ""
    if not _CALENDAR.fullmatch(calendar):
        said = "it holds a character that no calendar event has"
    elif shutil.which("systemd-analyze"):
        asked = run("systemd-analyze", "calendar", "--", calendar, timeout_s=10, check=False)
        said = "" if asked.status == 0 else (asked.complaint or asked.output.strip() or "systemd does not know it")
    if said:
        raise UsageError(
            f"{calendar!r} is no calendar event: {said.rstrip('.')}.",
            data="Nothing was changed.",
            hint='As in: --calendar "Mon..Fri 02:00", see systemd.time(7).',
        )


def enable(name: str, calendar: str) -> None:
    """Have systemd back something up at these times, from now on and after every boot. Changes what was said before.

    Raises:
        UsageError: no calendar event.
        RefusedError: systemd does not run this host, or our units are not installed.
        SlackwaterError: systemd refused; nothing new is in force.
    """
    check_calendar(calendar)
    _need_units()
    unit = timer_of(name)
    before = _read(_drop_in(unit))
    try:
        _write(_drop_in(unit), _TEXT.format(calendar=calendar))
        _systemctl("daemon-reload")
        _systemctl("enable", "--quiet", unit)
        _systemctl("restart", unit)
    except SlackwaterError:
        _write(_drop_in(unit), before) if before else _remove(_drop_in(unit))
        with suppress(SlackwaterError):
            _systemctl("daemon-reload")
        raise


def disable(name: str) -> None:
    """End a schedule. A backup that runs goes on. Idempotent.

    systemd also forgets when it last ran: one that is enabled anew later has missed nothing.
    """
    _need_systemd()
    unit = timer_of(name)
    _systemctl("disable", "--quiet", "--now", unit)
    _remove(_drop_in(unit))
    with suppress(FileNotFoundError):  # what `systemctl clean` removes, which asks for a message bus
        os.unlink(f"{_STAMPS}/stamp-{unit}")
    _systemctl("daemon-reload")


def timers() -> tuple[Timer, ...]:
    """Every timer of ours: those with a drop-in, and those that somebody enabled or started by hand. Reads only.

    Raises:
        RefusedError: systemd does not run this host.
    """
    _need_systemd()
    units = set(_scheduled()) | set(_loaded())
    return tuple(sorted((_look(unit) for unit in units), key=lambda each: each.name))


def _scheduled() -> Iterable[str]:
    with suppress(FileNotFoundError):
        for entry in os.listdir(_UNITS):
            unit = entry.removesuffix(".d")
            if entry.startswith(_PREFIX) and entry != unit and os.path.exists(_drop_in(unit)):
                yield unit


def _loaded() -> Iterable[str]:
    lines = _systemctl("list-units", "--all", "--plain", "--no-legend", "--no-pager", f"{_PREFIX}*.timer").splitlines()
    return [line.split()[0] for line in lines if line.strip()]


def _look(unit: str) -> Timer:
    asked = _show(unit, "ActiveState", "UnitFileState", "NextElapseUSecRealtime", "LastTriggerUSec", "TimersCalendar")
    ran = _show(unit.removesuffix("timer") + "service", "Result", "ExecMainStatus")
    calendar = re.search(r"OnCalendar=(.*?) ;", asked.get("TimersCalendar", ""))
    status = ran.get("ExecMainStatus", "")
    return Timer(
        name=unescape(unit.removeprefix(_PREFIX).removesuffix(".timer")),
        unit=unit,
        calendar=calendar.group(1) if calendar else "",
        active=asked.get("ActiveState") == "active",
        enabled=asked.get("UnitFileState") == "enabled",
        next=_moment(asked.get("NextElapseUSecRealtime", "")),
        last=_moment(asked.get("LastTriggerUSec", "")),
        result=ran.get("Result", ""),
        status=int(status) if status.isdecimal() else 0,
    )


def _show(unit: str, *properties: str) -> dict[str, str]:
    said = _systemctl("show", f"--property={','.join(properties)}", "--", unit)
    return {key: value for key, _, value in (line.partition("=") for line in said.splitlines())}


def _moment(text: str) -> datetime | None:
    """A time as `systemctl show` prints it with TZ=UTC: `Sun 2026-11-22 02:00:00 UTC`; none is `n/a` or empty."""
    with suppress(ValueError):
        return datetime.strptime(text, "%a %Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    return None


def _drop_in(unit: str) -> str:
    return f"{_UNITS}/{unit}.d/{_DROP_IN}"


def _read(path: str) -> str:
    with suppress(FileNotFoundError), open(path, encoding="utf-8") as f:
        return f.read()
    return ""


def _write(path: str, text: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        with open(f"{path}.new", "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.rename(f"{path}.new", path)
    except OSError as e:
        raise SlackwaterError(f"{path} cannot be written: {e.strerror}.", data="Nothing was changed.") from e


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
    with suppress(OSError):  # the administrator's own drop-ins are in it
        os.rmdir(os.path.dirname(path))


def _systemctl(*words: str) -> str:
    return run("systemctl", *words, timeout_s=60, environment={"TZ": "UTC"}).output


def _need_systemd() -> None:
    if not booted():
        raise RefusedError(
            "Schedules are timers of systemd, which does not run this host.",
            data="Nothing was changed.",
            hint="Have cron run, as root: slackwater backup NAME --wait 1h",
            code="no-systemd",
        )


def _need_units() -> None:
    _need_systemd()
    if not _systemctl("list-unit-files", "--no-legend", "--no-pager", f"{_PREFIX}.timer").strip():
        raise RefusedError(
            f"The unit {_PREFIX}.timer is not installed.",
            data="Nothing was changed.",
            hint="`make install` in the source tree installs it, with the service it starts.",
            code="no-units",
        )
