# SPDX-License-Identifier: Apache-2.0
"""Taking over a session that stands still while it writes to the journal: only its death lets go of the lock."""

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from slackwater.config.places import Places
from slackwater.model.session import Outcome, SessionKind
from slackwater.sessions.abort import abort
from slackwater.sessions.cell import Cell
from slackwater.system.processes import alive, identity

pytestmark = [pytest.mark.root]
STANDS_STILL = """
import os, signal, sqlite3, sys
sys.stdin.readline()
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_session_that_holds_the_journal_is_killed_and_mended(tmp_path: Path) -> None:
    cell = Cell(Places(str(tmp_path / "etc"), str(tmp_path / "state"), str(tmp_path / "run")), writing=True)
    with subprocess.Popen(
        [sys.executable, "-c", STANDS_STILL, cell.places.journal_file],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            process_id = identity(process.pid)
            session = cell.catalog.sessions.begin(SessionKind.BACKUP, "orders", process_id)
            cell.host.begin(session.id, SessionKind.BACKUP, process_id)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"now\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"held\n"
            cell.host._journal._db.execute("PRAGMA busy_timeout = 200")  # type: ignore[attr-defined]
            ended = anyio.run(lambda: abort(cell, session.id, kill=True))
        finally:
            process.kill()
    assert not alive(process_id)
    assert ended.outcome is not Outcome.RUNNING
    assert list(cell.host.pending()) == []
