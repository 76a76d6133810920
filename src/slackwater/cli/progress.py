# SPDX-License-Identifier: Apache-2.0
"""What a session tells on standard error while it runs.

No thread and no timer: nothing of ours wakes up while an application is held. Every line goes out in one write at once,
and a reader that has gone away never fails a session.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

from slackwater.cli import words
from slackwater.errors import UsageError
from slackwater.system import journald
from slackwater.system.story import Event, Listener

_NOT_PHASES = ("note", "warning", "error")


@contextmanager
def listening(how: str) -> Iterator[Listener | None]:
    """A listener for a session.

    Args:
        how: auto, plain, json or none.

    Raises:
        UsageError: none of these.
    """
    makers: dict[str, Callable[[], Listener | None]] = {
        "auto": lambda: _Journal() if journald.connected() else _Lines() if terminal() else _plain,
        "plain": lambda: _plain,
        "json": lambda: _json,
        "none": lambda: None,
    }
    if how not in makers:
        raise UsageError(
            f"--progress cannot be {how!r}.", data="Nothing was changed.", hint="auto, plain, json or none."
        )
    listener = makers[how]()
    try:
        yield listener
    finally:
        if isinstance(listener, _Lines):
            listener.end()


class _Lines:
    """On a terminal: the phase that runs, then what it took."""

    def __init__(self) -> None:
        self._began: datetime | None = None

    def __call__(self, event: Event) -> None:
        if event.kind == "phase":
            self.end()
            self._began = event.at
            _write(f"  {event.text:<10} ...")
        elif event.kind == "phase-end" and self._began is not None:
            took_ms = (event.at - self._began).total_seconds() * 1000
            self._began = None
            _write(f"\r\x1b[K  {event.text:<10} {words.took(took_ms)}\n")
        elif event.kind == "session":
            self.end()
            _write(f"Session {event.text}\n")
        elif event.kind in _NOT_PHASES:
            self.end()
            _write(f"  {event.kind}: {event.text}\n")

    def end(self) -> None:
        """Finish a line that was begun."""
        if self._began is not None:
            self._began = None
            _write("\n")


class _Journal:
    """In a unit of systemd: entries of its journal, with fields to search by."""

    def __init__(self) -> None:
        self._session = self._phase = ""

    def __call__(self, event: Event) -> None:
        if event.kind == "session":
            self._session = event.text
        if event.kind in ("phase", "phase-end"):
            self._phase = event.text if event.kind == "phase" else ""
        message, priority = _ENTRIES[event.kind]
        if event.kind == "end" and ":" in event.text:
            priority = _ERROR
        if message:
            journald.send(
                message.format(event.text), priority,
                SESSION=self._session, SPEC=event.specification, PHASE=self._phase,
            )  # fmt: skip


_ERROR, _WARNING, _NOTICE, _INFO = 3, 4, 5, 6
_ENTRIES = {
    "session": ("session {}", _INFO),
    "phase": ("{}", _INFO),
    "phase-end": ("", _INFO),
    "note": ("{}", _NOTICE),
    "warning": ("{}", _WARNING),
    "error": ("{}", _ERROR),
    "end": ("{}", _INFO),
}


def _plain(event: Event) -> None:
    if event.kind == "phase":
        _write(f"{event.text}\n")
    elif event.kind == "session":
        _write(f"session {event.text}\n")
    elif event.kind in _NOT_PHASES:
        _write(f"{event.kind}: {event.text}\n")


def _json(event: Event) -> None:
    said = {"event": event.kind, "at": words.rfc3339(event.at), "text": str(event.text)}
    _write(json.dumps(said, ensure_ascii=False) + "\n")


def _write(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode(errors="surrogateescape"))


def terminal() -> bool:
    """Whether somebody watches standard error who can be shown a line that goes again."""
    with suppress(AttributeError, ValueError):
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return False
