# SPDX-License-Identifier: Apache-2.0
"""A skipped test is never silent: what did not run is listed, and on the project's own machines it is a failure."""

import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

KINDS = ("root", "postgresql", "uml")
"""The markers of tests that a machine may be unable to run."""

_ran: Counter[str] = Counter()
_skipped: dict[str, str] = {}

# How fast an example is says nothing on a machine that does something else as well.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

#: The files that take longest are begun first, so that the workers end together.
LONGEST_FIRST = (
    "test_matrix_postgresql", "test_matrix_sqlite_asked", "test_matrix_sqlite", "test_simulation_even",
    "test_simulation_odd", "test_simulation_twins", "test_systemd", "test_systemd_units", "test_power_cuts",
    "test_how_to", "test_kills", "test_postgresql_archive", "test_roll_forward_twenty",
    "test_roll_forward_archives", "test_losses", "test_postgresql_losses", "test_services",
    "test_with_config", "test_standbys", "test_one_component", "test_log_never_fills_the_disk", "test_logs_kept",
    "test_tutorial", "test_twenty_backups", "test_lost_catalog", "test_clock", "test_bad_luck", "test_at_once",
    "test_behind_our_back",
    "test_demo", "test_reboot", "test_layouts", "test_versions", "test_full", "test_reflink_killed", "test_retry",
    "test_roll_forward", "test_postgresql_roll", "test_postgresql_slot", "test_exercise", "test_guard_deadline",
    "test_plain", "test_matrix_twins", "test_no_secret_told", "test_goes_back", "test_roll_killed",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {name: position for position, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called where the run is reported, whichever worker ran the test."""
    kinds = [kind for kind in KINDS if kind in report.keywords]
    if report.skipped and kinds and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped[report.nodeid] = f"[{', '.join(kinds)}] {reason.removeprefix('Skipped: ')}"
    elif report.when == "call":
        _ran.update(kinds)
    if report.failed and hasattr(report, "node"):  # a run in several workers tells nothing until its end
        print(f"\n{report.nodeid} failed in its {report.when}:\n{report.longreprtext[-2000:]}\n", flush=True)


def complaints(*, ran: Counter[str], skipped: dict[str, str], whole: bool) -> list[str]:
    """What keeps a run from counting as a proof, one sentence each."""
    found = [f"skipped: {test}" for test in skipped]
    if whole:
        found += [f"no test of the kind '{kind}' ran" for kind in KINDS if not ran[kind]]
    return found


def _found(config: pytest.Config) -> list[str]:
    options = config.option
    whole = config.args_source == pytest.Config.ArgsSource.TESTPATHS and not (
        options.keyword or options.markexpr or options.lf
    )
    return complaints(ran=_ran, skipped=_skipped, whole=whole and not options.collectonly)


def _strict() -> bool:
    return os.environ.get("CI", "").lower() in {"true", "1"}


def pytest_sessionfinish(session: pytest.Session) -> None:
    worker = hasattr(session.config, "workerinput")  # sees only its own part
    if not worker and _strict() and _found(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    terminalreporter.section("what ran on real systems")
    terminalreporter.line(", ".join(f"{kind} {_ran[kind]}" for kind in KINDS))
    for test, reason in _skipped.items():
        terminalreporter.line(f"not run: {test}: {reason}")
    if _strict():
        for complaint in _found(config):
            terminalreporter.line(f"FAILED, since CI is set: {complaint}", red=True)
