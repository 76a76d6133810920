# SPDX-License-Identifier: Apache-2.0
"""Recovery windows: the moments that can be recovered to, and which of them go with a replica."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RecoveryWindow:
    """From one replica on: the moments that a recovery can go to."""

    replica: str
    since: datetime
    until: datetime | None
    """The last of them; None: the last commit, whenever that is."""
    bytes: int = 0
    """How much log lies on the way."""
    why: str = ""
    """Why it ends there; empty when it does not."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Moments between or after the windows, to which nothing leads any more."""

    since: datetime
    """Behind this moment."""
    until: datetime | None
    """Before this one; None: up to now, and on until a replica opens a new window."""
    why: str
    """Why the window before it ends there."""


Span = tuple[datetime, datetime]


def covered(windows: Iterable[RecoveryWindow], now: datetime) -> tuple[Span, ...]:
    """The moments of all windows together, in order, each span once."""
    spans: list[Span] = []
    for since, until in sorted((each.since, max(each.since, each.until or now)) for each in windows):
        if spans and since <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], until))
        else:
            spans.append((since, until))
    return tuple(spans)


def gaps(windows: Sequence[RecoveryWindow], now: datetime) -> tuple[Gap, ...]:
    """The moments since the first window that none of them has, in order.

    Windows that end at the same hole end together: the log of an older replica leads to the younger one's own moment,
    and between the last commit in it and that moment nothing was lost.
    """
    ends = {each.why: max(one.until for one in windows if one.until and one.why == each.why)
            for each in windows if each.until and each.why}  # fmt: skip
    merged = [replace(each, until=ends.get(each.why, each.until)) if each.until else each for each in windows]
    spans = covered(merged, now)
    next_ones: list[datetime | None] = [since for since, _ in spans[1:]]
    if windows and all(each.until for each in windows):
        next_ones.append(None)
    whys = {each.until: each.why for each in merged if each.until}
    return tuple(Gap(until, since, whys.get(until, "")) for (_, until), since in zip(spans, next_ones, strict=False))


def lost(before: Sequence[RecoveryWindow], after: Sequence[RecoveryWindow], now: datetime) -> tuple[Span, ...]:
    """The spans that some windows had and others have no more; a single moment is none."""
    gone: list[Span] = []
    left = covered(after, now)
    for since, until in covered(before, now):
        at = since
        for start, end in left:
            if end > at and start < until:
                gone += [(at, start)] if start > at else []
                at = end
        gone += [(at, until)] if at < until else []
    return tuple(gone)
