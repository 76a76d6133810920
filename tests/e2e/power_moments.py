# SPDX-License-Identifier: Apache-2.0
"""What a session in the machine has said so far, and the moments at which its power can be cut."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Told:
    """What a command that is under way has said so far, as it is seen from outside."""

    share: str
    number: int

    def events(self) -> list[dict[str, str]]:
        """Its progress."""
        lines = self.text("complaint").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def at(self, event: str, text: str = "") -> str:
        """When it told of something; empty when it did not."""
        return next((each["at"] for each in self.events() if each["event"] == event and text in ("", each["text"])), "")

    @property
    def session(self) -> str:
        return next((each["text"] for each in self.events() if each["event"] == "session"), "")

    @property
    def done(self) -> dict[str, Any] | None:
        """Its answer, when it has come whole."""
        with contextlib.suppress(ValueError):
            return dict(json.loads(self.text("output")))
        return None

    def watched(self) -> list[dict[str, Any]]:
        """Every state of journal and catalog that was seen since it began."""
        with contextlib.suppress(FileNotFoundError), open(f"{self.share}/watched", encoding="utf-8") as f:
            return [json.loads(line) for line in f.read().split("\n")[:-1]]
        return []

    def text(self, name: str) -> str:
        path = f"{self.share}/{name}-{self.number}"
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
        return ""


@dataclass(frozen=True)
class Moment:
    """When the power is to be cut."""

    name: str
    reached: Callable[[Told, float], bool]
    """Whether it has come, by what is seen and how many seconds the session has run."""

    def __str__(self) -> str:
        return self.name


def told(phase: str, delay_s: float = 0.0) -> Moment:
    """A phase was announced, and a while has passed."""
    seen: dict[int, float] = {}

    def reached(told: Told, at_s: float) -> bool:
        if told.number not in seen and told.at("phase", phase):
            seen[told.number] = at_s
        return told.number in seen and at_s >= seen[told.number] + delay_s

    return Moment(phase, reached)


def effect(kind: str, state: str, count: int = 1) -> Moment:
    """So many effects of a kind are in a state, or beyond it."""

    def reached(told: Told, _: float) -> bool:
        ranks = ("intent", "done", "undone")
        return any(
            sum(k == kind and ranks.index(s) >= ranks.index(state) for k, s in each["effects"]) >= count
            for each in told.watched()
        )

    return Moment(f"{kind} {state} {count}", reached)


def decided() -> Moment:
    """It has decided to finish."""
    return Moment("decided", lambda told, _: any(each["decided"] for each in told.watched()))


def rotating() -> Moment:
    """The catalog says that a replica is being deleted."""
    return Moment("rotating", lambda told, _: any(each["deleting"] for each in told.watched()))


def done() -> Moment:
    """It has said that it is done."""
    return Moment("done", lambda told, _: told.done is not None)


def after(delay_s: float) -> Moment:
    """So long after its start."""
    return Moment("at random", lambda _, at_s: at_s >= delay_s)
