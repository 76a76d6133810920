# SPDX-License-Identifier: Apache-2.0
"""The demonstration as a user plays it: it ends well, shows zeros where zeros belong, and leaves nothing behind."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slackwater.demo import show
from slackwater.demo.lab import Lab
from slackwater.demo.scenes import DemoError
from slackwater.demo.strike import kill_in_window

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(400)]

COMMAND = [sys.executable, "-m", "slackwater", "demo"]


def lab_of(output: str) -> Lab:
    """The demo's own lab; `discover` may name those of others."""
    found = re.search(r"mounted at \S*/(sw-[0-9a-f]{6})/", output)
    assert found, output
    return Lab(name=found[1])


def left_of(lab: Lab) -> list[str]:
    """What is still there of a lab."""
    return [line for line in show.everything_of(lab).lines if lab.name in line]


@pytest.fixture(scope="module")
def played() -> "subprocess.CompletedProcess[str]":
    return subprocess.run(COMMAND, capture_output=True, text=True, timeout=380, check=False, stdin=subprocess.DEVNULL)


def receipts(output: str) -> list[dict[str, str]]:
    """The receipts that were shown, name to value."""
    found = []
    for part in output.split("The receipt\n")[1:]:
        lines = [
            line.strip().split("  ", 1) for line in part.splitlines()[:12] if line.startswith("  ") and "●" not in line
        ]
        found.append({name: value.strip() for name, value in lines[:7]})
    return found


def test_ends_well(played: "subprocess.CompletedProcess[str]") -> None:
    assert played.returncode == 0, played.stdout[-3000:] + played.stderr[-1000:]
    assert "✗" not in played.stdout


def test_receipt(played: "subprocess.CompletedProcess[str]") -> None:
    first, second = receipts(played.stdout)
    for each in (first, second):
        acknowledged = int(each["acknowledged before the window"].split()[0].replace(",", ""))
        assert acknowledged > 100
        assert int(each["found"].replace(",", "")) == acknowledged
        assert (each["lost"], each["torn"]) == ("0", "0")
        assert 0 < float(each["window"].removesuffix(" ms")) < 10_000
    assert int(first["timeline"].split(",")[0]) < int(second["timeline"].split(",")[0])


def test_killed_backup(played: "subprocess.CompletedProcess[str]") -> None:
    assert re.search(r"let them go [\d.]+ ms later", played.stdout)
    assert re.search(r"the counter goes on: \d+ more commits", played.stdout)
    assert re.search(r"undone +take a read-only snapshot", played.stdout), "the reconcile found nothing to put right"


def test_commands_of_a_user(played: "subprocess.CompletedProcess[str]") -> None:
    for words in (
        "discover", "spec create orders", "backup orders --preview", "backup orders", "reconcile",
        "recover orders --preview", "recover orders --yes", "recover orders --undo --yes", "status",
    ):  # fmt: skip
        assert f"$ slackwater {words}" in played.stdout


def test_leaves_nothing(played: "subprocess.CompletedProcess[str]") -> None:
    assert left_of(lab_of(played.stdout)) == []
    assert "nothing is left" in played.stdout


def test_inventory_sees_what_is_left() -> None:
    with Lab() as lab:
        lab.btrfs(256 << 20)
        assert {line.partition(" ")[0] for line in left_of(lab)} >= {"loop", "mount", "file"}
    assert left_of(lab) == []


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_stopped_at_any_moment(number: signal.Signals) -> None:
    output = ""
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1) as demo:
        assert demo.stdout
        for line in demo.stdout:
            output += line
            if line.startswith("$ slackwater backup orders"):
                time.sleep(0.5)
                demo.send_signal(number)
                break
        output += demo.stdout.read()
    assert demo.returncode != 0
    assert "Traceback" not in output
    assert left_of(lab_of(output)) == []


def test_without_root() -> None:
    become_nobody = "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)"
    program = f"import os, sys, psycopg; from slackwater.demo.show import run; {become_nobody}; sys.exit(run())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 6, done.stderr
    assert "needs root" in done.stdout
    assert "slackwater recover orders --yes" in done.stdout


def test_says_which_packages_are_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == "mkfs.btrfs" else f"/bin/{name}")
    assert show.run() == 5
    said = capsys.readouterr().out
    assert "package btrfs-progs" in said
    assert "postgresql-common" not in said
    assert "make demo" in said


def test_something_wrong_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def lose_one(*_: object, **__: object) -> None:
        raise DemoError("The oracle found: 1 acknowledged commits are missing")

    monkeypatch.setattr(show, "_play", lose_one)
    assert show.run() == 1
    assert "✗ The oracle found: 1 acknowledged commits are missing" in capsys.readouterr().out


def test_something_left_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def leave(lab: Lab, *_: object, **__: object) -> None:
        Path(lab.folder).mkdir()

    made = Lab()
    monkeypatch.setattr(show, "Lab", lambda: made)
    monkeypatch.setattr(show, "_play", leave)
    monkeypatch.setattr(show, "_SETTLE_S", 0.2)
    try:
        assert show.run() == 1
    finally:
        Path(made.folder).rmdir()
    said = capsys.readouterr().out
    assert f"+ file {made.folder}" in said
    assert "nothing is left" not in said


def test_a_backup_without_a_window_is_not_struck(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "0.2"], text=True) as process:
        assert kill_in_window(process, str(tmp_path), thaw_s=1.0) is None
    assert process.returncode == 0
