# SPDX-License-Identifier: Apache-2.0
"""What a session tells while it runs: phases and messages, silent inside the window.

Whoever listens (a progress bar, a stream of JSON lines) may write to a disk that is being held, so inside the window
events are kept in memory and told after it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from slackwater.model.session import Message, Phase, PhaseRecord
from slackwater.system.clock import Clock


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: a phase began or ended, or something is to be said."""

    at: datetime
    kind: str
    """session, phase (begins), phase-end, note, warning, error or end."""
    text: str
    """The session's id, the phase's name, the message, or how it ended."""
    specification: str = ""
    """Of which the session is, where that is known."""


Listener = Callable[[Event], None]


class Story:
    """Phases and messages of one session, in order."""

    def __init__(self, clock: Clock, listener: Listener | None = None, specification: str = "") -> None:
        self._clock = clock
        self._specification = specification
        self._listener = listener
        self._kept: list[Event] | None = None
        self._phases: list[PhaseRecord] = []
        self._messages: list[Message] = []

    @property
    def phases(self) -> tuple[PhaseRecord, ...]:
        """Phases that have ended, in order."""
        return tuple(self._phases)

    @property
    def messages(self) -> tuple[Message, ...]:
        """Everything that was said."""
        return tuple(self._messages)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Tell the begin and the end of a phase, and keep how long it took, also when it fails."""
        began, began_s = self._clock.now(), self._clock.boot_s()
        self._tell(began, "phase", name)
        try:
            yield
        finally:
            took_ms = (self._clock.boot_s() - began_s) * 1000
            self._phases.append(PhaseRecord(name, began, round(took_ms, 3)))
            self._tell(self._clock.now(), "phase-end", name)

    @contextmanager
    def window(self) -> Iterator[None]:
        """Keep every event in memory until the context ends."""
        self._kept = []
        try:
            yield
        finally:
            kept, self._kept = self._kept, None
            for event in kept or ():
                self._pass_on(event)

    def began(self, session: str) -> None:
        """Tell the session's id."""
        self._tell(self._clock.now(), "session", session)

    def ended(self, how: str) -> None:
        """Tell how the session ended."""
        self._tell(self._clock.now(), "end", how)

    def say(self, severity: str, text: str) -> None:
        """Add a message: note, warning or error."""
        at = self._clock.now()
        self._messages.append(Message(at, severity, text))
        self._tell(at, severity, text)

    def _tell(self, at: datetime, kind: str, text: str) -> None:
        self._pass_on(Event(at, kind, text, self._specification))

    def _pass_on(self, event: Event) -> None:
        if self._kept is not None:
            self._kept.append(event)
        elif self._listener is not None:
            self._listener(event)
