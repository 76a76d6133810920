# SPDX-License-Identifier: Apache-2.0
"""Calls of the programs beside."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from slackwater.system import namespaces
from slackwater.system.command import run

_HERE = os.path.dirname(os.path.abspath(__file__))
_LOOK_S, _CHECK_S = 5.0, 24 * 3600.0


def program(name: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs one of the programs."""
    return (sys.executable, "-I", "-S", "-B", os.path.join(_HERE, f"{name}.py"), *arguments)


def headers(paths: Sequence[str]) -> list[bytes]:
    """The first 100 bytes of each of these files; nothing where it is no SQLite database, or cannot be read."""
    said = run(*program("look", *paths), timeout_s=_LOOK_S).output.splitlines() if paths else []
    return [bytes.fromhex(line.strip("-")) for line in said]


def check(path: str, mode: str, pragma: str, query: str = "", enclosure: str = "") -> dict[str, Any]:
    """What SQLite says of a database; see `check.py`. In an enclosure the path is that of the original."""
    within = namespaces.inside(enclosure) if enclosure else ()
    said = run(*within, *program("check", path, mode, pragma, query), timeout_s=_CHECK_S).output
    answer: dict[str, Any] = json.loads(said)
    return answer
