# SPDX-License-Identifier: Apache-2.0
"""Values for people: they fit 80 columns, lose nothing, and say what they have to."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from slackwater.cli import words
from slackwater.cli.listing import Listing
from slackwater.cli.render import render, show
from slackwater.cli.statuses import status_of
from slackwater.model.facts import Severity
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Window
from slackwater.model.session import Outcome
from slackwater.sessions.backup import BackupPreview
from slackwater.sessions.clone import CloneResult
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


LISTS = [name for name, value in samples.EACH.items() if any(isinstance(each, Listing) for each in render(value))]


@pytest.mark.parametrize("command", LISTS)
def test_every_value_of_a_list_stays_whole(command: str) -> None:
    text = shown(samples.EACH[command])
    listings = [each for each in render(samples.EACH[command]) if isinstance(each, Listing)]
    cells = [
        cell.plain
        for listing in listings
        for row in listing.rows
        for heading, cell in zip(listing.headings, row, strict=True)
        if heading != "AGE"  # CREATED says it too
    ]
    assert cells
    assert not [word for cell in cells for word in cell.split() if len(word) <= 20 and word not in text]
    assert not [cell for cell in cells if re.match(r"20\d\d-|[a-z]+:", cell) and cell not in text]


def test_lists_that_fit_are_tables_and_others_are_receipts() -> None:
    assert {"replica list", "clone list", "schedule list", "session list", "discover", "spec list"} <= set(LISTS)
    for command in LISTS:
        assert ("─" in shown(samples.EACH[command])) == ("long names" not in command), command
    assert "TYPE" in shown(samples.EACH["replica list of full ones"])
    assert "type         full" in shown(samples.EACH["replica list of long names"])


def test_what_the_other_columns_say_too_goes_first() -> None:
    listing = Listing("NAME", "CREATED", "AGE", spare="AGE")
    listing.add_row("orders", "2026-11-22 19:41 UTC", "3 min ago")
    assert [bool(listing._widths(shown, 36)) for shown in ((0, 1, 2), (0, 1))] == [False, True]
    assert listing._widths((0, 1, 2), 39) == [6, 20, 9]


def test_the_state_of_specifications_loses_nothing() -> None:
    text = shown(samples.EACH["status"])
    for wanted in (
        "orders\n",
        "postgresql:15/main\n",
        "last good    2026-11-22-1, 3 min ago",
        "recoverable  from 2026-10-23 19:41 UTC to 2026-11-22 19:41 UTC",
        "verified     2026-11-22 19:41 UTC",
        "verified     never",
        "failed       2026-11-22-5, 2026-11-22-14",
        "kept         6 + 13 undo",
        "free         12 GiB (12%)",
        "last good  none",
    ):
        assert wanted in text
    assert text.count("failed") == 1


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


def test_a_clone_that_no_engine_runs_on_says_how_it_is_opened() -> None:
    made = samples.CLONES[0]
    document = replace(made.clone.document, reached={"sqlite:/srv/app.db": {"command": "nsenter sqlite3 /srv/app.db"}})
    value = CloneResult("2026-11-22-4", replace(made, clone=replace(made.clone, document=document)), samples.PHASES)
    assert "nsenter sqlite3 /srv/app.db" in shown(value)
    assert "open it" in shown(value)
    assert "open it" not in shown(samples.EACH["clone create"])


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
    assert status_of(samples.EACH["reconcile of nothing"]) == 0
    assert status_of(samples.EACH["reconcile that could not"]) == 10


def test_a_reconcile_explains_what_it_found_and_did() -> None:
    text = " ".join(shown(samples.EACH["reconcile"]).split())
    assert "Session 2026-11-22-9, backup of orders" in text
    assert "The machine was restarted (process 4711) before it had decided that what it made is whole." in text
    assert "undone snapshot of /srv/a/rather" in text
    assert "Session 2026-11-22-8, mount begun - found Its process died after it had decided" in text
    assert "missing replica 2026-11-22-7: it is gone" in text
    assert "left alone session 2026-11-22-4" in text
    stuck = " ".join(shown(samples.EACH["reconcile that could not"]).split())
    assert "not yet put away: it is held" in stuck
    assert "not deleted delete replica 2026-11-22-2: no disk" in stuck
    assert shown(samples.EACH["reconcile of nothing"]).startswith("Nothing was cut off")


def test_the_note_of_other_commands_says_what_and_where_to_read_more() -> None:
    whole, stuck = samples.MENDED.sessions[0], samples.EACH["reconcile that could not"]
    assert isinstance(stuck, ReconcileResult)
    assert whole.in_short == (
        "Session 2026-11-22-9, backup of orders, had been cut off: 1 effect undone."
        " More: slackwater session show 2026-11-22-9"
    )
    assert stuck.sessions[0].in_short == (
        "Session 2026-11-22-9, backup of orders, had been cut off: not put right yet: put away: it is held."
        " More: slackwater reconcile"
    )


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
