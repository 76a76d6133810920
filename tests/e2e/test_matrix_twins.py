# SPDX-License-Identifier: Apache-2.0
"""Whether the matrix would see it: each of its checks against a sabotaged twin, or a storage that was harmed."""

import os
import random
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slackwater.system import cgroups
from slackwater.system.command import run
from tests.e2e import strikes
from tests.matrix import cells, facts
from tests.matrix.bank import Ack
from tests.matrix.banking import BankSite, bank_site
from tests.matrix.cells import DEADLY, WINDOW, Cell, Fault, run_cell
from tests.matrix.kinds import KINDS
from tests.matrix.record import Record
from tests.matrix.rounds import moments

pytestmark = [pytest.mark.root]

BACKUP = next(each for each in KINDS if each.name == "backup")


@pytest.fixture(scope="module")
def site() -> Iterator[BankSite]:
    with bank_site("btrfs") as made:
        yield made


def harmed(site: BankSite, replica: str, side: str, sql: str) -> None:
    """Change a copy behind everybody's back; it looks as it was made."""
    (path,) = site.copies(replica, [side]).values()
    run("btrfs", "property", "set", path, "ro", "false")
    with closing(sqlite3.connect(f"{path}/{side}.db", isolation_level=None)) as db:
        db.execute(sql)
    run("btrfs", "property", "set", path, "ro", "true")


@pytest.mark.parametrize(
    ("side", "sql", "said"),
    [
        ("right", "DELETE FROM ledger WHERE n = (SELECT max(n) FROM ledger)", "on the left only"),
        ("left", "DELETE FROM ledger WHERE n = 2", "1 transfers are missing"),
        ("right", "UPDATE account SET balance = balance + 1 WHERE id = 3", "1 accounts do not show"),
        ("right", "UPDATE ledger SET tag = tag + 1 WHERE n = 2", "1 transfers are on the left only"),
    ],
)
def test_a_replica_with_a_row_too_few_or_another_is_no_good_one(site: BankSite, side: str, sql: str, said: str) -> None:
    replica = site.backup("plain")
    assert site.judge(site.replicas()[replica]) == []
    harmed(site, replica, side, sql)
    assert said in " ".join(site.judge(site.replicas()[replica]))
    answer = site.ask("catalog", "check")
    assert answer.status == 1, "a copy that was written to is another than the one that was made"
    site.run("replica", "delete", replica, "--yes")


def test_an_acknowledged_transfer_that_is_not_there_is_missed(site: BankSite) -> None:
    replica = site.backup("plain")
    later = Ack(site.floor().number + 1000, 1)
    site.floors[replica] = later
    assert f"transfer {later.number} was acknowledged" in " ".join(site.judge(site.replicas()[replica]))
    assert f"transfer {later.number} was acknowledged" in " ".join(site.live_complaints(later))
    site.run("replica", "delete", replica, "--yes")


def test_what_is_left_behind_is_seen(site: BankSite) -> None:
    replica = site.backup("plain")
    place = Path(site.disks[0], ".slackwater", "2026-01-01-1")
    place.mkdir()
    assert site.surplus(site.replicas()) == [f"+ place {place.name} empty"]
    place.rmdir()
    mode = os.stat(site.volumes[0]).st_mode & 0o7777
    os.chmod(site.volumes[0], 0)
    assert len(site.surplus(site.replicas())) == 2
    os.chmod(site.volumes[0], mode)
    site.whole("as it was", site.replicas())
    site.run("replica", "delete", replica, "--yes")


def test_an_application_that_stands_still_is_seen(site: BankSite) -> None:
    os.kill(site.application.pid, signal.SIGSTOP)
    try:
        assert not site.goes_on(0.3)
    finally:
        os.kill(site.application.pid, signal.SIGCONT)
    assert site.goes_on()


@pytest.mark.parametrize("fault", [*DEADLY, Fault.GUARD])
def test_a_strike_at_a_session_that_has_ended_is_no_hit(
    site: BankSite, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    """Also where its process still seems to be there."""
    monkeypatch.setattr(cells, "TRIES", 2)
    monkeypatch.setattr(cells, "_reach", lambda _site, _cell, _watch, command, _known: command.wait() == 0)
    monkeypatch.setattr(strikes, "exists", lambda _: True)
    seen = run_cell(site, Cell(BACKUP, "journal: settled", fault), [], random.Random(0))
    assert (seen.hit, seen.tries, seen.outcome) == (False, 2, "completed")
    record = Record("0")
    record.add(site, Cell(BACKUP, "journal: settled", fault), seen)
    assert record.missed() == [f"not hit: sqlite | btrfs | backup | journal: settled | {fault}"]


def test_a_guard_that_is_gone_is_not_killed(site: BankSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record tells of it, and nobody is there any more."""
    monkeypatch.setattr(cells, "TRIES", 2)
    asked: list[Any] = []

    def guard_of(record: Any) -> int:
        asked.append(record)
        return 1 << 22  # no process has this number

    monkeypatch.setattr(strikes, "guard_of", guard_of)
    for fault in (Fault.GUARD, Fault.BOTH):
        seen = run_cell(site, Cell(BACKUP, WINDOW, fault), [], random.Random(0))
        assert (seen.hit, seen.outcome) == (False, "completed")
    assert asked


def test_a_cell_stands_where_it_has_landed(site: BankSite, monkeypatch: pytest.MonkeyPatch) -> None:
    known = moments(site, BACKUP)
    reach, later = cells._reach, known.index("journal: decided finish")

    def late(site: BankSite, cell: Cell, *rest: Any) -> bool:
        return reach(site, replace(cell, moment=known[later]), *rest)

    monkeypatch.setattr(cells, "_reach", late)
    cell, record = Cell(BACKUP, known[0], Fault.KILL), Record("0")
    record.add(site, cell, run_cell(site, cell, known, random.Random(0)))
    (row,) = record.rows()
    assert known.index(row["moment"]) >= later
    assert record.late == 1


def struck_five_times(site: BankSite, cell: Cell) -> None:
    """A kill before the freeze leaves nobody frozen."""
    for _ in range(5):
        run_cell(site, cell, [], random.Random(0))


def test_a_reconcile_that_does_nothing_is_seen() -> None:
    with bank_site("btrfs", "reconcile") as site:
        known = moments(site, BACKUP)
        done = next(each for each in known if each.endswith("snapshot: done"))
        with pytest.raises(AssertionError, match=r"is of a session that was cut off|\+ |differences"):
            run_cell(site, Cell(BACKUP, done, Fault.KILL), known, random.Random(0))


def test_a_guard_that_never_thaws_is_seen() -> None:
    with bank_site("btrfs", "guard") as site:
        site.specify("plain", "keep = 500", "process-freeze")
        cell = Cell(BACKUP, WINDOW, Fault.KILL)
        try:
            with pytest.raises(AssertionError, match="stands still"):
                struck_five_times(site, cell)
        finally:
            for each in Path(cgroups.root()).rglob("cgroup.freeze"):  # a record that names it may be gone
                each.write_text("0", encoding="ascii")


def test_a_lock_that_is_not_taken_is_seen() -> None:
    """Two volumes are then of two moments, and sooner or later a transfer lies between them."""
    with bank_site("btrfs", "lock") as site:
        found: list[str] = []
        for _ in range(200):
            replica = site.backup("plain")
            if found := site.judge(site.replicas()[replica]):
                break
        assert "only" in " ".join(found), found


def test_a_session_that_is_watched_shows_every_entry_of_its_journal(site: BankSite) -> None:
    """A watch that sees nothing would leave nothing to be struck."""
    words = BACKUP.begin(site)
    found = facts.targets(site.lab.state_dir, lambda: site.spawn(*words))
    assert {each.rpartition(": ")[2] for each in found} >= {"intent", "done", "begun", "settled", "session ended"}
    assert sum(each.endswith(": done") for each in found) == 3, found
