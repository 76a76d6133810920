# SPDX-License-Identifier: Apache-2.0
"""How many replicas stay: so many of the newest, and the last of so many hours, days, weeks, months and years."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Keep:
    """Rules side by side: a replica stays when one of them wants it. At least one count is above 0, none below."""

    last: int = 0
    """The newest ones, whenever they were made."""
    hourly: int = 0
    """The last of each of so many hours; hours without a replica are not counted. The others alike."""
    daily: int = 0
    weekly: int = 0
    """Weeks begin on Monday, as in ISO 8601."""
    monthly: int = 0
    yearly: int = 0

    def __post_init__(self) -> None:
        counts = [getattr(self, field.name) for field in fields(self)]
        if min(counts) < 0 or not any(counts):
            raise ValueError("must keep 1 or more")

    @property
    def rules(self) -> dict[str, int]:
        """The counts above 0, by name."""
        return {field.name: count for field in fields(self) if (count := getattr(self, field.name))}

    def __str__(self) -> str:
        """As people read it: `6`, or `24 hourly, 14 daily`."""
        if set(self.rules) == {"last"}:
            return str(self.last)
        return ", ".join(f"{count} {name}" for name, count in self.rules.items())
