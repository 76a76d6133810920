# SPDX-License-Identifier: Apache-2.0
"""Amounts of room, and how bytes and durations are written for people."""

import math
from dataclasses import dataclass
from itertools import pairwise

#: Units by name, the largest first.
BYTES_IN = {
    "PiB": 1 << 50,
    "PB": 10**15,
    "TiB": 1 << 40,
    "TB": 10**12,
    "GiB": 1 << 30,
    "GB": 10**9,
    "MiB": 1 << 20,
    "MB": 10**6,
    "KiB": 1 << 10,
    "kB": 10**3,
    "B": 1,
}
SECONDS_IN = {"d": 86400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole that grows and shrinks with it."""

    percent: float

    def of(self, total_bytes: int) -> int:
        """How many bytes of `total_bytes` this is, rounded up."""
        return math.ceil(total_bytes * self.percent / 100)

    def __str__(self) -> str:
        return f"{self.percent:.2f}".rstrip("0").rstrip(".") + "%"


@dataclass(frozen=True, slots=True)
class Bytes:
    """A fixed number of bytes."""

    count: int

    def of(self, total_bytes: int) -> int:
        """The same number, whatever the whole is."""
        return self.count

    def __str__(self) -> str:
        """Write the number exactly, in the largest unit that divides it."""
        unit = next(u for u, size in BYTES_IN.items() if self.count % size == 0) if self.count else "B"
        return f"{self.count // BYTES_IN[unit]}{unit}"


Amount = Share | Bytes


def format_bytes(count: int) -> str:
    """Write a number of bytes for people: `512 B`, `1.5 GiB`; one decimal, powers of 1024."""
    if abs(count) < 1024:
        return f"{count} B"
    units = ("KiB", "MiB", "GiB", "TiB")
    rank, value = 0, count / 1024
    while abs(value) >= 1023.95 and rank < len(units) - 1:
        rank, value = rank + 1, value / 1024
    unit = units[rank]
    return f"{round(value, 1):g} {unit}" if abs(value) < 1000 else f"{value:.0f} {unit}"


def format_duration(seconds: float) -> str:
    """Write a time span, 0 or longer, for people: `250ms`, `2.3s`, `1h 30m`, `3d`; at most two units."""
    if seconds < 0.9995:
        milliseconds = round(seconds * 1000)
        return f"{milliseconds}ms" if milliseconds else "0s"
    if seconds < 59.95:
        return f"{round(seconds, 1):g}s"
    left = round(seconds)
    finest = next(small for large, small in pairwise(SECONDS_IN.values()) if left >= large)
    left = round(left / finest) * finest
    parts = []
    for unit, size in SECONDS_IN.items():
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts)
