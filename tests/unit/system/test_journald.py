# SPDX-License-Identifier: Apache-2.0
"""Entries of systemd's journal, on a real socket."""

import os
import socket
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from slackwater.cli.progress import listening
from slackwater.model.session import Phase
from slackwater.system import journald
from slackwater.system.story import Story

AT = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "socket"))
        made.settimeout(5)
        monkeypatch.setattr(journald, "SOCKET", str(tmp_path / "socket"))
        yield made


def read(sink: socket.socket) -> dict[str, str]:
    """One entry, by the rules of the protocol."""
    text, entry = sink.recv(1 << 20), {}
    while text:
        line, _, text = text.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", text[:8])
            value, text = text[8 : 8 + length], text[8 + length + 1 :]
        entry[name.decode()] = value.decode()
    return entry


def test_an_entry_has_its_fields(sink: socket.socket) -> None:
    journald.send("two\nlines = ü", 4, SESSION="2026-11-22-1", SPEC="", PHASE="freeze")
    assert read(sink) == {
        "MESSAGE": "two\nlines = ü",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "slackwater",
        "SESSION": "2026-11-22-1",
        "PHASE": "freeze",
    }


def test_a_long_one_is_cut_and_a_journal_that_is_gone_is_no_failure(sink: socket.socket) -> None:
    journald.send("x" * 1_000_000, 6)
    assert len(read(sink)["MESSAGE"]) == 32 << 10
    sink.close()
    journald.send("nobody reads", 6)


def test_a_session_in_a_unit_tells_the_journal(sink: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")

    class Still:
        def now(self) -> datetime:
            return AT

        def boot_s(self) -> float:
            return 1.0

    with listening("auto") as listener:
        story = Story(Still(), listener, "orders")
        story.say("note", "Waiting.")
        story.began("2026-11-22-1")
        with story.phase(Phase.FREEZE), story.window():
            story.say("warning", "Slow.")
        story.ended("failed: Too late.")
    told = [read(sink) for _ in range(5)]
    assert [(e["MESSAGE"], e["PRIORITY"], e.get("SESSION"), e.get("PHASE"), e["SPEC"]) for e in told] == [
        ("Waiting.", "5", None, None, "orders"),
        ("session 2026-11-22-1", "6", "2026-11-22-1", None, "orders"),
        ("freeze", "6", "2026-11-22-1", "freeze", "orders"),
        ("Slow.", "4", "2026-11-22-1", "freeze", "orders"),
        ("failed: Too late.", "3", "2026-11-22-1", None, "orders"),
    ]


def test_standard_error_that_goes_elsewhere_is_not_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in ("", "1:1", "nonsense"):
        monkeypatch.setenv("JOURNAL_STREAM", stream)
        assert not journald.connected()
