# SPDX-License-Identifier: Apache-2.0
"""A session that nobody can put right: it is told, keeps a half-switched host from going on, and can be given up."""

from pathlib import Path

import anyio
import pytest

from slackwater.config.places import Places
from slackwater.errors import NotFoundError, RefusedError
from slackwater.journal.effects import EffectKinds
from slackwater.journal.journal import Journal
from slackwater.model.session import SessionKind
from slackwater.sessions import reconcile
from slackwater.sessions.cell import Cell
from slackwater.sessions.running import running
from tests.unit.journal.test_journal import Stubborn

pytestmark = [pytest.mark.root]
DEAD = "999999999:1:00000000-0000-0000-0000-000000000000"


def cell_with_a_dead(kind: SessionKind, folder: Path) -> Cell:
    places = Places(str(folder / "etc"), str(folder / "state"), str(folder / "run"))
    places.ensure()
    journal = Journal(places.journal_file, EffectKinds([Stubborn]))
    journal.begin("2026-11-22-1", kind, DEAD)
    journal.run("2026-11-22-1", Stubborn("x"))
    journal.close()
    return Cell(places, writing=True)


async def session(cell: Cell) -> str:
    async with running(cell, SessionKind.BACKUP, "orders", wait_s=0, listener=None) as run:
        return run.id


def test_it_is_named_with_what_stands_against_it(tmp_path: Path) -> None:
    cell = cell_with_a_dead(SessionKind.BACKUP, tmp_path)
    (line,) = anyio.run(reconcile.reconcile, cell).unmended
    assert "test.stubborn" in line
    assert cell.host.pending() == ["2026-11-22-1"]


def test_a_backup_that_left_something_keeps_nobody_waiting(tmp_path: Path) -> None:
    assert anyio.run(session, cell_with_a_dead(SessionKind.BACKUP, tmp_path))


def test_a_half_switched_recovery_keeps_others_from_beginning_until_it_is_given_up(tmp_path: Path) -> None:
    cell = cell_with_a_dead(SessionKind.RECOVERY, tmp_path)
    with pytest.raises(RefusedError) as refused:
        anyio.run(session, cell)
    assert refused.value.reason == "half-switched"
    assert cell.catalog.sessions.list() == ()
    reconcile.forget(cell, "2026-11-22-1")
    assert cell.host.pending() == []
    assert anyio.run(session, cell)


def test_only_what_waits_can_be_given_up(tmp_path: Path) -> None:
    cell = cell_with_a_dead(SessionKind.BACKUP, tmp_path)
    with pytest.raises(NotFoundError):
        reconcile.forget(cell, "2026-11-22-9")
