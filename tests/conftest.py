# SPDX-License-Identifier: Apache-2.0
"""A skipped test is never silent: what did not run is listed, and on the project's own machines it is a failure."""

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

KINDS = ("root", "postgresql", "uml")
"""The markers of tests that a machine may be unable to run."""

_ran: Counter[str] = Counter()
_skipped: dict[str, str] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    kinds = [kind for kind in KINDS if item.get_closest_marker(kind)]
    if report.skipped and kinds and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped[item.nodeid] = f"[{', '.join(kinds)}] {reason.removeprefix('Skipped: ')}"
    elif report.when == "call":
        _ran.update(kinds)
    return report


def complaints(*, ran: Counter[str], skipped: dict[str, str], whole: bool) -> list[str]:
    """What keeps a run from counting as a proof, one sentence each."""
    found = [f"skipped: {test}" for test in skipped]
    if whole:
        found += [f"no test of the kind '{kind}' ran" for kind in KINDS if not ran[kind]]
    return found


def _found(config: pytest.Config) -> list[str]:
    options = config.option
    whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS and not (options.keyword or options.markexpr)
    return complaints(ran=_ran, skipped=_skipped, whole=whole and not options.collectonly)


def _strict() -> bool:
    return os.environ.get("CI", "").lower() in {"true", "1"}


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _strict() and _found(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    terminalreporter.section("what ran on real systems")
    terminalreporter.line(", ".join(f"{kind} {_ran[kind]}" for kind in KINDS))
    for test, reason in _skipped.items():
        terminalreporter.line(f"not run: {test}: {reason}")
    if _strict():
        for complaint in _found(config):
            terminalreporter.line(f"FAILED, since CI is set: {complaint}", red=True)
