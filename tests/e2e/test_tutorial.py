# SPDX-License-Identifier: Apache-2.0
"""The tutorial's commands, as they stand on the page, typed one after the other."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from slackwater.demo import needs, show
from slackwater.demo.cluster import free_port
from slackwater.demo.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"


def commands() -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("# ")]


def moved(command: str, lab: Lab, port: int) -> str:
    """The same command on places, a cluster and a port of the lab's own."""
    tag = f"{lab.name}t"
    for theirs, ours in (
        ("/srv/tutorial", f"{lab.folder}/{tag}"),
        ("/run/tutorial", lab.run_dir),
        ("15/tutorial", f"{needs.version()}/{tag}"),
        ("15 tutorial", f"{needs.version()} {tag}"),
        ("5499", str(port)),
    ):
        command = command.replace(theirs, ours)
    return command


def typed(lines: list[str], lab: Lab) -> str:
    """Type them into one shell, which ends at the first that fails, and return all that was printed."""
    environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    environment["SLACKWATER_LAB"] = lab.name
    script = "\n".join(f"{line}\n[ $? = 0 ] || {{ echo FAILED: {shlex.quote(line)}; exit 1; }}" for line in lines)
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=environment, cwd="/", timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def test_every_command_works() -> None:
    with Lab() as lab:
        os.rmdir(lab.run_dir)  # the page's commands make their own
        port = free_port()
        lines = [moved(command, lab, port) for command in commands()]
        output = typed(lines, lab)
        assert not any("tutorial" in line for line in lines)
        assert [
            line for line in show.everything_of(lab).lines if lab.name in line and not line.startswith("file")
        ] == []
        assert not os.path.exists(f"/etc/postgresql/{needs.version()}/{lab.name}t")
    assert output.count("Recovery of shop: completed") == 3
    assert "100000" in output
    assert "\nundone " in output or "its process was dead" in output
