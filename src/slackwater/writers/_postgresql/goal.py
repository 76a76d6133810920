# SPDX-License-Identifier: Apache-2.0
"""Where a roll-forward ends: the target, found in the log, as the engine is told and as it is checked."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from slackwater.model.target import RecoveryTarget, TargetKind
from slackwater.writers._postgresql.autoconf import quoted
from slackwater.writers._postgresql.controlfile import format_lsn, parse_lsn
from slackwater.writers._postgresql.doubts import UnreachableError
from slackwater.writers._postgresql.ground import Ground, events_of
from slackwater.writers._postgresql.waldump import Commit, RestorePoint, last_of


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a recovery ends, as the engine is told and as it is checked."""

    last: Commit | None
    """The last transaction that it contains, behind those of the replica."""
    lines: tuple[str, ...] = ()
    """For its configuration; none for the end of the log."""
    before: int | None = None
    """The position it must not go beyond; None where the log ends."""
    on: int | None = None
    """A position of the timeline that it ends on; None for the last."""
    found: bool = False
    """Whether the log was seen to go beyond it, so that what is written later changes nothing."""


def goal_of(ground: Ground, target: RecoveryTarget, now: datetime) -> Goal:
    """Find the target in the log."""
    # The engine looks at the time of what is in the replica, too.
    since = ground.chain.start if target.kind is TargetKind.TIME else max(ground.taken, ground.chain.start)
    events = events_of(ground, since)
    if target.kind is TargetKind.LATEST:
        last = last_of(events, ground.last)
        _no_hole(ground, last)
        return Goal(last)
    if target.kind is TargetKind.TIME:
        return _at_time(ground, events, target.time, now)
    if target.kind is TargetKind.BEFORE:
        return _before(ground, events, target.value)
    if target.kind is TargetKind.LSN:
        return _at_position(ground, events, target.value)
    if target.kind is TargetKind.NAME:
        return _at_name(ground, events, target.value)
    raise ValueError(f"{target.kind} needs no log")


def _no_hole(ground: Ground, last: Commit | None) -> None:
    if ground.chain.hole:
        raise UnreachableError(ground.chain.hole, last.at if last else None)


def _at_time(ground: Ground, events: Iterator[Commit | RestorePoint], time: datetime, now: datetime) -> Goal:
    """The engine stops before the first commit that is later, also where a clock that was set back hides later ones."""
    if time > now:
        raise UnreachableError(f"it lies in the future (now is {now:%Y-%m-%d %H:%M:%S} UTC)")
    last = ground.last
    for each in events:
        if not isinstance(each, Commit):
            continue
        if each.at > time and each.position < ground.taken:
            raise UnreachableError("the replica is later; take an older one")
        if each.at > time:
            line = f"recovery_target_time = {quoted(time.isoformat(sep=' '))}"
            return Goal(last, (line,), each.position, each.position, found=True)
        last = each
    if last is None or time > last.at:
        _no_hole(ground, last)
    return Goal(last)


def _before(ground: Ground, events: Iterator[Commit | RestorePoint], xid: str) -> Goal:
    if not xid.isdecimal():
        raise UnreachableError(f"{xid!r} is no transaction's number")
    number = int(xid) & 0xFFFFFFFF  # pg_current_xact_id() goes on counting where the log begins anew
    last = ground.last
    for each in events:
        if isinstance(each, Commit) and each.xid == number:
            if each.database:
                return _before_all_of(ground, each.xid)
            lines = (f"recovery_target_xid = '{each.xid}'", "recovery_target_inclusive = 'off'")
            return Goal(last, lines, each.position, each.position, found=True)
        last = each if isinstance(each, Commit) else last
    raise UnreachableError(
        f"no transaction {xid} commits in the log behind this replica" + _but(ground), last.at if last else None
    )


def _before_all_of(ground: Ground, xid: int) -> Goal:
    """Before the first record of a DROP DATABASE: its files are removed in the log before it commits.

    Before that the database is made invalid for good, by the first of its records.
    """
    begin, previous = ground.dump.begin_of_drop(ground.chain, ground.log, xid, ground.taken)
    last = last_of(itertools.takewhile(lambda each: each.position < begin, events_of(ground, ground.taken)))
    return Goal(last, (f"recovery_target_lsn = '{format_lsn(previous)}'",), begin, previous, found=True)


def _at_position(ground: Ground, events: Iterator[Commit | RestorePoint], text: str) -> Goal:
    try:
        position = parse_lsn(text)
    except ValueError:
        raise UnreachableError(f"{text!r} is no position in a log; one is written as 0/3000148") from None
    if position <= ground.taken:
        raise UnreachableError("the replica is later; take an older one")
    last, seen = ground.last, False
    for each in events:
        if each.position > position:
            seen = True
            break
        last = each if isinstance(each, Commit) else last
    if not seen and position >= ground.chain.stop:
        raise UnreachableError(
            f"the log ends at {format_lsn(ground.chain.stop)}" + _but(ground), last.at if last else None
        )
    return Goal(last, (f"recovery_target_lsn = {quoted(text)}",), on=position, found=seen)


def _at_name(ground: Ground, events: Iterator[Commit | RestorePoint], name: str) -> Goal:
    last = ground.last
    for each in events:
        if isinstance(each, RestorePoint) and each.name == name:
            return Goal(last, (f"recovery_target_name = {quoted(name)}",), on=each.position, found=True)
        last = each if isinstance(each, Commit) else last
    raise UnreachableError(
        "nothing of that name is in the log behind this replica" + _but(ground), last.at if last else None
    )


def _but(ground: Ground) -> str:
    return f"; {ground.chain.hole}" if ground.chain.hole else ""
