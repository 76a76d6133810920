# SPDX-License-Identifier: Apache-2.0
"""Finding servers among processes that come and go meanwhile."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from slackwater.writers._postgresql import find


def shown(folder: Path, monkeypatch: pytest.MonkeyPatch, *, ends: bool) -> list[str]:
    """The directories that are found when a process named `postgres` ends, or not, after it was first seen."""
    program = shutil.copy(shutil.which("sleep") or "", folder / "postgres")
    process = subprocess.Popen([program, "60"], cwd=folder)
    try:

        def without_a_lock_file(directory: str) -> None:
            if ends and directory == f"/proc/{process.pid}/cwd":
                process.kill()
                process.wait()

        monkeypatch.setattr(find, "pid_file_of", without_a_lock_file)
        return [each.data_directory for each in find.postmasters() if each.pid == process.pid]
    finally:
        process.kill()
        process.wait()


def test_a_backend_that_ends_while_looked_at_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(tmp_path, monkeypatch, ends=True) == []


def test_a_server_without_its_lock_file_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(tmp_path, monkeypatch, ends=False) == [os.path.realpath(tmp_path)]
