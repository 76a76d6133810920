# SPDX-License-Identifier: Apache-2.0
"""`status --nagios`: what is OK, WARNING, CRITICAL and UNKNOWN."""

from dataclasses import replace

import pytest

from slackwater.cli.status import monitor
from slackwater.policy.windows import Gap
from slackwater.sessions.status import Status
from tests.unit.cli.samples import NOW, STANDING

FINE = Status((STANDING,), (), ())


@pytest.mark.parametrize(
    ("found", "ages", "status", "said"),
    [
        (FINE, (None, None), 0, "OK - orders: 2026-11-22-1, 3 min ago"),
        (FINE, (100.0, 300.0), 1, "WARNING - orders: 2026-11-22-1, 3 min ago, too old"),
        (FINE, (100.0, 150.0), 2, "CRITICAL - "),
        (Status((replace(STANDING, last_good="", age_s=None),), (), ()), (None, None), 2, "no good replica"),
        (Status((STANDING,), ("2026-11-22-9",), ()), (None, None), 1, "session 2026-11-22-9 was cut off"),
        (Status((STANDING,), (), ("shop",)), (None, None), 1, "specification shop cannot be read"),
        (Status((replace(STANDING, failed=("2026-11-22-2",)),), (), ()), (None, None), 1, "2026-11-22-2 failed its"),
        (Status((replace(STANDING, low_room="1 GiB are free."),), (), ()), (None, None), 1, "ago; 1 GiB are free |"),
        (Status((replace(STANDING, gaps=(Gap(NOW, None, "gone"),)),), (), ()), (None, None), 1, "its log is not whole"),
        (Status((replace(STANDING, gaps=(Gap(NOW, NOW, "gone"),)),), (), ()), (None, None), 0, "OK"),
        (Status((), (), ()), (None, None), 3, "UNKNOWN"),
    ],
)
def test_judgement(found: Status, ages: tuple[float | None, float | None], status: int, said: str) -> None:
    judged = monitor(found, warn_s=ages[0], critical_s=ages[1])
    assert judged.status == status
    assert said in judged.line
    assert "\n" not in judged.line


def test_numbers_stand_behind_the_bar() -> None:
    line = monitor(FINE, warn_s=300.0, critical_s=600.0).line
    assert line.count("|") == 1
    numbers = line.partition(" | ")[2]
    assert "'orders age'=200s;300;600;0" in numbers
    assert "'orders replicas'=6;;;0" in numbers
    assert f"'orders free'={12 << 30}B;;;0;{100 << 30}" in numbers
