# SPDX-License-Identifier: Apache-2.0
"""The client that measures what an application's clients feel."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from slackwater.hosts import probe
from slackwater.hosts.probe import Gap, probing
from slackwater.system.clock import SYSTEM_CLOCK


class Asked:
    """A writer whose application answers when it is let."""

    def __init__(self, answer: Callable[[], object]) -> None:
        self.answer, self.closed = answer, threading.Event()

    @contextmanager
    def probe(self, _: object) -> Iterator[Callable[[], object]]:
        try:
            yield self.answer
        finally:
            self.closed.set()


COMPONENT: Any = SimpleNamespace(ref="files:/srv", running=True)


def measured(*writers: Any) -> Gap:
    asked = threading.Event()
    with probing([(each, COMPONENT) for each in writers], SYSTEM_CLOCK) as gap:
        asked.wait(0.05)
    return gap


def test_the_longest_time_between_two_answers_is_told() -> None:
    writer = Asked(lambda: None)
    gap = measured(writer)
    assert gap.longest_ms is not None
    assert gap.why == ""
    assert writer.closed.wait(5)


def test_a_client_that_fails_costs_the_number_only() -> None:
    writer = Asked(lambda: 1 / 0)
    gap = measured(writer, Asked(lambda: None))
    assert gap.longest_ms is None
    assert gap.why == "the client of files:/srv got no answer any more (division by zero)"
    assert writer.closed.wait(5)


def test_an_application_that_answers_no_more_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by somebody: a trial would have waited for it to the end of the connection, an hour later."""
    monkeypatch.setattr(probe, "_LAST_S", 0.05)
    answers = threading.Event()
    writer = Asked(lambda: answers.wait(60))
    gap = measured(writer, Asked(lambda: None))
    assert gap.longest_ms is None
    assert gap.why == "the client of files:/srv still waits for an answer"
    assert not writer.closed.is_set()
    answers.set()
    assert writer.closed.wait(5)
