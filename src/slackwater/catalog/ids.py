# SPDX-License-Identifier: Apache-2.0
"""The ids of sessions, `2026-11-22-1`, which their replicas bear, and the short ways to write one."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from slackwater.errors import NotFoundError, UsageError

_ID = re.compile(r"(\d{4}-\d{2}-\d{2})-([1-9]\d{0,8})", re.ASCII)
LATEST = "latest"


def day_of(moment: datetime) -> str:
    """The day that stands in an id: UTC, so that it never runs twice."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d")


def split(text: str) -> tuple[str, int] | None:
    """Day and number of an id; None when it is not one."""
    found = _ID.fullmatch(text)
    return (found.group(1), int(found.group(2))) if found else None


def order(text: str) -> tuple[str, int]:
    """Sort ids as they were given: `2026-11-22-10` comes after `2026-11-22-9`."""
    return split(text) or (text, 0)


def resolve(text: str, ids: Iterable[str], *, noun: str = "replica", latest: str | None = None) -> str:
    """Find the id that is meant: itself, the only one that begins so, or `latest`.

    Args:
        text: what was typed.
        ids: those there are.
        noun: what they are ids of, for the sentence.
        latest: what `latest` stands for; None when there is none.

    Raises:
        NotFoundError: none is meant.
        UsageError: several begin so.
    """
    known = sorted(set(ids), key=order)
    if text == LATEST:
        if latest is None:
            raise NotFoundError(
                f"There is no {'good replica' if noun == 'replica' else noun} yet.",
                data="Nothing was changed.",
                hint=_listing(noun),
            )
        return latest
    if text in known:
        return text
    meant = [each for each in known if text and each.startswith(text)]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise NotFoundError(f"There is no {noun} {text!r}.", data="Nothing was changed.", hint=_listing(noun))
    shown = ", ".join(meant[-8:])
    raise UsageError(
        f"{text!r} could be any of {len(meant)} {noun}s.",
        data="Nothing was changed.",
        hint=f"Write more of it: {shown}" + (", and older ones" if len(meant) > 8 else ""),
    )


def _listing(noun: str) -> str:
    return f"`slackwater {noun} list` shows those there are."
