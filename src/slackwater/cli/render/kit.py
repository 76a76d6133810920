# SPDX-License-Identifier: Apache-2.0
"""What the values of every noun are shown with: colours, findings, messages, and the list of who shows what."""

from collections.abc import Iterable, Iterator
from functools import singledispatch

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from slackwater.cli import values, words
from slackwater.cli.listing import Listing, receipt_grid
from slackwater.model.facts import Finding, Severity
from slackwater.model.plan import Plan, Window
from slackwater.model.session import Message
from slackwater.policy.retention import Decision

Shown = Iterator[RenderableType]

_STYLES = {
    "good": "green", "ok": "green", "yes": "green", "completed": "green",
    "failed": "bold red", "no": "bold red", "refused": "bold red", "missing": "bold red", "broken": "bold red",
    "not yet": "bold red", "not deleted": "bold red",
    "warning": "yellow", "crash-consistent only": "yellow", "interrupted": "yellow", "aborted": "yellow",
    "deletes": "yellow",
}  # fmt: skip
_SEVERITIES = {Severity.NOTE: "", Severity.WARNING: "yellow", Severity.REFUSAL: "bold red"}


@singledispatch
def render(value: object) -> Shown:
    """The lines and tables of a value."""
    raise TypeError(f"nothing says how {type(value).__name__} is shown")


def word_of(word: str) -> Text:
    """A word in its colour."""
    return Text(word, _STYLES.get(word.lower(), ""))


def outcome_of(shown: values.SessionShown) -> Text:
    """How a session ended, in its colour."""
    return word_of("interrupted" if shown.interrupted else words.OUTCOMES[shown.session.outcome])


def window_of(plan: Plan, window: Window) -> str:
    """How long an application was kept waiting, and by what."""
    if not window.frozen_ms:
        return f"no hold was needed: {words.HOLDS[plan.hold].removeprefix('none ').strip('()')}"
    return held(window.frozen_ms, window.held_ms)


def held(frozen_ms: float, held_ms: float) -> str:
    """How long processes stood still, and nothing was written."""
    return f"frozen for {words.took(frozen_ms)}, writes held for {words.took(held_ms)}"


def add_messages(receipt: Table, messages: Iterable[Message]) -> None:
    """Add what a session said."""
    for each in messages:
        receipt.add_row(each.severity, each.text)


def add_finding(receipt: Table, each: Finding) -> None:
    """Add what was found, and what to do."""
    said = each.sentence + (f"\n-> {each.hint}" if each.hint else "")
    receipt.add_row(Text(words.SEVERITIES[each.severity], _SEVERITIES[each.severity]), said)


def findings_of(findings: Iterable[Finding]) -> Shown:
    """What was found, and what to do."""
    receipt = receipt_grid()
    for each in findings:
        add_finding(receipt, each)
    if receipt.row_count:
        yield receipt


def rotation_of(decisions: Iterable[Decision]) -> Listing:
    """What goes and what stays, and why."""
    table = Listing("REPLICA", "ROTATION", "WHY")
    for each in decisions:
        table.add_row(each.replica, word_of("keeps" if each.keep else "deletes"), each.reason)
    return table
