# SPDX-License-Identifier: Apache-2.0
"""The second look at what failed: only what passes alone passes, it is told, and many failures are none of chance."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.second_look import MOST

SOURCE = Path(__file__).parents[1] / "second_look.py"
ALONE = '#!/bin/sh\nexec "$PYTHON" "$@"\n'
TESTS = """\
import os, pytest

@pytest.mark.parametrize("number", range({often}))
def test_it(number):
    if not os.path.exists(f"ran-{{number}}"):
        open(f"ran-{{number}}", "w").close()
        assert False
    assert {good}

def test_good():
    pass
"""


def looked(place: Path, often: int, *, good: bool = True) -> tuple[int, str]:
    """The status and the words of a run of some tests that fail at first, and of the look after it."""
    tests = place / "tests"
    tests.mkdir()
    shutil.copy(SOURCE, tests)
    (tests / "test_some.py").write_text(TESTS.format(often=often, good=good))
    (tests / "isolated").write_text(ALONE)
    (tests / "isolated").chmod(0o755)
    (place / "pytest.ini").write_text("[pytest]\n")
    unset = {"PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | {"PYTHON": sys.executable}

    def ran(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True, check=False
        )

    first = ran("-m", "pytest", "-p", "no:xdist", "tests").returncode
    assert first == int(often > 0)
    done = ran("tests/second_look.py", str(first))
    return done.returncode, done.stdout


def test_what_passes_alone_passes_and_is_told(tmp_path: Path) -> None:
    status, told = looked(tmp_path, 2)
    assert status == 0
    assert "FAILED AT FIRST, passed alone: tests/test_some.py::test_it[0]" in told
    assert "2 passed" in told


@pytest.mark.parametrize(("often", "good"), [(1, False), (MOST + 1, True)], ids=["a defect", "many"])
def test_what_fails_again_and_many_that_fail_have_failed(tmp_path: Path, often: int, good: bool) -> None:
    status, told = looked(tmp_path, often, good=good)
    assert status == 1
    assert "FAILED AT FIRST" not in told


def test_what_failed_without_a_test_stays_failed(tmp_path: Path) -> None:
    """As when nothing of a whole kind ran."""
    assert looked(tmp_path, 0)[0] == 0
    assert subprocess.run([sys.executable, "tests/second_look.py", "1"], cwd=tmp_path, check=False).returncode == 1
