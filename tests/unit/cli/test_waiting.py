# SPDX-License-Identifier: Apache-2.0
"""Whoever waits at a terminal is told for what, and the line is gone when the answer is there."""

import os
import pty
import subprocess
import sys
import tty
from pathlib import Path

import pytest

from slackwater.cli.waiting import ASKING
from tests.unit.cli.machine import environment

#: `slackwater` where every session takes some time.
SLOW = """
import sys, time
from slackwater.cli import main, waiting
waiting._AFTER_S = {after_s}
import anyio
def slow(work, run=anyio.run, **options):
    time.sleep(0.5)
    return run(work, **options)
anyio.run = slow
sys.argv = ["slackwater", *{line!r}.split()]
main.run()
"""
GONE = "\r\x1b[K"


def _at_a_terminal(folder: Path, line: str, after_s: float) -> tuple[int, str]:
    """The exit status, and what the terminal on standard error was written."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", SLOW.format(after_s=after_s, line=line)],
            env=environment(folder, {"TERM": "xterm"}), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=theirs, timeout=60, check=False,
        )  # fmt: skip
        os.write(theirs, b"\0")
        told = b""
        while not told.endswith(b"\0"):
            told += os.read(ours, 4096)
    finally:
        os.close(theirs)
        os.close(ours)
    return ended.returncode, told[:-1].decode()


@pytest.mark.parametrize("line", ["status", "discover", "catalog check"])
def test_a_line_is_there_while_it_takes_long_and_gone_afterwards(tmp_path: Path, line: str) -> None:
    status, told = _at_a_terminal(tmp_path, line, 0.05)
    assert status == 0, told
    assert " ..." + GONE in told
    assert told.endswith(GONE)
    assert (ASKING in told) == (line == "discover")


@pytest.mark.parametrize(
    "line",
    [
        "spec create orders files:/nonexistent/sw",
        "backup files:/nonexistent/sw --preview",
        "recover files:/nonexistent/sw --preview",
    ],
)
def test_it_is_gone_also_before_an_error(tmp_path: Path, line: str) -> None:
    status, told = _at_a_terminal(tmp_path, line, 0.05)
    assert status != 0
    assert told.startswith(f"{ASKING} ...{GONE}")
    assert "error:" in told.removeprefix(f"{ASKING} ...{GONE}")


@pytest.mark.parametrize(("line", "after_s"), [("status --json", 0.05), ("status --nagios", 0.05), ("status", 30.0)])
def test_nothing_for_programs_nor_of_what_is_quick(tmp_path: Path, line: str, after_s: float) -> None:
    assert _at_a_terminal(tmp_path, line, after_s)[1] == ""
