# SPDX-License-Identifier: Apache-2.0
"""What stands against a log: an end that may be none, or one history of several, where nothing tells which counts.

Some of it refuses whatever the target is (UnreachableError); the rest is a hole, which stands against all behind it.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from slackwater.model.target import LogSource
from slackwater.writers._postgresql import history
from slackwater.writers._postgresql.chain import Chain, Log, Source, walk
from slackwater.writers._postgresql.controlfile import ControlFile, format_lsn, parse_lsn
from slackwater.writers._postgresql.history import Branch
from slackwater.writers._postgresql.waldump import Commit, Dump, RestorePoint, last_of

_CHOOSE = "begin with a replica that was made on the timeline that you want (--replica)"


class UnreachableError(Exception):
    """A target cannot be reached; `last` is the last moment that can."""

    def __init__(self, why: str, last: datetime | None = None) -> None:
        super().__init__(why)
        self.last = last


def gone(sources: Sequence[LogSource], found: Sequence[Source]) -> list[str]:
    """The live log, where nothing is left of it: nobody knows how far it went."""
    left = {each.caption for each in found if any(history.OF_TIMELINE.fullmatch(name) for name in each.names)}
    return [f"nothing is left of that of {each.caption}" for each in sources if each.live and each.caption not in left]


def not_another(timeline: int, own: Sequence[Source], by_age: Sequence[Source], cut: Mapping[Source, int]) -> None:
    """Refuse a replica whose own log is another than the one that is believed."""
    if own and own[0] in cut:
        believed = [each.caption for each in by_age if each not in cut and each.names][-1]
        raise UnreachableError(
            f"timeline {timeline} has two histories, and a later one than this replica's is in {believed}"
        )


def behind(sources: Sequence[LogSource], known: Sequence[tuple[int, str]], image: ControlFile) -> list[str]:
    """The present data, where it has not come as far as the replica: it is no continuation of it."""
    of_live = [at for each, (at, _) in zip(sources, known, strict=True) if each.live and at]
    return [f"the present data only goes to {format_lsn(at)}" for at in of_live if at < parse_lsn(image.checkpoint_lsn)]


def two_histories(
    cut: Mapping[Source, int], sources: Sequence[LogSource], known: Sequence[tuple[int, str]]
) -> list[str]:
    """Log that was left out, where no present data tells that this is right."""
    if not cut or any(at for each, (at, _) in zip(sources, known, strict=True) if each.live):
        return []
    return [f"{' and '.join(sorted({each.caption for each in cut}))} has another history of the same timeline"]


def replaced(foreign: Sequence[LogSource]) -> list[str]:
    """The live log, where another cluster took its place: nobody knows how far it went."""
    return [f"nothing is left of that of {each.caption}: another cluster lies there" for each in foreign]


def open_end(chain: Chain, log: Log, known: Sequence[tuple[int, str]]) -> list[str]:
    """An end that may be none: it lies between two segments, and no control file tells how far the engine had come.

    An engine at work is in the middle of a segment; where one is whole, the next may be missing.
    """
    whole = bool(chain.links) and chain.stop % log.segment_bytes == 0
    return ["nothing tells whether another segment followed"] if whole and not known[-1][0] else []


def not_past_the_fork(log: Log, start: int, branches: Sequence[Branch], own: Sequence[Source], dump: Dump) -> None:
    """Refuse a replica whose own log goes beyond the position at which the next timeline left it."""
    if len(branches) == 1:
        return
    chain = walk(log, start, branches[:1], own)
    if chain.stop > branches[1].begin and dump.goes_beyond(chain, log, branches[1].begin):
        raise UnreachableError(
            f"timeline {branches[1].timeline} left timeline {branches[0].timeline} at"
            f" {format_lsn(branches[1].begin)}, before the end of this replica"
        )


def must_be_one_way(timeline: int, taken: int, known: Mapping[int, tuple[tuple[int, int], ...]]) -> None:
    """Refuse to choose among timelines where nothing tells which the application was on."""
    ways = []
    for goal in known:
        with contextlib.suppress(ValueError):
            ways.append(history.way(timeline, taken, goal, known))
    ends = [way for way in ways if not any(way[-1] in other[:-1] for other in ways)]
    if len(ends) > 1:
        names = " and ".join(f"{way[-1].timeline} (from {format_lsn(way[-1].begin)} on)" for way in ends)
        raise UnreachableError(
            f"timelines {names} lead on from this replica, and no live log tells which was the last; {_CHOOSE}"
        )


def not_gone_on(chain: Chain, log: Log, sources: Sequence[Source], dump: Dump) -> None:
    """Refuse a timeline when one that it left was written to later: after an undo it is the older one that counts."""
    last = last_of(_points(dump, chain, log, chain.branches[-1].begin)) if len(chain.branches) > 1 else None
    for place, (parent, child) in enumerate(itertools.pairwise(chain.branches), 1):
        older = walk(log, chain.start, chain.branches[:place], sources)
        if older.stop <= child.begin:
            continue
        other = last_of(_points(dump, older, log, child.begin))
        if other and (last is None or other.at > last.at):
            ends = f"of {last.at:%Y-%m-%dT%H:%M:%S.%fZ}" if last else "not there"
            raise UnreachableError(
                f"no live log tells which timeline was the last: the last commit of timeline {parent.timeline} is of"
                f" {other.at:%Y-%m-%dT%H:%M:%S.%fZ}, that of timeline {chain.timeline} is {ends}; {_CHOOSE}"
            )


def _points(dump: Dump, chain: Chain, log: Log, since: int) -> Iterator[Commit | RestorePoint]:
    return (each for each in dump.events(chain, log, since) if isinstance(each, Commit | RestorePoint))
