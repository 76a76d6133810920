# SPDX-License-Identifier: Apache-2.0
"""The project's own rules about its files, and what keeps its test runs honest."""

import ast
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import KINDS, complaints

ROOT = Path(__file__).parents[2]
SPDX = "# SPDX-License-Identifier: Apache-2.0"
LONGEST_FILE, LONGEST_FUNCTION = 600, 70
FORBIDDEN = "trust"
LETS_ANYBODY_IN = re.compile(rf"(?i:local|host|auth).*\b{FORBIDDEN}\b|-A[\s\"',]*{FORBIDDEN}\b")


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


def test_nothing_lets_anybody_into_a_server() -> None:
    """What is promised in docs/how-to/postgresql-role.md: a method of pg_hba.conf that asks nobody who he is."""
    sources = tracked("src", "tests", "packaging", "bench", ".ci", "Makefile")
    assert len(sources) > 300
    assert [str(path) for path in sources if LETS_ANYBODY_IN.search(path.read_text())] == []


def test_these_rules_catch_who_breaks_them() -> None:
    assert unlicensed('"""No license."""\n')
    assert too_long("def long():\n" + "    pass\n" * LONGEST_FUNCTION) == ["long"]
    for line in ("local all all {}", "hostssl all all ::1/128 {}", "initdb --auth={}", '"-A", "{}"', "AUTH_METHOD={}"):
        assert LETS_ANYBODY_IN.search(line.format(FORBIDDEN)), line
        assert not LETS_ANYBODY_IN.search(line.format("peer")), line
    assert too_long("def short():\n" + "    pass\n" * (LONGEST_FUNCTION - 1)) == []


LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]+))?\)")


def dead_links(path: Path, text: str) -> list[str]:
    """The links of a page of ours that lead to no file, or to no heading in it."""
    found = []
    for name, heading in LINK.findall(text):
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (heading and heading not in headings(target)):
            found.append(f"{path.name}: {name}#{heading}")
    return found


def headings(path: Path) -> set[str]:
    """The names that a page's headings have in links: lower case, words joined by hyphens, no punctuation."""
    lines = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


def test_every_link_leads_somewhere() -> None:
    pages = tracked("*.md")
    assert len(pages) > 30
    assert sum(len(LINK.findall(page.read_text(encoding="utf-8"))) for page in pages) > 60
    assert [dead for page in pages for dead in dead_links(page, page.read_text(encoding="utf-8"))] == []


def test_every_how_to_is_in_the_index() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    assert [page.name for page in tracked("docs/how-to/*.md") if f"(how-to/{page.name})" not in index] == []


def test_a_dead_link_is_caught() -> None:
    page = ROOT / "README.md"
    assert dead_links(page, "[a](docs/index.md) [b](docs/index.md#documentation) [c](https://example.org/x)") == []
    assert len(dead_links(page, "[a](docs/indexes.md) [b](docs/index.md#nowhere)")) == 2


#: A Python that makes a virtual environment like itself, and is content with whatever pip shall do.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
*venv*--clear*) mkdir -p "$4/bin"; touch "$4/pyvenv.cfg"; cp "$0" "$4/bin/python"; cp "$0" "$4/bin/slackwater" ;;
*realpath*) echo "$0" ;;
esac
"""


@pytest.mark.root
def test_what_install_made_is_gone_after_uninstall_and_only_root_s_python_is_refused() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory(prefix="sw-install-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for closed, mode in (("open", 0o755), ("closed", 0o700)):
            (folder / closed).mkdir()
            (folder / closed / "python3").write_text(FAKE_PYTHON)
            (folder / closed / "python3").chmod(0o755)
            (folder / closed).chmod(mode)
            os.link(folder / closed / "python3", folder / closed / "python3.11")
        (folder / "usr").mkdir()
        before = sorted(folder.rglob("*"))
        places = {
            "PREFIX": "opt/slackwater",
            "LINK": "usr/bin/slackwater",
            "CONFIG": "etc/slackwater",
            "SHARE": "usr/share",
        }
        places |= {"STATE": "var", "UNITS": "no-systemd"}
        environment = {**os.environ, **{key: f"{name}/{place}" for key, place in places.items()}}

        def packaging(script: str, python: str) -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [ROOT / "packaging" / script], env={**environment, "PYTHON": f"{name}/{python}"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip

        refused = packaging("install", "closed/python3.11")
        assert refused.returncode == 5, refused.stdout + refused.stderr
        assert "Only root can reach" in refused.stderr
        assert sorted(folder.rglob("*")) == before
        for _ in range(2):  # a second time, over the first
            done = packaging("install", "open/python3")
            assert done.returncode == 0, done.stdout + done.stderr
        assert (folder / "usr/bin/slackwater").is_symlink()
        assert packaging("uninstall", "open/python3").returncode == 0
        assert sorted(folder.rglob("*")) == before
        packaging("install", "open/python3")
        (folder / "etc/slackwater/specs.d/mine.toml").write_text("")
        assert packaging("uninstall", "open/python3").returncode == 0
        left = [each.name for each in folder.rglob("*") if each not in before]
        assert sorted(left) == ["etc", "mine.toml", "slackwater", "specs.d"], "what is the user's stays"


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
