# SPDX-License-Identifier: Apache-2.0
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from slackwater.catalog import schema
from slackwater.catalog.catalog import Catalog
from slackwater.catalog.database import CatalogError
from slackwater.catalog.schema import VERSIONS
from slackwater.errors import BusyError, RightsError, SlackwaterError, UsageError
from slackwater.model.session import Outcome, SessionKind
from tests.unit.catalog.samples import StandingClock, replica

CLOCK = StandingClock()

CHILD = """
import sys
from slackwater.catalog.catalog import Catalog
from slackwater.model.session import SessionKind
from slackwater.system.clock import SYSTEM_CLOCK
with Catalog.open(sys.argv[1], create=True, clock=SYSTEM_CLOCK) as catalog:
    for _ in range(int(sys.argv[2])):
        print(catalog.sessions.begin(SessionKind.BACKUP, "orders", "").id, flush=True)
"""


def child(path: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", CHILD, path, str(count)], stdout=subprocess.PIPE, text=True)


def content(path: str) -> list[str]:
    with sqlite3.connect(path) as connection:
        return list(connection.iterdump())


def shape(path: str) -> dict[str, list[tuple[object, ...]]]:
    with sqlite3.connect(path) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: connection.execute(f"PRAGMA table_info({name})").fetchall()
            for name in sorted(names)
            if name != "alembic_version"
        }


def test_what_is_stored_is_there_after_it_was_closed(path: str) -> None:
    with Catalog.open(path, create=True, clock=CLOCK) as catalog:
        session = catalog.sessions.begin(SessionKind.BACKUP, "orders", "")
        catalog.replicas.add(replica())
    for create in (True, False):
        with Catalog.open(path, create=create, clock=CLOCK) as catalog:
            assert catalog.sessions.list() == (session,)
            assert catalog.replicas.list() == (replica(),)
            assert catalog.check() == ()


def test_it_is_durable_and_for_its_owner_only(path: str, catalog: Catalog) -> None:
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path + "-wal").st_mode) == 0o600
    with catalog._database.write() as connection:
        asked = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def test_looking_at_none_writes_nothing(path: str) -> None:
    with Catalog.open(path, create=False, clock=CLOCK) as catalog:
        assert catalog.sessions.list() == catalog.sessions.running() == ()
        assert catalog.replicas.list() == ()
        assert catalog.check() == ()
        with pytest.raises(CatalogError, match="readonly"):
            catalog.sessions.begin(SessionKind.BACKUP, "orders", "")
    assert os.listdir(os.path.dirname(path)) == []


def test_looking_at_one_changes_nothing(path: str) -> None:
    with Catalog.open(path, create=True, clock=CLOCK) as catalog:
        catalog.replicas.add(replica())
    before = (Path(path).read_bytes(), os.stat(path).st_mtime_ns)
    with Catalog.open(path, create=False, clock=CLOCK) as catalog:
        assert catalog.replicas.get(replica().id) == replica()
        with pytest.raises(CatalogError, match="readonly"):
            catalog.replicas.remove(replica().id)
    assert (Path(path).read_bytes(), os.stat(path).st_mtime_ns) == before
    assert os.listdir(os.path.dirname(path)) == ["catalog.sqlite"]


def test_migrations_make_the_schema_that_the_code_writes(path: str, tmp_path: Path, catalog: Catalog) -> None:
    direct = str(tmp_path / "direct.sqlite")
    engine = create_engine(f"sqlite:///{direct}")
    schema.metadata.create_all(engine)
    engine.dispose()
    assert shape(path) == shape(direct)
    with sqlite3.connect(direct) as connection:
        connection.execute("ALTER TABLE replicas ADD COLUMN forgotten TEXT")
    assert shape(path) != shape(direct), "the comparison sees a missing column"


def test_every_migration_is_known_and_the_last_is_the_present(path: str, catalog: Catalog) -> None:
    folder = Path(schema.__file__).parent / "migrations" / "versions"
    assert tuple(sorted(each.name[1:5] for each in folder.glob("v*.py"))) == VERSIONS
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(VERSIONS[-1],)]


@pytest.mark.parametrize("create", [True, False])
def test_a_newer_catalog_is_left_alone(path: str, create: bool) -> None:
    Catalog.open(path, create=True, clock=CLOCK).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    before = content(path)
    with pytest.raises(UsageError, match="newer version of slackwater") as caught:
        Catalog.open(path, create=create, clock=CLOCK)
    assert caught.value.exit_status == 2
    assert "Nothing was changed" in caught.value.data
    assert content(path) == before


@pytest.mark.parametrize("create", [True, False])
def test_another_database_is_left_alone(path: str, create: bool) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE accounts (id INTEGER)")
    connection.close()
    before = Path(path).read_bytes()
    with pytest.raises(CatalogError, match="not a catalog of slackwater"):
        Catalog.open(path, create=create, clock=CLOCK)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize("create", [True, False])
def test_what_is_no_database_is_left_alone(path: str, create: bool) -> None:
    Path(path).write_text("no database\n" * 100)
    with pytest.raises(CatalogError, match="damaged") as caught:
        Catalog.open(path, create=create, clock=CLOCK)
    assert "untouched" in caught.value.data
    assert Path(path).read_text() == "no database\n" * 100


def test_torn_pages_are_an_error_of_ours(path: str) -> None:
    with Catalog.open(path, create=True, clock=CLOCK) as catalog:
        for number in range(1, 30):
            catalog.replicas.add(replica(f"2026-11-22-{number}"))
    with open(path, "r+b") as f:
        f.seek(4096)
        f.write(os.urandom(os.stat(path).st_size - 4096))
    with pytest.raises(CatalogError) as caught, Catalog.open(path, create=False, clock=CLOCK) as catalog:
        catalog.replicas.list()
    assert "untouched" in caught.value.data


@pytest.mark.parametrize("change", ["document = '{}'", "document = 'x'", "state = 'lost'", "verified = 'today'"])
def test_a_value_that_cannot_be_read_is_an_error_of_ours(catalog: Catalog, change: str) -> None:
    catalog.replicas.add(replica())
    with catalog._database.write() as connection:
        connection.exec_driver_sql(f"UPDATE replicas SET {change}")
    with pytest.raises(CatalogError, match="holds a value that cannot be read"):
        catalog.replicas.list()


def test_a_full_disk_costs_only_what_did_not_fit(catalog: Catalog) -> None:
    with catalog._database.read() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1")  # as many as there are; SQLite then says that it is full

    def fill() -> None:
        for number in range(1, 99):
            catalog.replicas.add(replica(f"2026-11-22-{number}"))

    with pytest.raises(CatalogError, match="disk is full") as caught:
        fill()
    assert "untouched" in caught.value.data
    assert catalog.replicas.list()
    assert catalog.check() == ()


def test_text_that_cannot_be_stored_is_an_error_of_ours(catalog: Catalog) -> None:
    with pytest.raises(CatalogError, match="cannot store"):
        catalog.replicas.add(replica(reason="\udcff"))
    with pytest.raises(SlackwaterError):
        catalog.sessions.begin(SessionKind.BACKUP, "\udcff", "")
    assert catalog.replicas.list() == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everywhere")
@pytest.mark.parametrize("create", [True, False])
def test_one_that_may_not_be_read_is_not_taken_for_none(path: str, create: bool) -> None:
    Catalog.open(path, create=True, clock=CLOCK).close()
    folder = Path(path).parent
    for where, mode, back in ((Path(path), 0o000, 0o600), (folder, 0o000, 0o700)):
        where.chmod(mode)
        try:
            with pytest.raises(RightsError, match="may not be read"):
                Catalog.open(path, create=create, clock=CLOCK)
        finally:
            where.chmod(back)


def test_a_folder_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="not a file"):
        Catalog.open(str(tmp_path), create=True, clock=CLOCK)
    with pytest.raises(CatalogError, match="cannot be made"):
        Catalog.open(str(tmp_path / "none" / "catalog.sqlite"), create=True, clock=CLOCK)


def test_one_that_is_held_too_long_is_busy(path: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slackwater.catalog.database._BUSY_TIMEOUT_S", 0.05)
    with sqlite3.connect(path, isolation_level=None) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with Catalog.open(path, create=True, clock=CLOCK) as second:
            assert second.sessions.list() == (), "readers go on"
            with pytest.raises(BusyError) as caught:
                second.sessions.begin(SessionKind.BACKUP, "orders", "")
        assert caught.value.exit_status == 3
        holder.execute("ROLLBACK")
    assert catalog.sessions.begin(SessionKind.BACKUP, "orders", "").id == "2026-11-22-1"


def test_many_processes_that_begin_at_once_get_their_own_ids(path: str) -> None:
    children = [child(path, 10) for _ in range(3)]
    given = [line for each in children for line in each.communicate(timeout=60)[0].split()]
    assert [each.returncode for each in children] == [0] * 3
    assert len(given) == len(set(given)) == 30
    with Catalog.open(path, create=False, clock=CLOCK) as catalog:
        assert {each.id for each in catalog.sessions.list()} == set(given)


def test_what_was_acknowledged_survives_sigkill(path: str) -> None:
    writing = child(path, 100_000)
    assert writing.stdout is not None
    acknowledged = [writing.stdout.readline().strip() for _ in range(20)]
    writing.send_signal(signal.SIGKILL)
    acknowledged += writing.stdout.read().split()[:-1]
    writing.wait()
    with Catalog.open(path, create=True, clock=CLOCK) as catalog:
        known = {each.id for each in catalog.sessions.list()}
        assert set(acknowledged) <= known
        assert len(known) <= len(acknowledged) + 2
        assert catalog.check() == ()


def test_killed_in_a_migration_the_next_one_does_it(path: str) -> None:
    killed = """
import os, signal, sys
from alembic import command
upgrade = command.upgrade
def cut_off(*arguments):
    upgrade(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
command.upgrade = cut_off
"""
    run = subprocess.run([sys.executable, "-c", killed + CHILD, path, "1"], check=False, capture_output=True)
    assert run.returncode == -signal.SIGKILL
    with Catalog.open(path, create=False, clock=CLOCK) as catalog:
        assert catalog.sessions.list() == ()
    with Catalog.open(path, create=True, clock=CLOCK) as catalog:
        session = catalog.sessions.begin(SessionKind.BACKUP, "orders", "")
        assert catalog.sessions.finish(session, Outcome.COMPLETED).outcome is Outcome.COMPLETED


def test_opening_an_up_to_date_catalog_does_not_import_alembic(path: str, catalog: Catalog) -> None:
    probe = CHILD + "\nprint(*(name for name in sys.modules if name.startswith('alembic')))"
    run = subprocess.run([sys.executable, "-c", probe, path, "1"], check=True, capture_output=True, text=True)
    assert len(run.stdout.split()) == 1, run.stdout


SECOND = f"""
from alembic import op
import sqlalchemy as sa
revision = "9999"
down_revision = "{VERSIONS[-1]}"
def upgrade():
    op.add_column("replicas", sa.Column("colour", sa.Text))
"""


@pytest.fixture
def older(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog of the version before this one; returns the file of the migration between them."""
    with Catalog.open(path, create=True, clock=CLOCK) as catalog:
        catalog.replicas.add(replica())
    folder = tmp_path / "100% migrations"
    shutil.copytree(Path(schema.__file__).parent / "migrations", folder)
    second = folder / "versions" / "v9999_colours.py"
    second.write_text(SECOND)
    monkeypatch.setattr("slackwater.catalog.migrate._FOLDER", str(folder))
    for module in ("migrate", "catalog"):
        monkeypatch.setattr(f"slackwater.catalog.{module}.VERSIONS", (*VERSIONS, "9999"))
    return second


def test_an_older_catalog_is_brought_up_to_date_with_all_it_holds(path: str, older: Path) -> None:
    with Catalog.open(path, create=True, clock=CLOCK) as catalog:
        assert catalog.replicas.list() == (replica(),)
    assert "colour" in str(shape(path)["replicas"])
    Catalog.open(path, create=True, clock=CLOCK).close()


def test_looking_at_an_older_catalog_leaves_it_as_it_is(path: str, older: Path) -> None:
    before = Path(path).read_bytes()
    with Catalog.open(path, create=False, clock=CLOCK) as catalog:
        assert catalog.replicas.list() == (replica(),)
        with pytest.raises(CatalogError, match="readonly"):
            catalog.replicas.remove(replica().id)
    assert Path(path).read_bytes() == before


def test_a_migration_that_fails_halfway_leaves_the_old_schema(path: str, older: Path) -> None:
    older.write_text(SECOND + "    op.drop_table('no such table')\n")
    before = content(path)
    with pytest.raises(CatalogError, match="no such table"):
        Catalog.open(path, create=True, clock=CLOCK)
    assert content(path) == before
    older.write_text(SECOND)
    test_an_older_catalog_is_brought_up_to_date_with_all_it_holds(path, older)
