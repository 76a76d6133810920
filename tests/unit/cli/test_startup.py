# SPDX-License-Identifier: Apache-2.0
"""What help, version, completion and errors cost: nothing heavy is imported for them."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.cli.machine import environment

HEAVY = ("sqlalchemy", "alembic", "psycopg", "pydantic")


def _imported(folder: Path, *arguments: str, **more: str) -> set[str]:
    """The modules that a command line imported, as the interpreter itself lists them."""
    ran = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "slackwater", *arguments],
        env=environment(folder, more), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+([\w.]+)$", ran.stderr, re.MULTILINE)
    assert "slackwater.cli.main" in found
    return {name.partition(".")[0] for name in found}


@pytest.mark.parametrize(
    "line",
    ["--help", "--version", "backup --help", "replica list --help", "", "restore", "replica ls", "backup --nonsense"],
)
def test_nothing_heavy_for_help_and_misuse(tmp_path: Path, line: str) -> None:
    assert not _imported(tmp_path, *line.split()) & {*HEAVY, "rich", "asyncio"}


@pytest.mark.parametrize("words", ["slackwater ", "slackwater backup ", "slackwater recover x --replica "])
def test_nothing_heavy_for_completion(tmp_path: Path, words: str) -> None:
    number = str(len(words.split()))
    more = {"_SLACKWATER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": number}
    assert not _imported(tmp_path, **more) & set(HEAVY)


def test_the_measure_sees_what_a_real_command_imports(tmp_path: Path) -> None:
    assert {"sqlalchemy", "pydantic"} <= _imported(tmp_path, "replica", "list")


def test_help_is_quick(tmp_path: Path) -> None:
    """Processor time, since other tests run beside it; the best of five, since caches are cold at first."""
    took_s = []
    for _ in range(5):
        before = os.times()
        ran = subprocess.run(
            [sys.executable, "-m", "slackwater", "--help"], env=environment(tmp_path), capture_output=True, check=True
        )
        after = os.times()
        assert b"Usage: slackwater" in ran.stdout
        took_s.append(after.children_user + after.children_system - before.children_user - before.children_system)
        time.sleep(0.01)
    assert min(took_s) < 0.7


def test_a_thread_that_is_lost_does_not_keep_the_command() -> None:
    """As one that waits for a disk that hangs."""
    code = (
        "import sys, threading; from slackwater.cli.main import run\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "sys.argv = ['slackwater', '--version']; run()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout.split()[:1]) == (0, ["slackwater"])
