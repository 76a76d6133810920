# SPDX-License-Identifier: Apache-2.0
"""What is kept of a program's output, and on which terminal a program runs that is somebody else."""

import os

import pytest

from slackwater.system.command import run


def test_of_what_is_folded_the_end_is_returned() -> None:
    said = run("sh", "-c", "head -c 9000000 /dev/zero; echo the end", fold_output=True).complaint
    assert said.endswith("the end")
    assert len(said) < 100_000


@pytest.mark.root
def test_who_becomes_somebody_else_has_a_session_of_its_own() -> None:
    """So its controlling terminal is not ours."""
    asked = ("sh", "-c", "cut -d ' ' -f 6 /proc/self/stat")
    ours = str(os.getsid(0))
    assert run(*asked).output.strip() == ours
    assert run("setpriv", "--reuid=65534", "--clear-groups", *asked).output.strip() != ours
    assert run(*asked, user=65534, group=65534).output.strip() != ours
