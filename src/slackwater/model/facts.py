# SPDX-License-Identifier: Apache-2.0
"""Small values that every noun carries: facts of foreign systems, and findings about them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

#: What a writer or provider wants to remember for itself: flat, and storable as JSON.
Fact = str | int | float | bool | None
Facts = Mapping[str, Fact]


class Severity(StrEnum):
    """How much a finding matters."""

    NOTE = "note"
    """Worth knowing; changes nothing."""
    WARNING = "warning"
    """Something will be missing, or could go wrong; the session goes on and says so."""
    REFUSAL = "refusal"
    """The session does not start: what it promised could not be kept."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: a stable code, one sentence that names the thing, and what to do next."""

    code: str
    severity: Severity
    sentence: str
    hint: str = ""


def refusal(code: str, sentence: str, hint: str = "") -> Finding:
    """A finding that keeps the session from starting."""
    return Finding(code, Severity.REFUSAL, sentence, hint)
