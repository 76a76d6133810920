# SPDX-License-Identifier: Apache-2.0
"""The project's own rules about its files, and what keeps its test runs honest."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import KINDS, complaints

ROOT = Path(__file__).parents[2]
SPDX = "# SPDX-License-Identifier: Apache-2.0"
LONGEST_FILE, LONGEST_FUNCTION = 600, 70


def tracked(*patterns: str) -> list[Path]:
    """The files under version control, and those about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def unlicensed(text: str) -> bool:
    return SPDX not in text.splitlines()[:2]


def too_long(source: str) -> list[str]:
    """The functions of a Python source that are longer than they may be."""
    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return [f.name for f in functions if (f.end_lineno or f.lineno) - f.lineno + 1 > LONGEST_FUNCTION]


def test_every_source_file_says_its_license() -> None:
    sources = tracked("*.py", "*.toml", "*.mako", "Makefile", ".ci", "packaging")
    checked = [path for path in sources if path.name != "pyproject.toml"]
    assert len(checked) > 30
    assert [str(path) for path in checked if unlicensed(path.read_text())] == []


def test_no_file_and_no_function_is_too_long() -> None:
    sources = tracked("*.py")
    assert [str(path) for path in sources if len(path.read_text().splitlines()) > LONGEST_FILE] == []
    assert {str(path): found for path in sources if (found := too_long(path.read_text()))} == {}


def test_these_rules_catch_who_breaks_them() -> None:
    assert unlicensed('"""No license."""\n')
    assert too_long("def long():\n" + "    pass\n" * LONGEST_FUNCTION) == ["long"]
    assert too_long("def short():\n" + "    pass\n" * (LONGEST_FUNCTION - 1)) == []


def test_continuous_integration_only_calls_make() -> None:
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "make lint test"]
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_make_alone_lists_every_target() -> None:
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make (\w+) ", said, re.MULTILINE) == phony.split()


@pytest.mark.parametrize("script", ["venv", "system", "places", "install", "uninstall"])
def test_packaging_scripts_can_be_read_by_a_plain_shell(script: str) -> None:
    subprocess.run(["sh", "-n", str(ROOT / "packaging" / script)], check=True)


@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_only_root_installs(script: str, tmp_path: Path) -> None:
    """The scripts ask id(1) who they are."""
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    environment = {**os.environ, "PREFIX": str(tmp_path / "opt"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / "packaging" / script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "Nothing was changed" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["id"]


def test_the_wheel_is_pure_and_holds_the_migrations(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {str(path.relative_to(ROOT / "src")) for path in tracked("src/slackwater")}
    assert package <= names
    assert any(name.startswith("slackwater/catalog/migrations/versions/") for name in names)
    assert "slackwater/guard/guard.py" in names


def test_a_run_in_which_everything_ran_is_a_proof() -> None:
    assert complaints(ran=Counter(dict.fromkeys(KINDS, 1)), skipped={}, whole=True) == []


def test_a_run_that_skipped_or_missed_a_kind_is_none() -> None:
    all_but_one = Counter(dict.fromkeys(KINDS[1:], 1))
    assert complaints(ran=all_but_one, skipped={}, whole=True) == [f"no test of the kind '{KINDS[0]}' ran"]
    assert complaints(ran=all_but_one, skipped={}, whole=False) == []
    assert complaints(ran=all_but_one, skipped={"test_x": "why"}, whole=False) == ["skipped: test_x"]


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_skipped_test_fails_the_run_where_ci_is_set(tmp_path: Path, ci: str, status: int) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\ndef test_fine(): pass\n\n@pytest.mark.root\ndef test_cannot(): pytest.skip('no disk')\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  root: x\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path, env={**os.environ, "CI": ci}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status, done.stdout
    assert "not run: test_it.py::test_cannot: [root] no disk" in done.stdout
