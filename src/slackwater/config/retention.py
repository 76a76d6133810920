# SPDX-License-Identifier: Apache-2.0
"""Reading `[replica] keep`: a number, a line such as `24h 14d 8w 12m`, or a table of counts."""

import re
from typing import Annotated

from pydantic import BeforeValidator

from slackwater.model.retention import Keep

_UNITS = {"h": "hourly", "d": "daily", "w": "weekly", "m": "monthly", "y": "yearly"}
_NAMES = ("last", *_UNITS.values())
_PART = re.compile(r"(\d{1,6})([a-z]?)")
_FORMS = 'write keep = 6, keep = "24h 14d 8w 12m" (units h, d, w, m for months, y) or keep = { last = 3, daily = 14 }'


def read_keep(value: object) -> Keep:
    """Read what stands in a specification.

    Raises:
        ValueError: none of the three forms, or nothing would be kept.
    """
    if isinstance(value, Keep):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Keep(last=value)
    if isinstance(value, str):
        return Keep(**_counts_in(value))
    if isinstance(value, dict):
        return Keep(**_counts_of(value))
    raise ValueError(f"is neither a number nor a line nor a table: {_FORMS}")


def _counts_in(line: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word in line.split():
        found = _PART.fullmatch(word)
        name = _UNITS.get(found.group(2)) if found else None
        if found is None or name is None:
            raise ValueError(f'"{word}" is no number with a unit: {_FORMS}')
        if name in counts:
            raise ValueError(f'"{line}" says {name} twice')
        counts[name] = int(found.group(1))
    return counts


def _counts_of(table: dict[object, object]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, count in table.items():
        if name not in _NAMES:
            raise ValueError(f"unknown key {name} (valid here: {', '.join(_NAMES)})")
        if not isinstance(count, int) or isinstance(count, bool):
            raise ValueError(f"{name} must be a whole number, without quotes")
        counts[str(name)] = count
    return counts


KeepRules = Annotated[Keep, BeforeValidator(read_keep)]
"""What rotation keeps."""
