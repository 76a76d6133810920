# SPDX-License-Identifier: Apache-2.0
"""`doctor --bundle`: all that a bug report needs, and none of the secrets that lie around."""

import io
import json
import os
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from slackwater.catalog.catalog import Catalog
from slackwater.journal.effects import EffectKinds
from slackwater.journal.journal import Journal
from slackwater.model.replica import ComponentRecord, Replica
from slackwater.model.session import Message, Outcome, SessionKind
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.configuration import ABSENT, PutConfiguration
from tests.unit.cli import samples
from tests.unit.cli.machine import inside
from tests.unit.journal.test_journal import Stubborn

pytestmark = [pytest.mark.root]

PLANTED = (
    "in-the-password-file", "in-a-broken-spec", "in-the-environment", "in-a-dsn", "in-a-message", "in-pg-conf",
    "in-the-service", "named-by-broken", "in-the-journal",
)  # fmt: skip
ALWAYS = {
    "version.json", "doctor.json", "engines.json", "catalog.json", "sessions.json", "journal.json", "storage.json",
    "mountinfo", "os-release", "settings.toml",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with secrets wherever one may lie."""
    for name in ("config/specs.d", "state", "run/guard", "home"):
        (tmp_path / name).mkdir(parents=True, mode=0o755)
    (tmp_path / "pgpass").write_text("*:*:*:me:in-the-password-file\n")
    (tmp_path / "other").write_text("*:*:*:me:named-by-broken\n")
    (tmp_path / "home/.pg_service.conf").write_text("[orders]\npassword=in-the-service\n")
    component = '[[component]]\nwriter = "postgresql"\ninstance = "15/main"\n'
    (tmp_path / "config/specs.d/orders.toml").write_text(f'{component}password_file = "{tmp_path}/pgpass"\n')
    (tmp_path / "config/specs.d/broken.toml").write_text(
        f'{component}password_file = "{tmp_path}/other"\npassword = "in-a-broken-spec"\n'
    )
    (tmp_path / "run/guard/guard.1.json").write_text('{"session": "2026-11-22-1"}')
    text = "It said: in-the-password-file, named-by-broken, in-the-service, postgresql://me:in-a-dsn@host/db"
    with Catalog.open(str(tmp_path / "state/catalog.sqlite"), create=True, clock=SYSTEM_CLOCK) as catalog:
        session = catalog.sessions.begin(SessionKind.BACKUP, "orders", "")
        told = Message(SYSTEM_CLOCK.now(), "error", f"{text}, password=in-a-message")
        catalog.sessions.finish(replace(session, messages=(told,)), Outcome.FAILED)
        record = ComponentRecord(samples.COMPONENT, {}, {"/etc/postgresql.conf": "ssl_passphrase_command='in-pg-conf'"})
        document = replace(samples.replica().document, components=(record,))
        catalog.replicas.add(Replica(document))
    journal = Journal(str(tmp_path / "state/journal.sqlite"), EffectKinds([Stubborn, PutConfiguration]))
    journal.begin("2026-11-22-1", "backup", "1:1:x")
    journal.intend("2026-11-22-1", [Stubborn("used in-the-environment")])
    put = PutConfiguration("2026-11-22-1", "/etc/pg_hba.conf", "ldap: in-the-journal", ABSENT, 1, 1)
    journal.intend("2026-11-22-1", [put])
    journal.close()
    monkeypatch.setenv("MY_API_TOKEN", "in-the-environment")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def members(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        files = [each for each in archive.getmembers() if each.isfile()]
        assert all(each.name.startswith("slackwater-bundle/") for each in files)
        read = {each.name.partition("/")[2]: archive.extractfile(each) for each in files}
        return {name: file.read().decode() for name, file in read.items() if file is not None}


def test_it_holds_everything_and_no_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "report.tar.gz"
    monkeypatch.setattr("tests.unit.cli.machine.environment", lambda _: _environment(folder))
    done = inside(folder, "doctor", "--bundle", str(path), "--json")
    assert done.status == 0, done.err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = members(path)
    assert set(found) == {*ALWAYS, "specs/orders.toml", "specs/broken.toml", "guard/guard.1.json"}
    assert (done.document["parts"], done.document["failed"]) == (list(found), [])
    assert done.document["bytes"] == path.stat().st_size
    documents = {name: json.loads(text) for name, text in found.items() if name.endswith(".json")}
    assert documents["catalog.json"]["replicas"][0]["document"]["components"][0]["configuration"]
    assert documents["sessions.json"][0]["messages"][0]["text"].startswith("It said: [removed]")
    assert documents["journal.json"][0]["effects"][0]["kind"] == "test.stubborn"
    assert {each["name"] for each in documents["doctor.json"]["checks"]} > {"catalog", "journal", "btrfs"}
    assert documents["version.json"]["packages"]["sqlalchemy"] != "not installed"
    assert str(folder / "pgpass") in found["specs/orders.toml"], "where a secret lies is none"
    whole = "".join(found.values())
    assert not [each for each in PLANTED if each in whole]
    raw = b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file()).decode(errors="replace")
    assert all(each in raw for each in PLANTED if each != "in-the-environment"), "they were all there to be found"


def _environment(folder: Path) -> dict[str, str]:
    places = {f"SLACKWATER_{name.upper()}_DIR": str(folder / name) for name in ("config", "state", "run")}
    return {**places, "TZ": "UTC", "COLUMNS": "80"}


def test_whatever_is_broken_the_rest_is_there(folder: Path) -> None:
    (folder / "state/catalog.sqlite").write_bytes(b"no database " * 99)
    (folder / "state/journal.sqlite").write_bytes(b"no database " * 99)
    (folder / "config/slackwater.toml").write_text("[nonsense")
    path = folder / "report.tar.gz"
    done = inside(folder, "doctor", "--bundle", str(path), "--json")
    assert done.status == 0, done.err
    found = members(path)
    assert set(found) >= ALWAYS
    assert set(done.document["failed"]) >= {"catalog.json", "sessions.json", "journal.json"}
    assert "is damaged" in found["catalog.json"]
    assert "[nonsense" in found["settings.toml"]
    assert "FAILED" in found["doctor.json"].upper()


def test_it_is_made_whole_or_not_at_all(folder: Path) -> None:
    path = folder / "report.tar.gz"
    path.write_text("mine")
    assert inside(folder, "doctor", "--bundle", str(path), "--json").status == 2
    assert path.read_text() == "mine"
    none = inside(folder, "doctor", "--bundle", str(folder / "none/report.tar.gz"), "--json")
    assert (none.status, none.document["error"]["data"]) == (1, "It was not made.")
    assert not [each for each in os.listdir(folder) if "report" in each and each != "report.tar.gz"]
    assert io.BytesIO(path.read_bytes()).read(4) == b"mine"
