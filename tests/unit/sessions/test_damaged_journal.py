# SPDX-License-Identifier: Apache-2.0
"""Sessions whose record cannot be read, or whose plug-in is gone: each is named, and keeps no other waiting."""

import sqlite3
from pathlib import Path

import anyio
import pytest

from slackwater.config.places import Places
from slackwater.journal.effects import EffectKinds
from slackwater.journal.journal import Journal
from slackwater.model.session import SessionKind
from slackwater.sessions import reconcile
from slackwater.sessions.cell import Cell
from slackwater.system.cgroups import Freeze
from tests.unit.journal.test_journal import Stubborn
from tests.unit.sessions.test_forget import DEAD, session

pytestmark = [pytest.mark.root]
DAMAGE = {
    "2026-11-22-1": "UPDATE session SET decision = 'perhaps' WHERE id = ?",
    "2026-11-22-2": "UPDATE effect SET fields = '{' WHERE session = ?",
    "2026-11-22-3": "UPDATE effect SET fields = '{\"no\": 1}' WHERE session = ?",
    "2026-11-22-4": "UPDATE effect SET fields = '[]' WHERE session = ?",
    "2026-11-22-5": "UPDATE effect SET state = 'half' WHERE session = ?",
    "2026-11-22-6": "UPDATE effect SET kind = 'stranger.made' WHERE session = ?",
    "2026-11-22-7": "UPDATE session SET process = '?', decision = 'perhaps' WHERE id = ?",
}
WHOLE = "2026-11-22-8"


def damaged(folder: Path) -> Cell:
    places = Places(str(folder / "etc"), str(folder / "state"), str(folder / "run"))
    places.ensure()
    journal = Journal(places.journal_file, EffectKinds([Stubborn, Freeze]))
    for name in (*DAMAGE, WHOLE):
        journal.begin(name, SessionKind.BACKUP, DEAD)
        journal.run(name, Stubborn("x")) if name != WHOLE else journal.intend(name, [Freeze(name, "/not/there")])
    journal.close()
    with sqlite3.connect(places.journal_file) as database:
        for name, statement in DAMAGE.items():
            database.execute(statement, (name,))
    database.close()
    return Cell(places, writing=True)


def test_what_cannot_be_read_is_named_and_the_others_are_mended(tmp_path: Path) -> None:
    cell = damaged(tmp_path)
    result = anyio.run(reconcile.reconcile, cell)
    assert {each.mended.session for each in result.sessions if each.mended.whole} == {WHOLE}
    assert len(result.unmended) == len(DAMAGE)
    assert cell.host.pending() == list(DAMAGE)
    assert anyio.run(session, cell), "a new session begins all the same"
    for name in DAMAGE:
        reconcile.forget(cell, name)
    assert cell.host.pending() == []
