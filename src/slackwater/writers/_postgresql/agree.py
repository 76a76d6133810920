# SPDX-License-Identifier: Apache-2.0
"""Whether those that hold a log hold the same one.

An undo goes on with the timeline that its server was on, which the recovery that it takes back may have gone on with,
too; so does a replica that was put back by hand. Both write segments of the same names. The present one is the truth
where it is there; of others the later one is. A log is only ever appended to, so those that agree in one segment agree
in all before it.
"""

import bisect
from collections.abc import Sequence

from slackwater.writers._postgresql import segments
from slackwater.writers._postgresql.chain import Log, Source, agree, branch_at
from slackwater.writers._postgresql.history import Branch


def contradictions(
    log: Log, branches: Sequence[Branch], sources: Sequence[Source], *, since: int = 0, thorough: bool = True
) -> dict[Source, int]:
    """Those that hold another log than a later one, each with the position from which on its log does not count.

    What both hold before they part is taken from the later one.

    Args:
        log: whose.
        branches: the way, by `history.way`; only segments on it are compared.
        sources: in order of their age, the live one last; what has to be fetched from an archive is left out.
        since: older segments are not compared any more.
        thorough: False to compare less, and only with the last of them.
    """
    names = {
        each: sorted(name for name in each.names if _on_the_way(log, since, branches, name))
        for each in sources
        if not each.fetches
    }
    found: dict[Source, int] = {}
    for place, earlier in reversed(list(enumerate(names))):
        others = [each for each in list(names)[:place:-1] if each not in found and names[each]]
        for later in others[:1] + (others[:0:-1][:1] if thorough else []):
            common = sorted(set(names[earlier]) & set(names[later]), reverse=True)
            position = _parted(log, branches, common, earlier, later, thorough=thorough)
            if position is not None:
                found[earlier] = min(position, found.get(earlier, position))
    return found


def _on_the_way(log: Log, since: int, branches: Sequence[Branch], name: str) -> bool:
    if not segments.NAME.fullmatch(name):
        return False
    begin = segments.start_of(name, log.segment_bytes)
    # What lies before the way, on its first timeline, tells as much.
    branch = branch_at(branches, max(begin, branches[0].begin), log)
    return begin >= log.begin_of(since) and int(name[:8], 16) == branch.timeline


def _parted(
    log: Log, branches: Sequence[Branch], common: Sequence[str], earlier: Source, later: Source, *, thorough: bool
) -> int | None:
    """From where on the earlier of two is wrong, or not needed since both agree; None where they do not differ.

    Args:
        log: whose.
        branches: the way.
        common: segments that both have, the newest first.
        earlier: of the two.
        later: of the two.
        thorough: see `contradictions`.
    """

    def same(name: str) -> bool | None:
        branch = branch_at(branches, max(segments.start_of(name, log.segment_bytes), branches[0].begin), log)
        return agree(log, branch, name, earlier, later, thorough=thorough)

    told = ((place, answer) for place, name in enumerate(common) if (answer := same(name)) is not None)
    place, agreed = next(told, (0, True))
    if agreed:
        return None
    # Where they agree in one, they agree in all before it: so of many few have to be read.
    older = common[place + 1 :]
    place = bisect.bisect_left(older, True, key=lambda name: same(name) is True)
    return segments.start_of(older[place], log.segment_bytes) if place < len(older) else 0
