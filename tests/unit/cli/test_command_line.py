# SPDX-License-Identifier: Apache-2.0
"""The real command, where there is nothing to back up: exit statuses, one form of error, one JSON object, no traces."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slackwater import __version__
from slackwater.catalog.catalog import Catalog
from slackwater.cli.main import error_of, main
from slackwater.errors import BusyError
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.locks import SessionLock
from tests.unit.cli.machine import COMMAND, environment, inside, slackwater
from tests.unit.cli.samples import replica

SPEC = """name = "{name}"
[[component]]
writer = "nobody"
instance = "nothing"
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """One good specification of a component that is not there, one broken, two replicas that no storage holds."""
    specs = tmp_path / "config/specs.d"
    specs.mkdir(parents=True)
    (specs / "orders.toml").write_text(SPEC.format(name="orders"), encoding="utf-8")
    (specs / "shop.toml").write_text(SPEC.format(name="shop") + "keeep = 3\n", encoding="utf-8")
    (tmp_path / "state").mkdir(mode=0o700)
    with Catalog.open(str(tmp_path / "state/catalog.sqlite"), create=True, clock=SYSTEM_CLOCK) as catalog:
        catalog.replicas.add(replica("2026-11-21-3"))
        catalog.replicas.add(replica("2026-11-22-1", pinned=True))
    return tmp_path


def test_rotation_is_explained_beforehand(here: Path) -> None:
    listed = json.loads(inside(here, "replica", "list", "orders", "--retention", "--json").out)["replicas"]
    assert [each["retention"] for each in listed] == [
        {"keep": True, "reason": "pinned; it does not count"},
        {"keep": True, "reason": "good replica 1 of the newest 6"},
    ]
    (here / "config/specs.d/orders.toml").unlink()
    (gone, _) = json.loads(inside(here, "replica", "list", "--retention", "--json").out)["replicas"]
    assert gone["retention"]["keep"]
    assert "nothing rotates it: There is no specification 'orders'" in gone["retention"]["reason"]


# -- help and misuse ---------------------------------------------------------------------------------------------------


def test_version(tmp_path: Path) -> None:
    assert slackwater(tmp_path, "--version").out == f"slackwater {__version__}\n"


def test_help_needs_nothing_and_makes_nothing(tmp_path: Path) -> None:
    assert slackwater(tmp_path, "--help").status == 0
    assert "Exit status:" in slackwater(tmp_path, "recover", "-h").out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "status", "hint"),
    [
        ("", 2, "Usage: slackwater"),
        ("replica", 2, "Usage: slackwater replica"),
        ("restore orders", 2, "Did you mean: slackwater recover"),
        ("umount /mnt", 2, "Did you mean: slackwater replica unmount ID"),
        ("backup list", 2, "Did you mean: slackwater replica list"),
        ("recover list", 2, "Did you mean: slackwater replica list"),
        ("replica rm 2026", 2, "Did you mean: slackwater replica delete ID"),
        ("backup", 2, "Missing argument 'SPEC|WRITER:COMPONENT'"),
        ("backup --loud orders", 2, "No such option: --loud"),
        ("backup orders --wait 5", 2, "has no unit"),
        ("backup orders --progress loud", 2, "auto, plain, json or none"),
        ("backup nobody:", 2, "WRITER:NAME"),
        ("backup nobody:nothing --preview", 4, "There is no component nobody:nothing"),
        ("backup files:relative --preview", 4, "absolute path that exists"),
        ("backup files:/no/such --preview", 4, "absolute path that exists"),
        ("recover 2026-11-22-1 --yes", 2, "recover SPEC --replica 2026-11-22-1"),
        ("clone create 2026-11-22-1 --name bad/name", 2, "cannot name a clone"),
        ("backup orders --preview", 4, "There is no component nobody:nothing"),
        ("backup shop --preview", 2, "keeep"),
        ("backup oders", 4, "Did you mean orders"),
        ("recover oders --yes", 4, "Did you mean orders"),
        ("recover orders --undo --yes", 4, "There is no undo replica of orders"),
        ("recover orders --undo --replica 2026-11-22-1", 2, "--undo and --replica"),
        ("replica show 2027", 4, "replica list"),
        ("replica show 2026-11-2", 2, "Write more of it"),
        ("replica list oders", 4, "Did you mean orders"),
        ("replica list --older-than week", 2, "not a duration"),
        ("status oders", 4, "Did you mean orders"),
        ("session show 2026-01-01-1", 4, "session list"),
        ("spec show oders", 4, "Did you mean orders"),
        ("spec check oders", 4, "Did you mean orders"),
        ("spec check shop", 2, "keeep"),
        ("spec create bad/name nobody:nothing", 2, "cannot name a specification"),
        ("spec create new nobody", 2, "WRITER:NAME"),
        ("spec create new nobody:nothing", 4, "There is no component nobody:nothing"),
    ],
)
def test_misuse_costs_nothing_and_says_what_to_do(here: Path, line: str, status: int, hint: str) -> None:
    before = sorted(here.rglob("*"))
    ran = inside(here, *line.split())
    assert (ran.status, hint in ran.err + ran.out) == (status, True), ran
    assert "Traceback" not in ran.err
    assert [path for path in sorted(here.rglob("*")) if not path.name.endswith(("-shm", "-wal"))] == before


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("restore --json", 2, "unknown-command"),
        ("backup --json", 2, "usage"),
        ("backup oders --json", 4, "not-found"),
        ("backup nobody:nothing --preview --json", 4, "no-component"),
        ("replica show 2027 --json", 4, "not-found"),
        ("--json status", 2, "usage"),
    ],
)
def test_errors_as_json_are_one_object_and_nothing_else(here: Path, line: str, status: int, code: str) -> None:
    ran = inside(here, *line.split())
    assert ran.status == status
    assert ran.document["schema_version"] == 1
    error = ran.document["error"]
    assert set(error) == {"code", "sentence", "data", "hint", "exit_status", "retryable"}
    assert (error["code"], error["exit_status"], error["data"]) == (code, status, "Nothing was changed.")
    assert error["hint"]


# -- what can be seen without any application --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "noun"),
    [
        ("discover", "components"),
        ("replica list", "replicas"),
        ("session list", "sessions"),
        ("status", "specifications"),
        ("spec list", "specifications"),
        ("catalog check", "differences"),
    ],
)
def test_looking_makes_nothing(tmp_path: Path, line: str, noun: str) -> None:
    ran = slackwater(tmp_path, *line.split(), "--json")
    assert (ran.status, ran.document["schema_version"]) == (0, 1)
    assert isinstance(ran.document[noun], list)
    assert inside(tmp_path, *line.split()).status == 0
    assert list(tmp_path.iterdir()) == []


def test_lists_are_filtered(here: Path) -> None:
    def ids(*options: str) -> list[str]:
        return [each["id"] for each in inside(here, "replica", "list", *options, "--json").document["replicas"]]

    assert sorted(ids()) == ["2026-11-21-3", "2026-11-22-1"]
    assert len(ids("orders", "--unverified")) == 2
    assert ids("--older-than", "9000d") == []


def test_a_replica_by_the_beginning_of_its_id(here: Path) -> None:
    shown = inside(here, "replica", "show", "2026-11-21", "--json").document["replica"]
    assert (shown["id"], shown["records"][0]["caption"]) == ("2026-11-21-3", "PostgreSQL 15.10 on port 5432")
    assert "[carts]" in inside(here, "replica", "show", "latest").out


def test_specifications_are_shown_with_their_defaults(here: Path) -> None:
    listed = inside(here, "spec", "list", "--json").document["specifications"]
    assert [(each["name"], each["error"] is None) for each in listed] == [("orders", True), ("shop", False)]
    assert listed[0]["replica"] == {
        "keep": 6, "min_redundancy": 1, "type": "snapshot", "verify": "never", "min_free": "10%",
    }  # fmt: skip
    assert listed[0]["options"]["hold"] == "auto"
    assert listed[0]["verify"] == {"query": "", "expect": "", "component": "", "database": ""}
    assert (listed[0]["handling"][0]["component"], listed[0]["handling"][0]["unit"]) == ("nobody:nothing", "")
    assert listed[0]["options"]["hold_timeout_ms"] == 10_000
    shown = inside(here, "spec", "show", "orders")
    assert 'writer = "nobody"' in shown.out


@pytest.mark.parametrize("line", ["spec check site", "backup site --preview"])
def test_a_question_that_nobody_answers_is_misuse_before_anything_is_made(here: Path, line: str) -> None:
    text = 'name = "site"\n[[component]]\nwriter = "files"\ninstance = "/srv/site"\n'
    (here / "config/specs.d/site.toml").write_text(f'{text}[verify]\nquery = "select 1"\nexpect = "1"\n')
    before = sorted(here.rglob("*"))
    ran = inside(here, *line.split())
    assert (ran.status, "files:/srv/site" in ran.out + ran.err, "[verify]" in ran.out + ran.err) == (2, True, True), ran
    assert [path for path in sorted(here.rglob("*")) if not path.name.endswith(("-shm", "-wal"))] == before


def test_all_specifications_are_checked(here: Path) -> None:
    ran = inside(here, "spec", "check", "--json")
    checks = {each["name"]: each for each in ran.document["specifications"]}
    assert ran.status == 4
    assert checks["orders"]["error"]["code"] == "no-component"
    assert checks["shop"]["error"]["code"] == "usage"


def test_the_catalog_differs_from_the_storage(here: Path) -> None:
    ran = inside(here, "catalog", "check", "--json")
    assert ran.status == 1
    assert {(each["replica"], each["kind"]) for each in ran.document["differences"]} == {
        ("2026-11-21-3", "missing"), ("2026-11-22-1", "missing"),
    }  # fmt: skip


def test_a_monitor_reads_one_line(here: Path, tmp_path: Path) -> None:
    ran = inside(here, "status", "--nagios")
    assert ran.status == 1
    assert ran.out.startswith("SLACKWATER ")
    assert ran.out.count("\n") == 1
    assert "shop cannot be read" in ran.out
    unknown = inside(here, "status", "oders", "--nagios")
    assert (unknown.status, unknown.out.startswith("SLACKWATER UNKNOWN - There is no")) == (3, True)


def test_the_doctor_names_what_is_broken(here: Path) -> None:
    ran = inside(here, "doctor", "--json")
    checks = {each["name"]: each for each in ran.document["checks"]}
    assert ran.status == 1
    assert checks["specifications"]["health"] == "failed"
    assert "keeep" in checks["specifications"]["sentence"]
    assert checks["python"]["health"] == "ok"
    (here / "config/specs.d/shop.toml").unlink()
    mended = {each["name"]: each["health"] for each in inside(here, "doctor", "--json").document["checks"]}
    assert mended["specifications"] == "ok"


def test_the_doctor_is_not_stopped_by_a_damaged_catalog(here: Path) -> None:
    (here / "state/catalog.sqlite").write_bytes(b"no database at all " * 300)
    ran = inside(here, "doctor", "--json")
    checks = {each["name"]: each for each in ran.document["checks"]}
    assert (ran.status, checks["catalog"]["health"], checks["journal"]["health"]) == (1, "failed", "note")


# -- rights, questions, ends -------------------------------------------------------------------------------------------


def test_what_destroys_asks_or_refuses(here: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to get as far as the question")
    ran = slackwater(here, "replica", "delete", "2026-11-21-3", "--json")
    assert (ran.status, ran.document["error"]["code"]) == (2, "not-confirmed")
    assert "--yes" in ran.document["error"]["hint"]
    assert len(inside(here, "replica", "list", "--json").document["replicas"]) == 2


def test_the_question_is_asked_on_a_terminal_and_no_means_no(here: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to get as far as the question")
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    ran = subprocess.run(
        [*COMMAND, "replica", "delete", "2026-11-21-3"],
        env=environment(here, {"NO_COLOR": "1"}), stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, timeout=60,
        check=False,
    )  # fmt: skip
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert ran.returncode == 1
    assert "1 other replicas of orders stay." in said
    assert "Not confirmed." in said
    assert "\x1b" not in said
    assert len(inside(here, "replica", "list", "--json").document["replicas"]) == 2


def test_pins_hold(here: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing the catalog needs root")
    assert inside(here, "replica", "delete", "2026-11-22-1", "--yes", "--json").document["error"]["code"] == "pinned"
    assert inside(here, "replica", "unpin", "latest", "--json").document["replica"]["pinned"] is False
    assert inside(here, "replica", "pin", "2026-11-21", "--json").document["replica"]["pinned"] is True
    preview = inside(here, "replica", "delete", "2026-11-22-1", "-n", "--json").document
    assert (preview["preview"], preview["replica"]["id"]) == (True, "2026-11-22-1")


def test_a_reconcile_beside_a_session_says_that_it_is_busy(here: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a reconcile needs root")
    (here / "run").mkdir(mode=0o700)
    with SessionLock(str(here / "run/session.lock")) as lock:
        assert lock.acquire("session 2026-11-22-9")
        ran = inside(here, "reconcile", "--json")
    assert (ran.status, ran.document["error"]["code"]) == (3, "busy")
    assert "2026-11-22-9" in ran.document["error"]["sentence"]


def test_a_reader_that_goes_away_is_not_a_failure(here: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [*COMMAND, "replica", "list"], env=environment(here), stdout=writing, stderr=subprocess.PIPE, timeout=60,
        check=False,
    )  # fmt: skip
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_ctrl_c_before_a_session_is_an_abort(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return object()

    monkeypatch.setattr("slackwater.cli.doctor.open_cell", interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        assert main(["doctor"]) == 1
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Stopped on request" in capsys.readouterr().err


def test_a_defect_shows_no_traceback_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> object:
        raise ZeroDivisionError("seven")

    monkeypatch.setattr("slackwater.cli.doctor.open_cell", broken)
    monkeypatch.delenv("SLACKWATER_DEBUG", raising=False)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError: seven" in said
    assert "slackwater doctor" in said
    assert "Traceback" not in said
    monkeypatch.setenv("SLACKWATER_DEBUG", "1")
    assert main(["doctor", "--json"]) == 1
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert '"internal"' in captured.out


def test_an_error_inside_a_group_is_found() -> None:
    inner = BusyError("Another session runs.")
    assert error_of(ExceptionGroup("several", [ValueError("x"), ExceptionGroup("inner", [inner])])) is inner


def test_folders_that_others_may_write_are_refused(here: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("root alone has to be careful here")
    (here / "config/specs.d/orders.toml").chmod(0o666)
    ran = inside(here, "spec", "show", "orders")
    assert (ran.status, "chmod go-w" in ran.err) == (6, True)


_AS_NOBODY = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from slackwater.cli.main import main

def ran(line):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()):
        return main(line.split()), out.getvalue()

for line in ("doctor --json", "status", "discover --json", "backup nobody:nothing --preview"):
    ran(line)  # imports what nobody may not read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print(json.dumps([ran(line) for line in sys.argv[1:]]))
"""


@pytest.mark.root
def test_without_root_one_may_look_and_no_more(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    places = {f"SLACKWATER_{name}_DIR": f"/nonexistent/sw-{name}" for name in ("CONFIG", "STATE", "RUN")}
    lines = [f"{line} --json" for line in ("status", "backup nobody:nothing", "reconcile", "doctor")]
    ran = subprocess.run(
        [sys.executable, "-c", _AS_NOBODY, *lines], env=environment(tmp_path, places), capture_output=True, text=True,
        timeout=60, check=True, cwd="/",
    )  # fmt: skip
    answers = [(status, json.loads(out)) for status, out in json.loads(ran.stdout)]
    assert [status for status, _ in answers] == [0, 6, 6, 1]
    assert answers[2][1]["error"]["code"] == "permission"
    checks = {each["name"]: each for each in answers[3][1]["checks"]}
    assert (checks["root"]["health"], checks["root"]["hint"]) == ("failed", "Run it with sudo.")
    assert not os.path.exists("/nonexistent")
