# SPDX-License-Identifier: Apache-2.0
"""A TAB completes commands, specifications, ids and words, in real shells' terms, and makes nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from slackwater.catalog.catalog import Catalog
from slackwater.cli import completion
from slackwater.model.session import SessionKind
from slackwater.system.clock import SYSTEM_CLOCK
from tests.unit.cli.machine import environment
from tests.unit.cli.samples import replica


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config/specs.d").mkdir(parents=True)
    for name in ("orders", "orders-old", "shop"):
        (tmp_path / f"config/specs.d/{name}.toml").write_text("", encoding="utf-8")
    (tmp_path / "config/specs.d/.shop.toml.new").write_text("", encoding="utf-8")
    (tmp_path / "state").mkdir()
    with Catalog.open(str(tmp_path / "state/catalog.sqlite"), create=True, clock=SYSTEM_CLOCK) as catalog:
        catalog.replicas.add(replica("2026-11-22-1"))
        catalog.replicas.add(replica("2026-11-21-7"))
        catalog.sessions.begin(SessionKind.BACKUP, "orders", "")
    return tmp_path


def _completed(folder: Path, words: str, kind: str = "bash") -> list[str]:
    number = str(len(words.split()) - (not words.endswith(" ")))
    more = {"_SLACKWATER_COMPLETE": f"complete_{kind}", "COMP_WORDS": words, "COMP_CWORD": number}
    more["_TYPER_COMPLETE_ARGS"] = words
    ran = subprocess.run(
        [sys.executable, "-m", "slackwater"], env=environment(folder, more), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert ran.stderr == ""
    return ran.stdout.split("\n" if kind == "bash" else None)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("slackwater rec", ["recover", "reconcile"]),
        ("slackwater backup ", ["orders", "orders-old", "shop"]),
        ("slackwater backup sh", ["shop"]),
        ("slackwater recover orders --replica ", ["2026-11-21-7", "2026-11-22-1", "latest"]),
        ("slackwater recover orders --replica 2026-11-22", ["2026-11-22-1"]),
        ("slackwater replica show la", ["latest"]),
        ("slackwater backup orders --progress j", ["json"]),
        ("slackwater replica ", ["list", "show", "pin", "unpin", "delete", "mount", "unmount", "verify"]),
    ],
)
def test_bash(folder: Path, words: str, wanted: list[str]) -> None:
    assert sorted(each for each in _completed(folder, words) if each) == sorted(wanted)


def test_zsh(folder: Path) -> None:
    assert '"orders"' in " ".join(_completed(folder, "slackwater backup ", kind="zsh"))


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_for_a_shell(folder: Path, shell: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'slackwater'; from slackwater.cli.main import run; run()"],
        env=environment(folder, {"_SLACKWATER_COMPLETE": f"source_{shell}"}), capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert "_slackwater_completion" in ran.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=ran.stdout, text=True, check=True)


def test_ids_of_sessions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACKWATER_STATE_DIR", str(folder / "state"))
    found = completion.sessions("")
    assert len(found) == 2
    assert found[-1] == "latest"


def test_nothing_there_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACKWATER_STATE_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("SLACKWATER_CONFIG_DIR", str(tmp_path / "none"))
    assert completion.replicas("") == completion.sessions("") == completion.specifications("") == []
    (tmp_path / "none").mkdir()
    (tmp_path / "none/catalog.sqlite").write_bytes(b"this is no database, however long one looks at it" * 40)
    assert completion.replicas("") == []
    assert [each.name for each in (tmp_path / "none").iterdir()] == ["catalog.sqlite"]
