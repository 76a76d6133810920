# SPDX-License-Identifier: Apache-2.0
"""Rolling a replica forward through its log: how far that goes, and making a clone ready to go there.

Before anything is stopped the whole chain of segments is walked, and what happened in it is read: an engine that is
given too little recovers to the end of that, and calls it a success.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from datetime import datetime

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.model.replica import ComponentRecord
from slackwater.model.target import LogSource, Reach, RecoveryTarget
from slackwater.writers._postgresql import fetching, lay, look, pending
from slackwater.writers._postgresql.chain import CLONE
from slackwater.writers._postgresql.controlfile import format_lsn, read_control_file
from slackwater.writers._postgresql.directory import opened, opened_wal, told
from slackwater.writers._postgresql.doubts import UnreachableError
from slackwater.writers._postgresql.goal import Goal, goal_of
from slackwater.writers._postgresql.ground import Ground, events_of, folders_of, foreign_among, grounded, places_of
from slackwater.writers._postgresql.look import Look
from slackwater.writers._postgresql.waldump import last_of

#: The last commit before a hole is looked for in so much log first.
_NEAR_SEGMENTS = 2


def reach(record: ComponentRecord, sources: Sequence[LogSource], target: RecoveryTarget, now: datetime) -> Reach:
    """See how far the replica can be rolled forward; see the contract. The first source is the replica itself."""
    try:
        with grounded(record, sources) as ground:
            goal = goal_of(ground, target, now)
            return _reach(record, ground, goal)
    except UnreachableError as e:
        return Reach(to="", against=str(e), at=e.last)


def horizon(record: ComponentRecord, sources: Sequence[LogSource]) -> Reach:
    """See quickly how far the log goes from a replica; see the contract."""
    try:
        with grounded(record, sources, thorough=False) as ground:
            chain = ground.chain
            near = max(ground.taken, chain.stop - _NEAR_SEGMENTS * ground.log.segment_bytes)
            # All of an archive is not read for a list.
            ends = (near, *(() if ground.archive and ground.archive.fetches else (ground.taken,))) if chain.hole else ()
            found = (last_of(events_of(ground, since)) for since in ends)
            last = next((each for each in found if each), None)
            return Reach(
                to=format_lsn(chain.stop),
                at=last.at if last else None,
                bytes=max(0, chain.stop - chain.start),
                against=chain.hole,
            )
    except UnreachableError as e:
        return Reach(to="", against=str(e))


def taken(record: ComponentRecord, sources: Sequence[LogSource]) -> Facts:
    """Ask an archive for histories of timelines above those that the sources show; see the contract."""
    component = record.component
    places = places_of(component)
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(opened(sources[0].trees[places[""]]))
        image = read_control_file(data)
        shown = [source for each in sources for source in folders_of(stack, each, places)]
        archive = fetching.among(stack, sources, component, data, image, shown)
        return {"timeline": fetching.highest(archive, component, image.timeline, shown)}


def forgive(record: ComponentRecord, trees: Mapping[str, str], sources: Sequence[LogSource]) -> None:
    """Mark in a clone that is not rolled forward what its archive has already; see the contract. Idempotent."""
    component, places = record.component, places_of(record.component)
    with told(f"The clone of {component.ref} cannot be made ready"), contextlib.ExitStack() as stack:
        data = stack.enter_context(opened(trees[places[""]]))
        wal = stack.enter_context(opened_wal(data, trees, places.get("pg_wal", "")))
        image = read_control_file(data)
        shown = [source for each in sources for source in folders_of(stack, each, places)]
        pending.forgive(data, wal, [], fetching.among(stack, sources, component, data, image, shown))


def roll(
    record: ComponentRecord,
    trees: Mapping[str, str],
    sources: Sequence[LogSource],
    target: RecoveryTarget,
    now: datetime,
    before: Facts,
) -> Facts:
    """Lay the log beside a clone that was made ready, with the target; see the contract. Idempotent.

    Raises:
        RefusedError: the target cannot be reached (any more).
    """
    clone = LogSource(CLONE, trees)
    component, places = record.component, places_of(record.component)
    seen = Look.of(before.get(look.FACT))
    if seen and seen.found:
        with contextlib.ExitStack() as stack, opened(trees[places[""]]) as data:
            strange = foreign_among(stack, sources, places, read_control_file(data))
            ours = [each for each in sources[1:] if each not in strange]
            others = [source for each in ours for source in folders_of(stack, each, places)]
            with opened_wal(data, trees, places.get("pg_wal", "")) as wal:
                pending.forgive(data, wal, others, None)
        return {look.FACT: None}
    try:
        with (
            told(f"The log cannot be laid beside the clone of {component.ref}"),
            opened(trees[places[""]]) as data,
            grounded(record, (clone, *sources[1:]), seen=seen) as ground,
        ):
            goal = goal_of(ground, target, now)
            lay.lay(data, ground.chain, ground.log, ground.sources)
            pending.owe(data, ground.chain, ground.sources, ground.archive, goal.before or goal.on or ground.chain.stop)
            with opened_wal(data, trees, places.get("pg_wal", "")) as wal:
                pending.forgive(data, wal, ground.sources, ground.archive)
            lay.aim(data, component, ground.chain.branches, goal.on, goal.lines)
            os.fsync(data)
            found = _reach(record, ground, goal)
    except UnreachableError as e:
        raise RefusedError(
            f"{component.ref} cannot be recovered to {target}: {e}.",
            data="Nothing was switched.",
            code="unreachable",
        ) from e
    beyond = {} if goal.before is None else {"not_beyond": format_lsn(goal.before)}
    left = Look(ground.taken, ground.chain.branches, ground.read or ground.start, goal.last, goal.found)
    useful = not seen and (goal.found or ground.read is not None)
    return {"lsn": found.to, **beyond, **found.facts, look.FACT: left.told() if useful else None}


def _reach(record: ComponentRecord, ground: Ground, goal: Goal) -> Reach:
    # A commit is there when the log was followed beyond the position at which it begins.
    to = max(ground.taken, goal.last.position + 1 if goal.last else 0)
    return Reach(
        to=format_lsn(to),
        at=goal.last.at if goal.last else None,
        bytes=max(0, (goal.before or ground.chain.stop) - ground.start),
        facts={
            "from_timeline": ground.image.timeline,
            "to_timeline": ground.chain.timeline,
            **({"last_xid": goal.last.xid} if goal.last else {}),
        },
    )
