# SPDX-License-Identifier: Apache-2.0
"""The ground of a roll-forward: a replica's log with everything that may continue it, walked as a chain."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as altered

from slackwater.errors import RefusedError, SlackwaterError
from slackwater.model.component import Component
from slackwater.model.replica import ComponentRecord
from slackwater.model.target import LogSource
from slackwater.writers._postgresql import doubts, fetching, history, present
from slackwater.writers._postgresql.agree import contradictions
from slackwater.writers._postgresql.autoconf import HISTORIES, LOG
from slackwater.writers._postgresql.chain import CLONE, Chain, Log, Source, histories, walk
from slackwater.writers._postgresql.control import Control, as_owner, control_fields
from slackwater.writers._postgresql.controlfile import ControlFile, format_lsn, parse_lsn, read_control_file
from slackwater.writers._postgresql.directory import opened
from slackwater.writers._postgresql.history import Branch
from slackwater.writers._postgresql.look import Look
from slackwater.writers._postgresql.waldump import Commit, Damage, Dump, End, RestorePoint

_LABEL_START = re.compile(r"^START WAL LOCATION: (\S+) ", re.MULTILINE)


@dataclass(slots=True)
class Ground:
    """A replica's log with everything that may continue it."""

    log: Log
    image: ControlFile
    taken: int
    """Everything up to this position is in the replica itself."""
    sources: tuple[Source, ...]
    chain: Chain
    """From where the look before had come to, when there was one."""
    dump: Dump
    archive: fetching.Archive | None
    start: int
    """Where a recovery from the replica begins to read."""
    last: Commit | None = None
    """The last transaction that the look before has seen."""
    read: int | None = None
    """Where the last record begins that was read, when all was."""


@contextlib.contextmanager
def grounded(
    record: ComponentRecord, sources: Sequence[LogSource], *, thorough: bool = True, seen: Look | None = None,
    until: int | None = None,
) -> Iterator[Ground]:  # fmt: skip
    """A replica's log and all that continues it, while this is open.

    With `until` it is for the log up to that position only: nothing tells then whether the log ends where it should.

    Raises:
        UnreachableError: nothing can continue it.
    """
    component = record.component
    with contextlib.ExitStack() as stack:
        places = places_of(component)
        data = stack.enter_context(opened(sources[0].trees[places[""]]))
        image = read_control_file(data)
        if image.wal_level == "minimal":
            raise doubts.UnreachableError("its log was written with wal_level = minimal, which holds too little")
        log = Log.of(image)
        foreign = foreign_among(stack, sources, places, image)
        sources = [each for each in sources if each not in foreign]
        shown = [source for each in sources for source in folders_of(stack, each, places)]
        label = _LABEL_START.search(str(record.expected.get("backup_label") or ""))
        start = parse_lsn(label[1] if label else image.redo_lsn)
        dump = _dump(component)
        first = log.name_at(image.timeline, start)
        others = [each for each in shown if each.caption != CLONE]
        archive = fetching.among(stack, sources, component, data, image, others, first)
        found = [*shown, archive] if archive else shown
        own = shown[:1]  # its pg_wal; what was laid beside a clone of it goes further
        taken = seen.taken if seen else _taken(record, image, start, own, log, dump)
        live = _live(sources, places, image)
        if archive:
            archive.fetch_histories(image.timeline, live, histories(shown))
        branches = _way(image, start, taken, found, live)
        if until is not None:  # a timeline that begins behind it has nothing to do with it
            branches = tuple(each for each in branches if each is branches[0] or each.begin < until)
        if seen and seen.branches != branches:
            seen = None
        begin = seen.read if seen else start
        by_age = _by_age(shown, archive, sources)
        cut = contradictions(log, branches, by_age, since=seen.read if seen else 0, thorough=thorough)
        doubts.not_another(branches[0].timeline, own, by_age, cut)
        chain = walk(log, begin, branches, shown, thorough=thorough, cut=cut, until=until)
        enough = until is not None and chain.stop >= until
        known = _all_known(sources, places, branches[-1].timeline, log, cut)
        if archive and not enough and not _ends_live(chain, log, sources[-1], known, archive.witness):
            chain = walk(log, begin, branches, found, thorough=thorough, cut=cut, until=until)
        ahead = [f"{who} knows of {format_lsn(at)}" for at, who in sorted(known, reverse=True) if at > chain.stop]
        further = archive.beyond(chain, log, sure=bool(known[-1][0]) or until is not None) if archive else []
        ahead = [*doubts.two_histories(cut, sources, known), *ahead, *doubts.behind(sources, known, image)]
        gone = [*doubts.replaced(foreign), *doubts.gone(sources, found)]
        why = [*ahead, *gone, *further, *doubts.open_end(chain, log, known)]
        if why and not chain.hole:
            chain = altered(chain, hole=f"the log ends at {format_lsn(chain.stop)}, and {why[0]}")
        if archive and archive.trouble and chain.hole:
            chain = altered(chain, hole=f"{chain.hole}; {archive.caption} cannot be asked: {archive.trouble}")
        if not seen:
            doubts.not_past_the_fork(log, start, branches, own, dump)
        if not live and thorough and until is None:
            doubts.not_gone_on(chain, log, found, dump)
        yield Ground(
            log, image, taken, tuple(found), chain, dump, archive, start, seen.last if seen else None
        )  # fmt: skip


def _taken(record: ComponentRecord, image: ControlFile, start: int, own: Sequence[Source], log: Log, dump: Dump) -> int:
    """Up to where everything is in the replica: its files were still written to between its mark and its instant."""
    taken = parse_lsn(str(record.expected.get("lsn") or image.checkpoint_lsn))
    if record.expected.get("backup_label"):
        return taken  # the end of the backup, and the engine sees to it
    last = dump.last(walk(log, start, [Branch(image.timeline, start)], own), log, taken)
    return taken if last is None else max(taken, last + 1)


def places_of(component: Component) -> dict[str, str]:
    """By the link through which the engine reaches it (empty for the data directory): where a file set lies."""
    return {each.via: each.path for each in component.files}


def folders_of(stack: contextlib.ExitStack, source: LogSource, places: Mapping[str, str]) -> Iterator[Source]:
    """The folders with log of a source, those that are there."""
    with contextlib.suppress(OSError, RefusedError, KeyError):
        if "pg_wal" in places:
            yield Source(source.caption, stack.enter_context(opened(source.trees[places["pg_wal"]])))
        else:
            data = stack.enter_context(opened(source.trees[places[""]]))
            yield Source(source.caption, stack.enter_context(opened("pg_wal", data)))
    for name in (LOG, HISTORIES):
        with contextlib.suppress(OSError, KeyError):
            data = stack.enter_context(opened(source.trees[places[""]]))
            yield Source(source.caption, stack.enter_context(opened(name, data)))


def foreign_among(
    stack: contextlib.ExitStack, sources: Sequence[LogSource], places: Mapping[str, str], image: ControlFile
) -> list[LogSource]:
    """The live source, where another cluster lies in its place: what it says of its log says nothing of ours."""
    return [
        each
        for each in sources
        if each.live and present.foreign(each.trees.get(places[""]), list(folders_of(stack, each, places)), image)
    ]


def _live(sources: Sequence[LogSource], places: Mapping[str, str], image: ControlFile) -> list[int]:
    """The timelines that the application may be on now, the likeliest first."""
    for source in sources:
        if source.live:
            with contextlib.suppress(OSError, SlackwaterError, KeyError):
                control = read_control_file(source.trees[places[""]])
                if control.intact and control.system_identifier == image.system_identifier:
                    return [control.timeline]
            with contextlib.ExitStack() as stack:
                names = [name for each in folders_of(stack, source, places) for name in each.names]
            matches = (history.OF_TIMELINE.fullmatch(name) for name in names)
            return sorted({int(match[1], 16) for match in matches if match}, reverse=True)
    return []


def _way(
    image: ControlFile, start: int, taken: int, sources: Sequence[Source], live: Sequence[int]
) -> tuple[Branch, ...]:
    """The timelines from the replica to the one that the application is on, or was last."""
    known = histories(sources)
    if not live:
        doubts.must_be_one_way(image.timeline, taken, known)
    why = ""
    for goal in live or [*sorted(known, reverse=True), image.timeline]:
        try:
            history.way(image.timeline, taken, goal, known)  # nothing of the replica may lie behind the fork
            return history.way(image.timeline, start, goal, known)
        except ValueError as e:
            why = why or str(e)
    if not live:
        return (Branch(image.timeline, start),)
    raise doubts.UnreachableError(f"the present data does not stem from this replica: {why}")


def _known(source: LogSource, places: Mapping[str, str], timeline: int, log: Log) -> tuple[int, str]:
    """A position that a source's engine is known to have reached on this timeline."""
    with contextlib.suppress(OSError, SlackwaterError, KeyError):
        control = read_control_file(source.trees[places[""]])
        if (control.system_identifier, control.timeline) == (log.system_identifier, timeline) and control.intact:
            return parse_lsn(control.checkpoint_lsn), source.caption
    return 0, ""


def _all_known(
    sources: Sequence[LogSource], places: Mapping[str, str], timeline: int, log: Log, cut: Mapping[Source, int]
) -> list[tuple[int, str]]:
    """The same of each; one with another history of the timeline tells nothing of this one."""
    another = {each.caption for each in cut}
    return [(0, "") if each.caption in another else _known(each, places, timeline, log) for each in sources]


def _by_age(shown: Sequence[Source], archive: Source | None, sources: Sequence[LogSource]) -> list[Source]:
    """The present log last, and an archive first: it may have what was before."""
    live = [each for each in shown if each.caption in {one.caption for one in sources if one.live}][:1]
    return [*([archive] if archive else []), *(each for each in shown if each not in live), *live]


def _ends_live(chain: Chain, log: Log, last: LogSource, known: Sequence[tuple[int, str]], archived: str) -> bool:
    """Whether a chain ends where the live log does, so that no archive has anything to add.

    That is in the middle of a segment of the live server's, behind all that any control file tells and that was
    archived.
    """
    if not chain.links or not last.live or chain.hole:
        return False
    end = chain.links[-1]
    ends = end.source.caption == last.caption and chain.stop % log.segment_bytes != 0
    return ends and known[-1][0] > 0 and max(known)[0] <= chain.stop and archived < end.name


def _dump(component: Component) -> Dump:
    control = Control(**control_fields(component.ref.name, component.facts))
    return Dump(os.path.join(control.bin_dir, "pg_waldump"), as_owner(control))


def events_of(ground: Ground, since: int) -> Iterator[Commit | RestorePoint]:
    """What happened from a position on; where the log is damaged it has a hole, which is known when all is read."""
    for each in ground.dump.events(ground.chain, ground.log, since):
        if isinstance(each, Damage):
            hole = f"the log is damaged behind {format_lsn(each.position)} ({each.why}), and goes on"
            ground.chain = altered(ground.chain, hole=hole)
        elif isinstance(each, End):
            ground.read = each.position
        else:
            yield each
