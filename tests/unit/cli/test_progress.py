# SPDX-License-Identifier: Apache-2.0
"""What a session tells while it runs goes out at once, line by line, and never makes it fail."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from slackwater.cli import progress
from slackwater.errors import UsageError
from slackwater.system.story import Event

AT = datetime(2026, 11, 22, 19, 41, 7, 5000, tzinfo=UTC)
EVENTS = (
    Event(AT, "session", "2026-11-22-1"),
    Event(AT, "phase", "plan"),
    Event(AT + timedelta(milliseconds=40), "phase-end", "plan"),
    Event(AT, "warning", "The unlogged table [carts]."),
)


def _told(capfd: pytest.CaptureFixture[str], how: str) -> str:
    with progress.listening(how) as listener:
        for event in EVENTS:
            if listener:
                listener(event)
    return capfd.readouterr().err


def test_plain(capfd: pytest.CaptureFixture[str]) -> None:
    assert _told(capfd, "plain") == "session 2026-11-22-1\nplan\nwarning: The unlogged table [carts].\n"


def test_auto_is_plain_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert _told(capfd, "auto") == _told(capfd, "plain")


def test_json_has_every_event(capfd: pytest.CaptureFixture[str]) -> None:
    told = [json.loads(line) for line in _told(capfd, "json").splitlines()]
    assert [each["event"] for each in told] == ["session", "phase", "phase-end", "warning"]
    assert told[1] == {"event": "phase", "at": "2026-11-22T19:41:07.005Z", "text": "plan"}


def test_none(capfd: pytest.CaptureFixture[str]) -> None:
    assert _told(capfd, "none") == ""


def test_a_terminal_shows_what_runs_and_then_what_it_took(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "terminal", lambda: True)
    told = _told(capfd, "auto")
    assert "  plan       ..." in told
    assert "plan       40ms\n" in told
    assert told.endswith("\n")


def test_a_phase_that_is_cut_off_ends_its_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "terminal", lambda: True)

    def cut_off() -> None:
        with progress.listening("auto") as listener:
            assert listener is not None
            listener(EVENTS[1])
            raise KeyError

    with pytest.raises(KeyError):
        cut_off()
    assert capfd.readouterr().err.endswith("...\n")


def test_a_reader_that_has_gone_away_is_no_failure() -> None:
    kept = os.dup(2)
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, 2)
    try:
        with progress.listening("json") as listener:
            assert listener is not None
            listener(EVENTS[0])
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(writing)


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(UsageError, match="loud"):
        progress.listening("loud").__enter__()
