# SPDX-License-Identifier: Apache-2.0
"""Reading durations and amounts as people write them; a number without a unit is never guessed at."""

import re
from fractions import Fraction

from slackwater.model.quantities import BYTES_IN, SECONDS_IN, Amount, Bytes, Share, format_bytes, format_duration

__all__ = ["format_bytes", "format_duration", "parse_amount", "parse_duration"]

_SECONDS_IN = {"y": 365 * 86400, "w": 7 * 86400, **SECONDS_IN, "ms": 0.001}
_BYTES_IN = {**BYTES_IN, "KB": BYTES_IN["kB"]}

_LONGEST_S = 1000 * 365 * 86400
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_NUMBER = re.compile(r"\s*\d+(?:\.\d+)?\s*")
_SHARE = re.compile(r"\s*(\d{1,3}(?:\.\d{1,2})?)\s*%\s*")

_DURATIONS = (
    'a duration is written like "60s", "250ms", "2h", "7d", "1y" or "1h30m" (units y, w, d, h, m, s, ms, in this order)'
)
_AMOUNTS = 'an amount of room is written like "10%", "20GiB" or "500MB" (units B, kB to PB, KiB to PiB)'


def parse_duration(text: str) -> float:
    """Read a duration such as `60s`, `7d`, `1h30m`, `1.5h` or `1y` (of 365 days), in seconds.

    Raises:
        ValueError: anything else; the message says what was read and what is accepted.
    """
    if _NUMBER.fullmatch(text):
        raise ValueError(f'"{text}" has no unit: write "{text.strip()}s" for seconds; {_DURATIONS}')
    names = list(_SECONDS_IN)
    total, last, at = 0.0, -1, 0
    while found := _PART.match(text, at):
        number, unit = found.groups()
        rank = names.index(unit) if unit in names else -1
        if rank <= last:
            break
        total, last, at = total + float(number) * _SECONDS_IN[unit], rank, found.end()
    if at == 0 or text[at:].strip():
        raise ValueError(f'"{text}" is not a duration: {_DURATIONS}')
    if total > _LONGEST_S:
        raise ValueError(f'"{text}" is longer than a thousand years')
    return total


def parse_amount(text: str) -> Amount:
    """Read a share such as `10%` or a number of bytes such as `20GiB` or `500MB`.

    Raises:
        ValueError: anything else, or a share of 100% and more; the message says what was read and what is accepted.
    """
    if share := _SHARE.fullmatch(text):
        percent = float(share.group(1))
        if percent >= 100:
            raise ValueError(f'"{text}" is the whole: a share must be below 100%')
        return Share(percent)
    if _NUMBER.fullmatch(text):
        raise ValueError(f'"{text}" has no unit: {_AMOUNTS}')
    found = _PART.fullmatch(text.rstrip())
    if found is None or found.group(2) not in _BYTES_IN:
        raise ValueError(f'"{text}" is not an amount of room: {_AMOUNTS}')
    return Bytes(round(Fraction(found.group(1)) * _BYTES_IN[found.group(2)]))
