# SPDX-License-Identifier: Apache-2.0
"""Transactions of the log by which rows were lost, as it tells them: in numbers. `lossnames.py` finds the names.

What the log tells, by `pg_waldump` of 15 to 18: a commit lists the files that it removes (`rels:`) and the numbers of
what it dropped (`dropped stats:`, https://www.postgresql.org/docs/15/pgwaldump.html). TRUNCATE removes files and drops
nothing. Whatever writes a table anew (VACUUM FULL, CLUSTER, most of ALTER TABLE, REFRESH) does it in a table that it
makes and drops, whose file stays: its number is dropped, was created, and is not removed. So the two can be told apart.
"""

import itertools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from slackwater.model.replica import ComponentRecord
from slackwater.model.target import LogSource, Loss, Losses, RecoveryTarget, TargetKind
from slackwater.writers._postgresql.chain import Chain, Log
from slackwater.writers._postgresql.controlfile import format_lsn, parse_lsn
from slackwater.writers._postgresql.doubts import UnreachableError
from slackwater.writers._postgresql.ground import grounded
from slackwater.writers._postgresql.waldump import Dump, committed_at, shown, stretches

#: A transaction that deleted or changed more rows of a table than this is named.
MANY_ROWS = 1000
#: Numbers below are of the engine's own catalogs (FirstNormalObjectId of transam.h).
FIRST_OF_USERS = 16384

_MANAGERS = tuple(f"--rmgr={each}" for each in ("Transaction", "Storage", "Standby", "Heap", "Heap2", "Sequence"))
_DESC = b"desc: "
_FILE_OF_ROW = re.compile(rb".*?rel \d+/(\d+)/(\d+)")
#: XLH_DELETE_IS_PARTITION_MOVE of heapam_xlog.h: an UPDATE took the row to another partition.
_MOVED = re.compile(rb"flags:? 0x1")
_RECORD = re.compile(r"rmgr: (\w+) .*?tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), .*?desc: (.*)")
_END = re.compile(r"(COMMIT|ABORT)(?:_PREPARED)? (?:(\d+): )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC(.*)")
_PARTS = re.compile(r"; (rels|subxacts|dropped stats):((?: [\w/]+)+)")
_CREATE = re.compile(r"CREATE ((?:\w+/)*\d+/\d+)\s*$")
_SEQUENCE = re.compile(r"LOG rel \d+/(\d+)/(\d+)")
_LOCK = re.compile(r"xid (\d+) db (\d+) rel (\d+)")
_FILE = re.compile(r"(?:\w+/)*\d+/\d+")
_DROPPED = re.compile(r"(\d+)/(\d+)/(\d+)")
_DATABASE, _RELATION = 1, 2
"""PGSTAT_KIND_DATABASE and PGSTAT_KIND_RELATION of pgstat.h."""

Key = tuple[int, int]
"""A database, and a relation or a file in it."""


@dataclass(slots=True)
class Change:
    """What one transaction did, as far as rows can be lost by it."""

    xid: int
    at: str = ""
    """When it committed (ISO 8601)."""
    steps: list[str | Key] = field(default_factory=list)
    """In their order: files that it made (`base/5/16385`), and relations that it locked against everybody."""
    removed: list[str] = field(default_factory=list)
    """Files."""
    dropped: list[Key] = field(default_factory=list)
    databases: list[int] = field(default_factory=list)
    """Databases that it dropped."""
    deleted: dict[Key, int] = field(default_factory=dict)
    """How many rows, by file."""
    updated: dict[Key, int] = field(default_factory=dict)

    @property
    def created(self) -> list[str]:
        """Files that it made."""
        return [each for each in self.steps if isinstance(each, str)]

    @property
    def locked(self) -> list[Key]:
        """Relations that it locked."""
        return [each for each in self.steps if not isinstance(each, str)]

    @property
    def fresh(self) -> list[Key]:
        """Tables that it made: one is locked before its file is made, and an index after."""
        made: list[Key] = []
        for place, each in enumerate(self.steps):
            if isinstance(each, str) and (key := key_of(each)) in self.steps[:place]:
                made.append(key)
        return made

    def gone(self) -> list[str]:
        """Files that were there before, and are removed."""
        created = set(self.created)
        return [each for each in self.removed if each not in created]

    def rewritten(self) -> list[Key]:
        """Files that took the place of others with all their rows, in their order."""
        removed, dropped = set(map(key_of, self.removed)), set(self.dropped)
        return [each for each in map(key_of, self.created) if each in dropped and each not in removed]

    def successors(self, tables: Sequence[Key], sequences: Collection[Key]) -> list[Key]:
        """The new files of these tables, each of which has lost its file, in the order in which they were locked.

        Nothing where that cannot be told. What writes anew makes a table, and where there are long values one for them
        and that one's index; TRUNCATE makes a file right after the lock of a table (or of its sequences) or after
        another file; it locks what else it makes a file for.
        """
        rewritten, fresh, locked = set(self.rewritten()), set(self.fresh), set(self.locked)
        created = list(map(key_of, self.created))
        found: list[Key] = []
        for place, step in enumerate(self.steps):
            if not isinstance(step, str):
                continue
            key, after = key_of(step), created[created.index(key_of(step)) + 1 :][:1]
            if key in rewritten and key in fresh:
                if not after or after[0] not in rewritten or after[0] in fresh:
                    found.append(key)
            elif key not in locked and key not in rewritten:
                before = self.steps[place - 1] if place else step
                if isinstance(before, str) or before in tables or before in sequences:
                    found.append(key)
        return found if len(found) == len(tables) else []


def key_of(file: str) -> Key:
    """A file without its folder."""
    database, number = file.split("/")[-2:]
    return int(database), int(number)


def find(record: ComponentRecord, sources: Sequence[LogSource], until: str) -> Losses:
    """Read the log behind a replica; see the contract."""
    # All that an archive has to give is fetched for this, and a hole in it is to be seen.
    thorough = any(each.archive is not None for each in sources)
    last = parse_lsn(until) if until else None
    try:
        with grounded(record, sources, thorough=thorough, until=last) as ground:
            end = ground.chain.stop if last is None else last
            changes, filled = read(ground.dump, ground.chain, ground.log, ground.taken, end)
            since = format_lsn(ground.taken)
            against = ground.chain.hole if last is None else ""
            if last is not None and ground.chain.stop < last:
                ends = f"the log ends at {format_lsn(ground.chain.stop)}, and what leads on to {until} is missing"
                against = ground.chain.hole or ends
    except UnreachableError as e:
        return Losses(since="", against=str(e))
    found = [Loss(moment(each), target(each), what) for each in changes if (what := tuple(in_numbers(each)))]
    evidence = kept(changes, filled) if found else ""
    return Losses(since, tuple(reversed(found)), evidence, against, lacking=bool(against))


def moment(change: Change) -> datetime:
    """When it committed."""
    return datetime.fromisoformat(change.at)


def target(change: Change) -> RecoveryTarget:
    """Right before it."""
    return RecoveryTarget(TargetKind.BEFORE, str(change.xid))


def in_numbers(change: Change) -> Iterator[str]:
    """Say what it did, without a catalog that would know names."""
    for number in change.databases:
        yield f"dropped database {number}"
    by_database: dict[int, list[int]] = {}
    for database, number in [] if change.rewritten() else map(key_of, change.gone()):
        if number >= FIRST_OF_USERS:
            by_database.setdefault(database, []).append(number)
    for database, numbers in by_database.items():
        yield f"removed {listed([f'file {each}' for each in sorted(numbers)])} of database {database}"
    for verb, counted in (("deleted", change.deleted), ("changed", change.updated)):
        for (database, number), count in counted.items():
            yield f"{verb} {count:,} rows of file {number} of database {database}"


def listed(names: list[str], most: int = 3) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def kept(changes: Sequence[Change], filled: Collection[Key]) -> str:
    """Keep for the names what `stored` reads."""
    return json.dumps({"changes": [_stored(each) for each in changes], "filled": sorted(filled)})


def stored(evidence: str) -> tuple[list[Change], set[Key]]:
    """Read what `find` kept for the names: the changes in the order of the log, and the files that got rows."""
    told = json.loads(evidence)
    return [_restored(each) for each in told["changes"]], {(each[0], each[1]) for each in told["filled"]}


def _stored(change: Change) -> dict[str, object]:
    return {
        "xid": change.xid, "at": change.at, "steps": change.steps, "removed": change.removed,
        "dropped": change.dropped, "databases": change.databases,
        "deleted": [(*key, count) for key, count in change.deleted.items()],
        "updated": [(*key, count) for key, count in change.updated.items()],
    }  # fmt: skip


def _restored(told: dict[str, Any]) -> Change:
    counts = {name: {(each[0], each[1]): each[2] for each in told[name]} for name in ("deleted", "updated")}
    steps = [each if isinstance(each, str) else (each[0], each[1]) for each in told["steps"]]
    return Change(**{**told, **counts, "steps": steps, "dropped": [(each[0], each[1]) for each in told["dropped"]]})


# -- the log ----------------------------------------------------------------------------------------------------------


def read(dump: Dump, chain: Chain, log: Log, since: int, until: int) -> tuple[list[Change], set[Key]]:
    """Every change that committed between two positions, and the files that got rows in pages of their own.

    Raises:
        SlackwaterError: the program is not there, or cannot read the log.
    """
    reading = Reading()
    with shown(chain, log) as (folder, fds):
        for timeline, start, stop in stretches(chain, since):
            reading.begin(min(stop, until))
            for line in dump.lines(folder, fds, log, timeline, start, stop, *_MANAGERS) if start < until else ():
                if not reading.take(line):
                    break
    made = {key for each in reading.changes for key in map(key_of, each.created)}
    return reading.changes, reading.filled & made


class Reading:
    """What was read so far, up to a position."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.changes: list[Change] = []
        self.filled: set[Key] = set()
        self._until = 0
        self._sequences: set[Key] = set()
        self._order = itertools.count()
        self._open: dict[int, list[tuple[int, str | Key]]] = {}
        self._rows: dict[bytes, dict[tuple[bool, bytes], int]] = {}

    def begin(self, until: int) -> None:
        """Begin with a timeline, of which no commit at a position or behind it counts. No transaction goes on in it."""
        self._until = until
        self._open.clear()
        self._rows.clear()

    def take(self, line: bytes) -> bool:
        """Take one line; False behind the end."""
        if line.startswith(b"rmgr: Heap"):
            self._heap(line)
            return True
        record = _RECORD.match(line.decode(errors="replace"))
        if record is None:
            return True
        manager, xid, what = record[1], int(record[2]), record[4]
        if manager == "Transaction" and (end := _END.match(what)):
            if parse_lsn(record[3]) >= self._until:
                return False
            with suppress(ValueError):  # a time that is none
                self._ended(int(end[2] or xid), end)
        self._step(manager, xid, what)
        return True

    def _step(self, manager: str, xid: int, what: str) -> None:
        if manager == "Storage" and (created := _CREATE.match(what)):
            self._open.setdefault(xid, []).append((next(self._order), created[1]))
        elif manager == "Sequence" and (file := _SEQUENCE.match(what)):
            self._sequences.add((int(file[1]), int(file[2])))
        elif manager == "Standby" and what.startswith("LOCK"):
            for lock in _LOCK.finditer(what):
                step = (next(self._order), (int(lock[2]), int(lock[3])))
                self._open.setdefault(int(lock[1]), []).append(step)

    def _heap(self, line: bytes) -> None:
        """Such lines are most of it by far, so they are only cut: the same words stand for the same rows."""
        at = line.find(_DESC) + 6
        word = line[at : at + 2]
        if word in (b"DE", b"UP", b"HO") and not (word == b"DE" and _MOVED.search(line, at)):
            tx = line.find(b"tx: ")
            rows = self._rows.setdefault(line[tx + 4 : line.find(b",", tx)], {})
            what = word == b"DE", line[line.rfind(b"rel ") : line.rfind(b" blk ")]
            rows[what] = rows.get(what, 0) + 1
        if line.find(b"+INIT", at, at + 20) >= 0 and (match := _FILE_OF_ROW.search(line, at)):
            self.filled.add((int(match[1]), int(match[2])))

    def _rows_of(self, transactions: Sequence[int]) -> Iterator[tuple[bool, Key, int]]:
        """Whether they were deleted or changed, in which file, and how many."""
        counted: Counter[tuple[bool, Key]] = Counter()
        for each in transactions:
            for (deleted, where), count in self._rows.pop(b"%10d" % each, {}).items():
                match = _FILE_OF_ROW.match(where)
                if match and int(match[2]) >= FIRST_OF_USERS:
                    counted[deleted, (int(match[1]), int(match[2]))] += count
        for (deleted, key), count in counted.items():
            if count > MANY_ROWS:
                yield deleted, key, count

    def _ended(self, xid: int, end: re.Match[str]) -> None:
        """With it end its parts; those that were rolled back alone have ended before."""
        parts = {match[1]: match[2].split() for match in _PARTS.finditer(end[4])}
        all_of_it = [xid, *(int(each) for each in parts.get("subxacts", ()) if each.isdecimal())]
        steps = sorted((step for each in all_of_it for step in self._open.pop(each, ())), key=lambda step: step[0])
        rows = list(self._rows_of(all_of_it))
        if end[1] == "ABORT":
            return
        change = Change(
            xid,
            committed_at(end[3]).isoformat(),
            [step for _, step in steps if not (isinstance(step, str) and key_of(step) in self._sequences)],
            removed=[each for each in parts.get("rels", ()) if _FILE.fullmatch(each)],
            deleted={key: count for deleted, key, count in rows if deleted},
            updated={key: count for deleted, key, count in rows if not deleted},
        )
        for match in map(_DROPPED.fullmatch, parts.get("dropped stats", ())):
            if match and int(match[1]) == _RELATION:
                change.dropped.append((int(match[2]), int(match[3])))
            elif match and int(match[1]) == _DATABASE:
                change.databases.append(int(match[2]))
        if change.removed or change.created or change.dropped or change.databases or rows:
            self.changes.append(change)
