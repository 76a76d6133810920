# SPDX-License-Identifier: Apache-2.0
"""SQLite's own lock makes one moment of copies that were made one after the other, and is known when it was lost."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.errors import DeadlineError, RefusedError
from slackwater.guard.client import Guard
from slackwater.model.component import Component
from slackwater.model.hold import Hold, Keeper
from slackwater.writers._sqlite import locks
from slackwater.writers.sqlite import SqliteWriter
from tests.platform.crowd import eventually, new_folder
from tests.platform.sqlite_support import Application, application, complaints, copy, create

pytestmark = [pytest.mark.root]
WRITER = SqliteWriter()
ALONE = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA locking_mode = EXCLUSIVE")
db.execute("INSERT INTO ledger VALUES (1)")
print("locked", flush=True)
sys.stdin.read()
"""
#: Enough for checkpoints and for the log to begin anew, several times.
PAUSE_S = 0.4


@pytest.fixture
def run_dir() -> Iterator[str]:
    with new_folder() as folder:
        yield str(folder)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "db").mkdir()
    return tmp_path


def component(path: Path) -> Component:
    found = WRITER.find(str(path))
    assert found is not None
    return found


def held_copy(app: Application, target: Path, run_dir: str, keeper: Keeper | None = None) -> tuple[Path, int]:
    """Copy file by file under the lock; the copy, and the last number that was acknowledged before."""
    keeper = keeper or WRITER.keeper(component(app.path))
    with Guard.arm("s1", [], freeze_s=20, hold_s=10, run_dir=run_dir, keepers=[keeper]) as guard:
        before = app.last()
        guard.freeze()
        made = copy(app.path, target, PAUSE_S)
        guard.release()
    return made, before


@pytest.mark.parametrize(("journal", "style"), [("wal", "persistent"), ("wal", "request"), ("delete", "persistent")])
def test_copies_under_the_lock_are_of_one_moment(home: Path, run_dir: str, journal: str, style: str) -> None:
    with application(home / "db" / "app.db", journal, style) as app:
        for number in range(3):
            made, before = held_copy(app, home / f"copy{number}", run_dir)
            assert complaints(made, before) == []
            assert app.goes_on()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_the_oracle_catches_copies_without_the_lock(home: Path, journal: str) -> None:
    with application(home / "db" / "app.db", journal) as app:
        assert any(complaints(copy(app.path, home / f"copy{n}", PAUSE_S), 0) for n in range(25))


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_keeper_that_opens_the_database_again_loses_its_lock_and_knows_it(
    home: Path, run_dir: str, journal: str
) -> None:
    """What happens where the process that copies is the one that has the lock."""
    path = home / "db" / "app.db"
    with application(path, journal) as app:
        honest = WRITER.keeper(component(path))
        again = "; os.close(os.open(keeper.locked, os.O_RDWR)); say(held)"
        taken = 'attempt(keeper, HOLD_S, "held")'
        sloppy = twin(honest, home / "keeper.py", f"say({taken})", f"held = {taken}{again}")
        with pytest.raises(DeadlineError, match="lost: the kernel knows of no lock of ours"):
            held_copy(app, home / "copy", run_dir, sloppy)
        # And one that does not even look would have called torn copies good: the oracle sees them.
        blind = twin(sloppy, home / "blind.py", "why = keeper.lost()", 'why = ""')
        assert any(complaints(*held_copy(app, home / f"blind{n}", run_dir, blind)) for n in range(25))


def twin(keeper: Keeper, path: Path, old: str, new: str) -> Keeper:
    text = Path(keeper.command[-2]).read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return Keeper((*keeper.command[:-2], str(path), keeper.command[-1]))


def test_an_exclusive_lock_of_the_application_is_refused_before_the_window(home: Path, run_dir: str) -> None:
    path = home / "db" / "app.db"
    with application(path, "exclusive") as app:
        keeper = WRITER.keeper(component(path))
        quick = twin(keeper, home / "keeper.py", "TRY_S, HOLD_S = 10.0, 5.0", "TRY_S, HOLD_S = 0.5, 0.5")
        with pytest.raises(RefusedError, match="database is locked") as refused:
            held_copy(app, home / "copy", run_dir, quick)
        assert "process-freeze" in refused.value.hint
        assert app.goes_on()


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_the_lock_is_not_offered_where_a_process_keeps_everybody_out(home: Path, mode: str) -> None:
    path = home / "db" / "app.db"
    create(path, mode)
    alone = [sys.executable, "-c", ALONE, str(path)]
    with subprocess.Popen(alone, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        (found,) = [each for each in WRITER.identify() if each.ref.name == str(path)]
        assert found == component(path)
        assert found.offers == ()
        assert found.findings[0].code == "locked-exclusively"
        assert f"({process.pid})" in found.findings[0].sentence
        assert "application-lock" not in str(found.findings)
        process.stdin.close()
    assert component(path).offers == (Hold.APPLICATION_LOCK,)


def test_a_busy_writer_is_not_taken_for_one_that_keeps_everybody_out(home: Path) -> None:
    """Its transactions take the same lock, again and again; a look by itself is not enough."""
    path = home / "db" / "app.db"
    with application(path, "delete") as app:
        assert eventually(lambda: any(pid == app.process.pid for _, pid in locks._held()), 10)
        assert {component(path).offers for _ in range(5)} == {(Hold.APPLICATION_LOCK,)}
        assert app.goes_on()


def test_a_database_is_found_by_who_has_it_open_and_by_its_name(home: Path) -> None:
    path = home / "db" / "app.db"
    with application(path) as app:
        (found,) = [each for each in WRITER.identify() if each.ref.name == str(path)]
        assert found == component(path)
        assert WRITER.processes(found) == {app.process.pid}
        assert str(app.process.pid) in str(found.facts["held_by"])
        assert found.offers == (Hold.APPLICATION_LOCK,)
        assert found.files[0].path == str(path.parent)
        assert found.files[0].never == ("app.db-shm",)
    assert not [each for each in WRITER.identify() if each.ref.name == str(path)]
    assert component(path).facts.get("held_by") is None
    (home / "link").symlink_to(path)
    assert component(home / "link").facts["path"] == str(path)
    (home / "text").write_text("SQLite format 2, or so" * 10)
    assert WRITER.find(str(home / "text")) is None
    assert WRITER.find(str(home / "nothing")) is None
    assert WRITER.find("app.db") is None


def test_looking_for_databases_drops_nobodys_lock(home: Path) -> None:
    """Also not our own, in a process that has databases open itself."""
    path = home / "db" / "app.db"
    with application(path):
        pass
    ours = sqlite3.connect(path, isolation_level=None)
    ours.execute("PRAGMA journal_mode = DELETE")
    ours.execute("BEGIN IMMEDIATE")
    WRITER.identify()
    component(path)
    stranger = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            stranger.execute("BEGIN IMMEDIATE")
    finally:
        ours.close()
        stranger.close()


def test_a_clone_is_checked_and_damage_is_seen(home: Path) -> None:
    path = home / "db" / "app.db"
    with application(path):
        pass
    found = component(path)
    (path.parent / "app.db-shm").write_text("not an index")
    assert WRITER.rewrite(found, {str(path.parent): str(path.parent)}, {}, (), "s1") == {}
    assert not (path.parent / "app.db-shm").exists()
    assert WRITER.confirm(found, {}, timeout_s=5) == {"quick_check": "ok"}
    with open(path, "r+b") as f:
        f.seek(4096 * 3)
        f.write(b"\xff" * 4096)
    with pytest.raises(Exception, match=r"damaged|malformed"):
        WRITER.confirm(found, {}, timeout_s=5)
