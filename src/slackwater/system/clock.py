# SPDX-License-Identifier: Apache-2.0
"""The time. The only place that reads a clock, so that a test can turn it."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What tells the time."""

    def now(self) -> datetime:
        """Wall clock, UTC."""
        ...

    def boot_s(self) -> float:
        """Seconds since boot, sleep included; the same for all processes of a host, untouched by clock changes."""
        ...


class SystemClock:
    """The kernel's clocks."""

    def now(self) -> datetime:
        """Wall clock, UTC, whole microseconds."""
        return datetime.now(UTC)

    def boot_s(self) -> float:
        """CLOCK_BOOTTIME, see clock_gettime(2)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


SYSTEM_CLOCK = SystemClock()
