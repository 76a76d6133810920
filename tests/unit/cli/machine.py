# SPDX-License-Identifier: Apache-2.0
"""The command with folders of its own: in a process of its own, or, where that would only cost time, in this one."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from slackwater.cli.main import main

COMMAND = (sys.executable, "-m", "slackwater")


@dataclass
class Ran:
    """What a command left."""

    status: int
    out: str
    err: str
    document: dict[str, Any] = field(default_factory=dict)


def environment(folder: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Folders of our own, and nothing of the terminal the tests run in."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    places = {f"SLACKWATER_{name.upper()}_DIR": str(folder / name) for name in ("config", "state", "run")}
    return {**kept, **places, "TZ": "UTC", "COLUMNS": "80", **(more or {})}


def slackwater(folder: Path, *arguments: str) -> Ran:
    """Run a command line to its end."""
    ran = subprocess.run(
        [*COMMAND, *arguments], env=environment(folder), capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    document = json.loads(ran.stdout) if "--json" in arguments and "--help" not in arguments else {}
    return Ran(ran.returncode, ran.stdout, ran.stderr, document)


def inside(folder: Path, *arguments: str) -> Ran:
    """Run a command line to its end in this process, which saves the imports."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        for name, value in environment(folder).items():
            patched.setenv(name, value)
        status = main(list(arguments))
    document = json.loads(out.getvalue()) if "--json" in arguments else {}
    return Ran(status, out.getvalue(), err.getvalue(), document)
