# SPDX-License-Identifier: Apache-2.0
"""Values for people: they fit 80 columns, lose nothing, and say what they have to."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from slackwater.cli import words
from slackwater.cli.render import show
from slackwater.cli.statuses import status_of
from slackwater.model.facts import Severity
from slackwater.model.plan import Consistency, Hold, Window
from slackwater.model.session import Outcome
from slackwater.sessions.backup import BackupPreview
from slackwater.sessions.reconcile import ReconcileResult
from tests.unit.cli import samples


def shown(value: object, *, terminal: bool = True) -> str:
    console = Console(
        file=io.StringIO(), width=80, force_terminal=terminal, color_system=None, highlight=False, markup=False
    )
    show(value, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def squeezed(value: object) -> str:
    """The text without the line breaks and blanks of the layout."""
    return "".join(shown(value).split())


@pytest.mark.parametrize("command", samples.EACH)
def test_everything_fits_80_columns(command: str) -> None:
    if command == "status --nagios":
        return  # one line by its nature
    too_long = [line for line in shown(samples.EACH[command]).split("\n") if len(line.rstrip()) > 80]
    assert not too_long


@pytest.mark.parametrize("command", samples.EACH)
def test_nothing_is_cut_off(command: str) -> None:
    assert "…" not in shown(samples.EACH[command])


@pytest.mark.parametrize("command", ["recover --preview", "discover", "replica show"])
def test_long_paths_are_folded(command: str) -> None:
    assert samples.LONG in squeezed(samples.EACH[command])


def test_no_blanks_at_the_ends_of_lines_for_programs() -> None:
    for value in samples.EACH.values():
        assert not [line for line in shown(value, terminal=False).split("\n") if line != line.rstrip()]


def test_the_receipt_of_a_backup() -> None:
    text = shown(samples.BACKUP)
    for wanted in (
        "2026-11-22-1",
        "application-consistent",
        "no hold was needed",
        "freeze 12ms",
        "[carts]",
        "2026-11-15-1",
    ):
        assert wanted in text
    assert 5 <= len(text.strip().split("\n")) <= 12


def test_the_receipt_tells_how_long_the_window_was() -> None:
    held = replace(samples.BACKUP, plan=samples.plan(Hold.PROCESS_FREEZE), window=Window(25.4, 22.1))
    assert "frozen for 25ms, writes held for 22ms" in shown(held)


def test_the_steps_of_a_recovery_are_numbered() -> None:
    text = shown(samples.RECOVERY_PREVIEW)
    assert "  1. Clone the replica" in text
    assert "  3. Exchange." in text
    assert "1h 2m" in text


def test_a_preview_that_is_refused_says_so() -> None:
    refused = BackupPreview("orders", samples.plan(Hold.ATOMIC, samples.REFUSAL), (samples.REFUSAL,))
    assert "would be refused" in shown(refused)
    assert "Move it away." in shown(refused)
    assert status_of(refused) == 5
    assert status_of(samples.EACH["backup --preview"]) == 0


def test_an_interrupted_session_is_named() -> None:
    assert "slackwater reconcile" in shown(samples.EACH["session list"])


def test_exit_statuses_of_values() -> None:
    assert status_of(samples.BACKUP) == 0
    assert status_of(replace(samples.BACKUP, outcome=Outcome.COMPLETED_WITH_FAILURES)) == 10
    assert status_of(replace(samples.BACKUP, consistency=Consistency.CRASH)) == 11
    assert status_of(samples.EACH["catalog check"]) == 1
    assert status_of(samples.EACH["doctor"]) == 1
    assert status_of(samples.EACH["spec check"]) == 2
    assert status_of(samples.EACH["reconcile"]) == 0
    broken = samples.EACH["reconcile"]
    assert isinstance(broken, ReconcileResult)
    mended = replace(broken.sessions[0].mended[0], error="busy")
    assert status_of(replace(broken, sessions=(replace(broken.sessions[0], mended=(mended,)),))) == 10


@pytest.mark.parametrize(
    ("age_s", "said"),
    [(None, "-"), (2, "just now"), (59, "59 s ago"), (200, "3 min ago"), (7200, "2 h ago"), (86400 * 3, "3 days ago")],
)
def test_ages(age_s: float | None, said: str) -> None:
    assert words.ago(age_s) == said


def test_all_words_are_there() -> None:
    assert set(words.HOLDS) == set(Hold)
    assert set(words.OUTCOMES) == set(Outcome)
    assert set(words.CONSISTENCIES) == set(Consistency)
    assert set(words.SEVERITIES) == set(Severity)
