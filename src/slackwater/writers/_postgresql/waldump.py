# SPDX-License-Identifier: Apache-2.0
"""What happened in the log, by the word of `pg_waldump` (https://www.postgresql.org/docs/15/pgwaldump.html).

It is run as the owner of the files, since a program found beside a server that somebody else runs is never run as root.
It reads one folder, and the chain lies in several; so it is shown a folder of links that lead through descriptors.
"""

import contextlib
import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from slackwater.errors import SlackwaterError
from slackwater.writers._postgresql import segments
from slackwater.writers._postgresql.chain import Chain, Log, goes_on
from slackwater.writers._postgresql.controlfile import format_lsn, parse_lsn

_RECORD = re.compile(r"rmgr: (\w+) .*?tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), prev [0-9A-F/]+, desc: (.*)")
_COMMIT = re.compile(r"COMMIT(?:_PREPARED)? (?:(\d+): )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC(.*)")
#: Of the statistics that it drops, one of a database (PGSTAT_KIND_DATABASE of pgstat.h).
_DATABASE = re.compile(r"; dropped stats:(?: \d+/\d+/\d+)*? 1/\d+/0\b")
#: Transaction, position, the one before, what, which row of a page, and the page.
_HEAP = re.compile(
    r"rmgr: Heap .*?tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), prev ([0-9A-F]+/[0-9A-F]+), desc: ([\w+]+)"
    r".*?\boff:? (\d+).*?blkref #0: rel (\d+/\d+/\d+ blk \d+)"
)
#: No more than this is written between the two steps of one statement.
_NEAR_BYTES = 16 << 20
_RESTORE_POINT = re.compile(r"RESTORE_POINT (.*)")
_ERROR_TAIL = 4000
_MISSING = re.compile(r'could not find file "([0-9A-F]{24})"')
#: What it says where it finds no record, and all is well.
_NOTHING = ("find a valid record", "error in WAL record")
_LAST_READ = re.compile(r"error in WAL record at ([0-9A-F]+/[0-9A-F]+): (.*)")


@dataclass(frozen=True, slots=True)
class Commit:
    """A transaction's end in the log."""

    xid: int
    position: int
    at: datetime
    """When it committed, by the server's clock."""
    database: bool
    """Whether it dropped a database, whose files are removed in the log before the transaction commits."""


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A name that somebody gave to a position (pg_create_restore_point)."""

    name: str
    position: int


@dataclass(frozen=True, slots=True)
class Damage:
    """A record that cannot be read, and the log went on behind it: an engine would call it the end."""

    position: int
    """Of the last record that can be read."""
    why: str


@dataclass(frozen=True, slots=True)
class End:
    """All was read that there is."""

    position: int
    """Where the last record begins that is known to be whole."""


@dataclass(frozen=True, slots=True)
class Dump:
    """A program, and as whom it is run."""

    program: str
    as_owner: tuple[str, ...]
    """The words before a command that run it as the owner of the files."""

    def events(self, chain: Chain, log: Log, since: int = 0) -> Iterator[Commit | RestorePoint | Damage | End]:
        """Every commit and named position of a chain in the order of the log, from a position on; damage ends it.

        Where nothing is damaged the last one is the end, if there was any record.

        Raises:
            SlackwaterError: the program is not there, or cannot read the log.
        """
        read = None
        with shown(chain, log, since) as (folder, fds):
            for timeline, start, stop in stretches(chain, since):
                for manager, xid, position, what in self._records(folder, fds, log, timeline, start, stop):
                    read = position
                    if not manager:
                        if goes_on(chain, log, position, stop):
                            yield Damage(position, what)
                            return
                        break
                    if manager == "Transaction" and (match := _COMMIT.match(what)):
                        yield _commit(match, xid, position)
                    elif manager == "XLOG" and (match := _RESTORE_POINT.match(what)):
                        yield RestorePoint(match[1], position)
        if read is not None:
            yield End(read)

    def last(self, chain: Chain, log: Log, since: int) -> int | None:
        """Where the last record of a chain of one timeline begins, from a position on; None where there is none."""
        with shown(chain, log) as (folder, fds):
            found = self._records(folder, fds, log, chain.timeline, since, chain.stop, managers=())
            return max((position for _, _, position, _ in found), default=None)

    def goes_beyond(self, chain: Chain, log: Log, position: int) -> bool:
        """Whether the log of a chain's first timeline holds any record at a position or behind it."""
        with shown(chain, log) as (folder, fds):
            found = self._records(folder, fds, log, chain.branches[0].timeline, position, chain.stop, managers=())
            return next(found, None) is not None

    def begin_of_drop(self, chain: Chain, log: Log, xid: int, since: int) -> tuple[int, int]:
        """Where the first record of a DROP DATABASE lies from a position on, and the one before it.

        Before anything else it makes the database invalid in its row of pg_database (since 15.4, dropdb of
        dbcommands.c), in a record that may bear no transaction; the row is deleted right after that.

        Raises:
            SlackwaterError: there is none of the transaction, or the program is not there.
        """
        first: tuple[int, int] | None = None
        invalid: dict[str, tuple[int, int]] = {}
        with shown(chain, log) as (folder, fds):
            for timeline, start, stop in stretches(chain, since):
                for line in self.lines(folder, fds, log, timeline, start, stop, "--rmgr=Heap"):
                    if b"rel 1664/0/1262 " not in line and b"tx: %10d," % xid not in line:
                        continue
                    if (record := _HEAP.match(line.decode(errors="replace"))) is None:
                        continue
                    at, row = (parse_lsn(record[2]), parse_lsn(record[3])), f"{record[5]} {record[6]}"
                    if record[4] == "INPLACE":
                        invalid[row] = at
                    elif int(record[1]) == xid:
                        first = first or at
                        if record[4] == "DELETE" and record[6].startswith("1664/0/1262 "):
                            before = invalid.get(row, first)
                            return min(first, before) if at[0] - before[0] < _NEAR_BYTES else first
        if first is None:
            raise unreadable(f"nothing of transaction {xid} is in it.")
        return first

    def lines(
        self, folder: str, fds: Sequence[int], log: Log, timeline: int, start: int, stop: int, *options: str
    ) -> Iterator[bytes]:
        """What the program says of a timeline from a position on, as it is.

        Raises:
            SlackwaterError: it is not there, or the log was not read to `stop`.
        """
        words = (
            *self.as_owner, self.program, "-p", folder, "-t", str(timeline), "-s", format_lsn(start), *options
        )  # fmt: skip
        seen = False
        with tempfile.TemporaryFile("w+", errors="replace") as complaints:
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, pass_fds=fds,
                    env=environment(), cwd="/",
                )  # fmt: skip
            except OSError as e:
                raise unreadable(f"{self.program}: {e.strerror}") from e
            with process:
                try:
                    for line in process.stdout or ():
                        seen = True
                        yield line
                finally:
                    process.terminate()
            complaints.seek(0)
            said = complaints.read().strip()
        _complained(said, log, stop, nothing=not seen)

    def _records(
        self,
        folder: str,
        fds: Sequence[int],
        log: Log,
        timeline: int,
        start: int,
        stop: int,
        managers: Sequence[str] = ("Transaction", "XLOG"),
    ) -> Iterator[tuple[str, int, int, str]]:
        """Manager, transaction, position and text of each; last, without a manager, the record before what is none."""
        words = (
            *self.as_owner, self.program, "-p", folder, "-t", str(timeline), "-s", format_lsn(start),
            *(f"--rmgr={each}" for each in managers),
        )  # fmt: skip
        with tempfile.TemporaryFile("w+") as complaints:
            try:
                process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, pass_fds=fds,
                    text=True, errors="replace", env=environment(), cwd="/",
                )  # fmt: skip
            except OSError as e:
                raise unreadable(f"{self.program}: {e.strerror}") from e
            seen = beyond = False
            with process, contextlib.suppress(BrokenPipeError):
                for line in process.stdout or ():
                    if match := _RECORD.match(line):
                        position = parse_lsn(match[3])
                        if position >= stop:
                            beyond = True
                            break
                        seen = True
                        yield match[1], int(match[2]), position, match[4]
                if beyond:
                    process.terminate()
            complaints.seek(0)
            said = complaints.read()[-_ERROR_TAIL:].strip()
        if not beyond:
            if process.returncode < 0:
                raise unreadable(f"{self.program} was ended by signal {-process.returncode}.")
            _complained(said, log, stop, nothing=bool(managers) and not seen)
        if not beyond and managers and (last := _LAST_READ.search(said)):
            yield "", 0, parse_lsn(last[1]), last[2]


def _complained(said: str, log: Log, stop: int, *, nothing: bool) -> None:
    """Judge what the program said at its end, as it does at the end of every log that goes on.

    Args:
        said: what.
        log: whose.
        stop: where the chain ends: it does not find the segment behind that, and may not miss one before.
        nothing: it read nothing at all. What it could not even begin with is a failure.

    Raises:
        SlackwaterError: the log was not read to the end of the chain.
    """
    if missing := _MISSING.search(said):
        if segments.start_of(missing[1], log.segment_bytes) < stop:
            raise unreadable(said, "It was there a moment ago, and the server has recycled it since: try again.")
    elif "could not read" in said or (nothing and said and not any(each in said for each in _NOTHING)):
        raise unreadable(said)


def environment() -> dict[str, str]:
    """What the program may know of ours, and how it is to write times."""
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _commit(match: re.Match[str], xid: int, position: int) -> Commit:
    return Commit(int(match[1] or xid), position, committed_at(match[2]), _DATABASE.search(match[3]) is not None)


def committed_at(text: str) -> datetime:
    """The time of a commit, as it is written before the zone."""
    text = text if "." in text else f"{text}.0"
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)


def stretches(chain: Chain, since: int) -> Iterator[tuple[int, int, int]]:
    """Timeline, first and last position of each part of the way."""
    ends = [*(branch.begin for branch in chain.branches[1:]), chain.stop]
    for branch, end in zip(chain.branches, ends, strict=True):
        start = max(branch.begin, since)
        if start < end:
            yield branch.timeline, start, end


@contextlib.contextmanager
def shown(chain: Chain, log: Log, since: int = 0) -> Iterator[tuple[str, list[int]]]:
    """A folder with a link for each segment, and the descriptors that the links lead through.

    What lies before a position need not be there: of an archive it may never have been fetched.

    The program waits five seconds for a segment that is not there (WALDumpOpenSegment of pg_waldump.c). So the last one
    of a timeline that the way leaves is there under the next name, too: its pages are none of that name's, so that the
    log ends there at once.
    """
    with tempfile.TemporaryDirectory(prefix="slackwater-log-") as folder:
        os.chmod(folder, 0o755)  # noqa: S103  # the owner of the files has to read it; it holds names only
        for link in chain.links:
            if link.source.fetches and link.stop > since:
                with link.source.opened(link.name):
                    pass
            if link.source.fetches and link.name not in link.source.names:
                continue  # the program looks into any one that it finds first, and gives up where that leads nowhere
            where = f"/proc/self/fd/{link.source.folder}/{link.name}"
            for name in chain.names_of(link, log):
                if not os.path.lexists(f"{folder}/{name}"):
                    os.symlink(where, f"{folder}/{name}")
        for branch, following in itertools.pairwise(chain.branches):
            behind = log.begin_of(following.begin - 1) + log.segment_bytes
            last, path = log.name_at(branch.timeline, behind - log.segment_bytes), log.name_at(branch.timeline, behind)
            if os.path.lexists(f"{folder}/{last}") and not os.path.lexists(f"{folder}/{path}"):
                os.symlink(last, f"{folder}/{path}")
        yield folder, sorted({link.source.folder for link in chain.links})


def unreadable(
    said: str, hint: str = "Install the server's own pg_waldump (Debian: in postgresql-15)."
) -> SlackwaterError:
    return SlackwaterError(
        f"The log cannot be read: {said}",
        data="Nothing was changed.",
        hint=hint,
        code="log-unreadable",
    )


def last_of(events: Iterator[Commit | RestorePoint], last: Commit | None = None) -> Commit | None:
    """The last commit among events; `last` where there is none."""
    for each in events:
        last = each if isinstance(each, Commit) else last
    return last
