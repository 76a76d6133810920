# SPDX-License-Identifier: Apache-2.0
"""The log as a chain: from which files, of which sources, an engine can go from a replica to a target.

An engine takes a segment that it does not get for the end of the log, and calls that a success. So the chain is walked
before anything is stopped: every segment on the way through the timelines, wherever it still lies, header by header.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from slackwater.writers._postgresql import history, segments
from slackwater.writers._postgresql.controlfile import ControlFile, format_lsn
from slackwater.writers._postgresql.history import Branch

#: How the folders of the clone that is made ready are called.
CLONE = "the clone"
_HISTORY_BYTES = 1 << 20
#: For a list it is enough to compare the end of a segment: from where two logs part, all differs.
_TAIL_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Log:
    """What is known of a cluster's log before it is walked."""

    system_identifier: str
    segment_bytes: int

    @classmethod
    def of(cls, image: ControlFile) -> "Log":
        """The log of the cluster that a control file is of."""
        return cls(image.system_identifier, image.segment_bytes)

    def name_at(self, timeline: int, position: int) -> str:
        """The segment that holds a position."""
        return segments.name_of(timeline, position, self.segment_bytes)

    def begin_of(self, position: int) -> int:
        """Where the segment with this position begins."""
        return position - position % self.segment_bytes


class Source:
    """A folder with a part of the log. A subclass may fetch what it does not show."""

    archived = False
    """Whether it is an archive, which is asked for what nobody else has."""
    fetches = False
    """Whether it shows only what was asked for."""

    def __init__(self, caption: str, folder: int) -> None:
        """Take a folder by descriptor; it stays the caller's, and open for as long as this is used.

        Args:
            caption: what it is, for people: "the live server", "the replica 2026-11-22-1".
            folder: of the segments, histories beside them.
        """
        self.caption, self.folder = caption, folder
        self.names = frozenset(os.listdir(folder))

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[int | None]:
        """A file of it by descriptor; None when it is not here, or cannot be read."""
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self.folder)
        except OSError:
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Link:
    """A segment of the chain, and who has the most of it."""

    name: str
    source: Source
    stop: int
    """The position behind the last page that it holds."""


@dataclass(frozen=True, slots=True)
class Chain:
    """As much of the log as there is without a hole."""

    branches: tuple[Branch, ...]
    """The timelines on the way, the replica's first."""
    start: int
    """Where a recovery from the replica begins to read."""
    links: tuple[Link, ...]
    stop: int
    """The position behind the last page that is to be had; the log ends in that page, or the one before."""
    hole: str = ""
    """What is missing although the log went on; empty when this is all there ever was."""

    @property
    def timeline(self) -> int:
        """The one it ends on."""
        return self.branches[-1].timeline

    def names_of(self, link: Link, log: Log) -> list[str]:
        """The names under which an engine looks for a segment, on the way to whichever of the timelines.

        One in which a timeline leaves another begins as the older one's does, so it serves as both.
        """
        begin = segments.start_of(link.name, log.segment_bytes)
        newest = branch_at(self.branches, begin, log)
        older = [each for each in self.branches if begin < each.begin <= newest.begin]
        parents = [self.branches[self.branches.index(each) - 1] for each in older if each is not self.branches[0]]
        return [log.name_at(each.timeline, begin) for each in (newest, *parents)]


def goes_on(chain: Chain, log: Log, position: int, stop: int) -> bool:
    """Whether records begin behind the page with a position, well before one at which the log is known to end."""
    for link in chain.links:
        begin = segments.start_of(link.name, log.segment_bytes)
        if link.stop <= position or stop <= begin:
            continue
        with link.source.opened(link.name) as fd:
            first, last = max(0, position + 1 - begin), min(stop, link.stop) - begin
            if fd is not None and segments.pages_with_records(fd, first, last):
                return True
    return False


def histories(sources: Iterable[Source]) -> dict[int, tuple[tuple[int, int], ...]]:
    """Every real history among the sources; what only notes that a number is taken is none."""
    found: dict[int, tuple[tuple[int, int], ...]] = {}
    for source in sources:
        for name in sorted(source.names):
            if (match := history.NAME.fullmatch(name)) and int(match[1], 16) not in found:
                with source.opened(name) as fd, contextlib.suppress(ValueError, OSError):
                    if fd is not None:
                        found[int(match[1], 16)] = history.parse(os.pread(fd, _HISTORY_BYTES, 0).decode())
    return found


def walk(
    log: Log, start: int, branches: Sequence[Branch], sources: Sequence[Source], *, thorough: bool = True,
    cut: Mapping[Source, int] | None = None, until: int | None = None,
) -> Chain:  # fmt: skip
    """Follow the log from a position through the timelines for as long as some source holds it.

    Args:
        log: whose.
        start: where a recovery begins to read (the redo position of the replica's checkpoint).
        branches: the way, by `history.way`.
        sources: all that may hold a part, in order of their age: of two that hold as many pages of the log's end, the
            later one has more in the last.
        thorough: False to look only at the first and the last page of segments, which is enough to tell how far it
            goes, and not to recover by.
        cut: sources whose log does not count from a position on, see `agree.contradictions`.
        until: no segment behind this position is looked at; None for all that there is.
    """
    cut = cut or {}
    agreeing = [each for each in sources if each not in cut]
    links: list[Link] = []
    position, whole = start, True
    while whole and (until is None or position < until):
        branch = branch_at(branches, position, log)
        holding = [each for each in sources if cut.get(each, position + 1) > position]
        best, whole = _best(log, branch, position, holding, thorough=thorough)
        if best is None or best.stop <= position:
            break
        links.append(best)
        position = log.begin_of(position) + log.segment_bytes if whole else best.stop
        if whole and best.source.fetches and not thorough:
            leapt = _leap(log, branches, position, best.source, agreeing)
            links += leapt
            position = leapt[-1].stop if leapt else position
    return Chain(tuple(branches), start, tuple(links), position, _hole(log, branches, position, agreeing))


def branch_at(branches: Sequence[Branch], position: int, log: Log) -> Branch:
    """Whose segment an engine reads at a position: of those that begin in it or before, the last."""
    end = log.begin_of(position) + log.segment_bytes
    return [each for each in branches if each.begin < end][-1]


def _best(
    log: Log, branch: Branch, position: int, sources: Sequence[Source], *, thorough: bool
) -> tuple[Link | None, bool]:
    """Who holds most of a segment, and whether the log goes on behind it.

    The last page of a segment is in place as soon as something stands in it. Only one who has the next segment, too, is
    known to have all of it; else a later one has at least as much.
    """
    name, following = log.name_at(branch.timeline, position), log.begin_of(position) + log.segment_bytes
    best: Link | None = None
    whole = False
    for source in sorted(sources, key=lambda each: each.archived):
        with source.opened(name) as fd:
            if fd is None:
                continue
            try:
                found = segments.extent(
                    fd, name, branch.timeline, branch.begin, log.segment_bytes, log.system_identifier,
                    thorough=thorough,
                )  # fmt: skip
            except OSError:
                continue
        # What has to be fetched could not be compared before: where it holds another log, the one that is here counts.
        if source.fetches and best and agree(log, branch, name, source, best.source, thorough=thorough) is False:
            continue
        # An archive has the pages of whole segments only; of another's last, the live server may know more.
        least = best is not None and (found.whole, found.stop) == (whole, best.stop)
        newer = found.whole or not source.archived
        if best is None or (found.whole, found.stop) > (whole, best.stop) or (least and newer):
            best, whole = Link(name, source, found.stop), found.whole
        if found.whole and (source.archived or _has(source, log.name_at(branch.timeline, following), branch, log)):
            break
    return best, whole


def agree(log: Log, branch: Branch, name: str, earlier: Source, later: Source, *, thorough: bool = True) -> bool | None:
    """Whether two hold the same in one segment, as far as both go; None where one of them holds nothing of it.

    The last two pages of the earlier one do not count where its log ends in them: the engine may have written them
    again.
    """
    with earlier.opened(name) as one, later.opened(name) as two:
        if one is None or two is None:
            return None
        begin = segments.start_of(name, log.segment_bytes)
        try:
            first, second = (
                segments.extent(
                    each, name, branch.timeline, branch.begin, log.segment_bytes, log.system_identifier,
                    thorough=thorough,
                ).stop - begin
                for each in (one, two)
            )  # fmt: skip
            if not (first and second):
                return None
            stop = min(first, second)
            since = 0 if thorough else max(0, stop - _TAIL_BYTES)
            mine, its = (os.pread(each, stop - since, since).rstrip(b"\0") for each in (one, two))
            final = earlier.archived or _has(
                earlier, log.name_at(branch.timeline, begin + log.segment_bytes), branch, log
            )
            loose = 0 if final else 2 * segments.page_bytes_of(one)
        except OSError:
            return None
    counting = len(its) if len(mine) > len(its) else max(0, len(mine) - loose)
    return mine[:counting] == its[:counting] if counting else None


def _has(source: Source, name: str, branch: Branch, log: Log) -> bool:
    """Whether a source holds at least the beginning of a segment."""
    if name not in source.names:
        return False
    with source.opened(name) as fd:
        return fd is not None and _begun(fd, name, branch, log)


def _leap(
    log: Log, branches: Sequence[Branch], position: int, archive: Source, sources: Sequence[Source]
) -> list[Link]:
    """The segments that an archive has from a position on, for a list: the last is asked for, and not those between."""
    branch, size = branch_at(branches, position, log), log.segment_bytes
    first = position // size
    limit = _known_from(log, branches, branch, position, [each for each in sources if not each.fetches])

    def has(number: int) -> bool:
        name = log.name_at(branch.timeline, number * size)
        with archive.opened(name) as fd:
            return fd is not None and _begun(fd, name, branch, log)

    if limit is not None and (limit <= first or has(limit - 1)):
        end = max(limit, first)
    else:
        end, step = first, 1
        while (limit is None or first + step < limit) and has(first + step - 1):
            end, step = first + step, step * 2
        lacking = first + step if limit is None else min(first + step, limit)
        while end < lacking - 1:
            middle = (end + lacking) // 2
            end, lacking = (middle, lacking) if has(middle - 1) else (end, middle)
    return [Link(log.name_at(branch.timeline, each * size), archive, (each + 1) * size) for each in range(first, end)]


def _known_from(
    log: Log, branches: Sequence[Branch], branch: Branch, position: int, sources: Sequence[Source]
) -> int | None:
    """The number of the first segment behind a position that one of these has, or that is another timeline's."""
    found = [each.begin // log.segment_bytes for each in branches if each.begin > position]
    wanted = log.name_at(branch.timeline, position)
    for source in sources:
        for name in sorted(source.names):
            if segments.NAME.fullmatch(name) and name[:8] == wanted[:8] and name >= wanted:
                with source.opened(name) as fd:
                    if fd is not None and _begun(fd, name, branch, log):
                        found.append(segments.start_of(name, log.segment_bytes) // log.segment_bytes)
                        break
    return min(found, default=None)


def _hole(log: Log, branches: Sequence[Branch], stop: int, sources: Sequence[Source]) -> str:
    """Whether any source holds something of the log that lies behind its end."""
    last = branches[-1]
    if stop < last.begin:
        name = log.name_at(branch_at(branches, stop, log).timeline, stop)
        return f"the log ends at {format_lsn(stop)} (in {name}), before timeline {last.timeline} began"
    missing = log.name_at(last.timeline, stop)
    for source in sources:
        for name in sorted(source.names, reverse=True):
            if segments.NAME.fullmatch(name) and int(name[:8], 16) == last.timeline and name > missing:
                with source.opened(name) as fd:
                    if fd is not None and _begun(fd, name, last, log):
                        return f"{missing} is missing or not whole, and {source.caption} has {name}"
    return ""


def _begun(fd: int, name: str, branch: Branch, log: Log) -> bool:
    """Whether a segment's first page is of its own log: the engine keeps old ones under future names."""
    with contextlib.suppress(OSError):
        header = segments.header_at(fd, 0)
        begin = segments.start_of(name, log.segment_bytes)
        return header is not None and header.address == begin and header.timeline == branch.timeline
    return False
