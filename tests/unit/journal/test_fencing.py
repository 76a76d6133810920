# SPDX-License-Identifier: Apache-2.0
"""A process that stood still while another took its session over: whatever it does later, it makes nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slackwater.errors import FencedError
from slackwater.journal.journal import Decision, EffectState, Journal
from slackwater.system.processes import identity, stopped
from tests.unit.journal.test_journal import KINDS, Touch

SESSION = "late"
_VICTIM = """
import os, signal, sys; sys.path.insert(0, {tests!r})
from slackwater.journal.journal import Decision, Journal
from tests.unit.journal.test_journal import KINDS, Touch

class Careless(Journal):
    def check(self, session, *, strictly=True):
        pass

journal = {journal}({path!r}, KINDS)
journal.begin({session!r}, "backup", "1:2:3")
journal.run({session!r}, Touch({folder!r} + "/before"))
late = Touch({folder!r} + "/late")
{stop}
"""
_STOP = "os.kill(os.getpid(), signal.SIGSTOP)"
MOMENTS = {
    "before an intent": f"{_STOP}; journal.run({SESSION!r}, late)",
    "between intent and effect": f"(entry,) = journal.intend({SESSION!r}, [late]); {_STOP}; journal.make(entry, late)",
    "before its undo": f"{_STOP}; journal.revert({SESSION!r}, Touch({{folder!r}} + '/before'))",
    "before its decision": f"{_STOP}; journal.decide({SESSION!r}, Decision.FINISH)",
    "before its end": f"{_STOP}; journal.settle({SESSION!r})",
}


def stand_still(tmp_path: Path, moment: str, journal: str = "Journal") -> subprocess.Popen[bytes]:
    """Start a session that stops itself at a moment, and come back when it stands still."""
    folder = str(tmp_path / "made")
    os.mkdir(folder)
    script = _VICTIM.format(
        tests=str(Path.cwd()), path=str(tmp_path / "journal.sqlite"), folder=folder, session=SESSION, journal=journal,
        stop=MOMENTS[moment].format(folder=folder),
    )  # fmt: skip
    victim = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE)
    while not stopped(identity(victim.pid)):
        assert victim.poll() is None, victim.stderr and victim.stderr.read()
        time.sleep(0.01)
    return victim


def go_on(victim: subprocess.Popen[bytes]) -> str:
    """Let it go on to its end; what it complained of."""
    victim.send_signal(signal.SIGCONT)
    return victim.communicate(timeout=60)[1].decode()


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_late_one_makes_and_writes_nothing(tmp_path: Path, moment: str) -> None:
    victim = stand_still(tmp_path, moment)
    taker = Journal(str(tmp_path / "journal.sqlite"), KINDS)
    taker.take(SESSION)
    before = taker.open_sessions(), taker.entries(SESSION)
    assert "FencedError" in go_on(victim)
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["before"]
    assert (taker.open_sessions(), taker.entries(SESSION)) == before
    assert not [each.error for each in taker.undo(SESSION) if each.error], "the taker goes on"
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.parametrize("moment", ["before an intent", "between intent and effect", "before its end"])
def test_it_makes_nothing_when_all_is_mended_either(tmp_path: Path, moment: str) -> None:
    victim = stand_still(tmp_path, moment)
    taker = Journal(str(tmp_path / "journal.sqlite"), KINDS)
    taker.take(SESSION)
    taker.undo(SESSION)
    taker.settle(SESSION)
    assert "FencedError" in go_on(victim)
    assert list((tmp_path / "made").iterdir()) == []
    assert taker.open_sessions() == []


def test_a_journal_that_does_not_look_is_caught(tmp_path: Path) -> None:
    """The sabotaged twin: mended, and then made after all."""
    victim = stand_still(tmp_path, "between intent and effect", "Careless")
    taker = Journal(str(tmp_path / "journal.sqlite"), KINDS)
    taker.take(SESSION)
    taker.undo(SESSION)
    taker.settle(SESSION)
    assert "FencedError" not in go_on(victim)
    assert [each.name for each in (tmp_path / "made").iterdir()] == ["late"]


WRITES: dict[str, Callable[[Journal, int], object]] = {
    "intend": lambda journal, entry: journal.intend(SESSION, [Touch("/x")]),
    "done": lambda journal, entry: journal.done(entry, {}),
    "decide": lambda journal, entry: journal.decide(SESSION, Decision.FINISH),
    "undo": lambda journal, entry: journal.undo(SESSION),
    "finish": lambda journal, entry: journal.finish(SESSION),
    "settle": lambda journal, entry: journal.settle(SESSION),
}


@pytest.mark.parametrize("write", WRITES)
def test_who_was_fenced_off_by_another_taker_is_late_too(tmp_path: Path, write: str) -> None:
    first, second = (Journal(str(tmp_path / "journal.sqlite"), KINDS) for _ in range(2))
    first.begin(SESSION, "backup", "1:2:3")
    (entry,) = first.intend(SESSION, [Touch(str(tmp_path / "a"))])
    second.take(SESSION)
    with pytest.raises(FencedError):
        WRITES[write](first, entry)
    first.take(SESSION)
    with pytest.raises(FencedError):
        WRITES[write](second, entry)
    assert [each.state for each in first.entries(SESSION)] == [EffectState.INTENT]
    assert first.open_sessions()[0].decision is Decision.OPEN
    WRITES[write](first, entry)


def test_taking_and_settling_what_is_gone_is_nothing(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal.sqlite"), KINDS)
    journal.take("never there")
    journal.settle("never there")
    journal.begin(SESSION, "backup", "1:2:3")
    journal.settle(SESSION)
    journal.settle(SESSION)
    journal.check(SESSION)  # nobody took it over: a verification rotates after its clones are gone


def test_a_journal_of_the_first_version_is_taken_along(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(str(path), KINDS)
    journal.begin(SESSION, "backup", "1:2:3")
    journal.run(SESSION, Touch(str(tmp_path / "a")))
    journal.close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE session DROP COLUMN token")
        database.execute("PRAGMA user_version = 1")
    database.close()
    journal = Journal(str(path), KINDS)
    with pytest.raises(FencedError):
        journal.undo(SESSION)
    journal.take(SESSION)
    assert len(journal.undo(SESSION)) == 1
    assert not (tmp_path / "a").exists()
