# SPDX-License-Identifier: Apache-2.0
"""Names of instances, and calendar events: what systemd's own programs say decides."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackwater.errors import RefusedError, UsageError
from slackwater.system import services, timers

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-escape"), reason="systemd's programs are not installed")
NAMES = [
    "orders",
    "my-orders",
    "my_orders.2",
    ".x",
    "postgresql:15/main",
    "sqlite:/srv/a b/ü\\x.db",
    "files:/",
    "a%i$x",
]


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_escaped_as_systemd_does(name: str) -> None:
    asked = subprocess.run(
        ["systemd-escape", "--template=slackwater-backup@.timer", "--", name],
        capture_output=True,
        text=True,
        check=True,
    )
    assert timers.timer_of(name) == asked.stdout.strip()


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_an_escaped_name_is_read_back(name: str) -> None:
    assert timers.unescape(timers.escape(name)) == name


@needs_systemd
@pytest.mark.parametrize("calendar", ["hourly", "weekly", "*-*-* 02:00:00", "Mon..Fri 02,14:30", "*:0/15"])
def test_a_calendar_event_is_accepted(calendar: str) -> None:
    timers.check_calendar(calendar)


@pytest.mark.parametrize("calendar", ["", "daily\nOnBootSec=1", "%h", 'x"', "-h"])
def test_what_could_be_more_than_a_calendar_event_is_refused(calendar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if calendar != "-h":
        monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UsageError, match="is no calendar event"):
        timers.check_calendar(calendar)


@needs_systemd
@pytest.mark.parametrize("calendar", ["sometimes", "25:00", "Mon..Xyz"])
def test_systemd_says_what_is_none(calendar: str) -> None:
    with pytest.raises(UsageError, match="is no calendar event"):
        timers.check_calendar(calendar)


@pytest.mark.skipif(services.booted(), reason="systemd runs here")
def test_without_systemd_there_are_no_schedules() -> None:
    for ask in (timers.timers, lambda: timers.enable("orders", "daily"), lambda: timers.disable("orders")):
        with pytest.raises(RefusedError) as caught:
            ask()
        assert caught.value.reason == "no-systemd"
        assert "cron" in caught.value.hint
