# SPDX-License-Identifier: Apache-2.0
"""Whether there is room for one more replica."""

from slackwater.model.facts import Finding, Severity
from slackwater.model.quantities import Amount, Share, format_bytes
from slackwater.model.storage import Room


def enough(room: Room, min_free: Amount, where: str = "") -> Finding | None:
    """Refuse when less is free than the specification wants; None when there is enough.

    A copy-on-write replica takes room only as the live data moves away from it, so a full volume comes later, as
    failed writes of the application: that is what the reserve is for.

    Args:
        room: as the provider judges it.
        min_free: the specification's `[replica] min_free`.
        where: the volume, for the sentence.
    """
    wanted = min_free.of(room.total_bytes)
    if room.free_bytes >= wanted:
        return None
    asked = f"{min_free} ({format_bytes(wanted)})" if isinstance(min_free, Share) else format_bytes(wanted)
    return Finding(
        "min-free",
        Severity.REFUSAL,
        f"{format_bytes(room.free_bytes)} of {format_bytes(room.total_bytes)} ({room.free_ratio:.1%}) are free"
        f"{f' on {where}' if where else ''}; [replica] min_free asks for {asked}.",
        "Delete replicas, also what recoveries have set aside (slackwater replica list, slackwater replica delete ID), "
        "enlarge the filesystem, or lower min_free in the specification.",
    )
