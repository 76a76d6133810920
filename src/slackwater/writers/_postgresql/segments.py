# SPDX-License-Identifier: Apache-2.0
"""The files of the log: their names, their page headers, and whether a stretch of the log is in them without a hole.

Names prove nothing, since the engine keeps old segments under future names: each page's header says where it belongs
(XLogPageHeaderData and XLogLongPageHeaderData of xlog_internal.h; the file names are made there too).
"""

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from slackwater.writers._postgresql.checksum import crc32c

NAME = re.compile(r"[0-9A-F]{24}")
_SHORT = struct.Struct("=HHIQ")
_LONG = struct.Struct("=QII")
_LONG_AT, _SHORT_BYTES, _LONG_BYTES = 24, 24, 40
_CONTINUES, _IS_LONG = 0x0001, 0x0002
_REST = struct.Struct("=I")
#: XLogRecord of xlogrecord.h. A switch (XLOG_SWITCH of pg_control.h) ends a segment early, and has nothing but this.
_RECORD = struct.Struct("=IIQBB2xI")
_SWITCH = 0x40
#: What an engine can be built with (--with-wal-blocksize of configure).
_PAGE_BYTES = frozenset(kib << 10 for kib in (1, 2, 4, 8, 16, 32, 64))
_READ_BYTES = 1 << 20
#: The high byte of every version's magic number.
_MAGIC = 0xD1


@dataclass(frozen=True, slots=True)
class Header:
    """The part of a page's header that says where it belongs."""

    magic: int
    info: int
    timeline: int
    address: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of one server's log."""

    timeline: int
    start: int
    """Its first byte, as a position in the log."""
    stop: int
    """The byte behind its last."""
    segment_bytes: int
    system_identifier: str

    @property
    def names(self) -> tuple[str, ...]:
        """The files that it lies in."""
        numbers = range(self.start // self.segment_bytes, (self.stop - 1) // self.segment_bytes + 1)
        return tuple(name_of(self.timeline, number * self.segment_bytes, self.segment_bytes) for number in numbers)


def name_of(timeline: int, position: int, segment_bytes: int) -> str:
    """The name of the segment that holds a position."""
    number, each = position // segment_bytes, 0x100000000 // segment_bytes
    return f"{timeline:08X}{number // each:08X}{number % each:08X}"


def start_of(name: str, segment_bytes: int) -> int:
    """The position that a segment begins at."""
    return (int(name[8:16], 16) << 32) + int(name[16:24], 16) * segment_bytes


def hole(log: int, stretch: Stretch) -> str:
    """What is missing of a stretch in a directory of segments, given by descriptor; empty when all of it is there."""
    for name in stretch.names:
        try:
            with opened(log, name) as fd:
                why = _hole(fd, name, stretch)
        except OSError as e:
            why = f"cannot be read ({e.strerror})"
        if why:
            return f"{name} {why}"
    return ""


@contextlib.contextmanager
def opened(log: int, name: str) -> Iterator[int]:
    """A segment, not reached through a link."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=log)
    try:
        yield fd
    finally:
        os.close(fd)


def header_at(fd: int, offset: int) -> Header | None:
    """The header of the page at an offset; None where the file ends before."""
    found = os.pread(fd, _SHORT.size, offset)
    return Header(*_SHORT.unpack(found)) if len(found) == _SHORT.size else None


def system_of(fd: int) -> str | None:
    """The identifier of the cluster that a segment says it is of; None where it does not begin as one does.

    Raises:
        OSError: it cannot be read.
    """
    first, rest = header_at(fd, 0), os.pread(fd, _LONG.size, _LONG_AT)
    if first is None or first.magic >> 8 != _MAGIC or not first.info & _IS_LONG or len(rest) != _LONG.size:
        return None
    return str(_LONG.unpack(rest)[0])


def page_bytes_of(fd: int) -> int:
    """The size of the pages of a segment that begins as one does.

    Raises:
        OSError: it cannot be read.
    """
    (_, _, page_bytes) = _LONG.unpack(os.pread(fd, _LONG.size, _LONG_AT))
    return int(page_bytes)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of a segment's own log a file holds, from its beginning on and without a hole."""

    stop: int
    """The position behind the last page that is where it belongs; the segment's own for none."""
    whole: bool
    """Whether the log goes on in the next segment: this one is full, or the engine left it early."""
    why: str = ""
    """Why it holds no more, to follow the file's name; empty when it is whole."""


def extent(
    fd: int, name: str, timeline: int, begin: int, segment_bytes: int, system_identifier: str, *, thorough: bool = True
) -> Extent:
    """Read every page's header of a segment.

    Args:
        fd: the file.
        name: the segment's, which says where its log belongs.
        timeline: whose segment it is.
        begin: where that timeline begins: pages at or before it are of an older one.
        segment_bytes: the size of a segment.
        system_identifier: the cluster's.
        thorough: False to take a segment for whole whose first and last page are where they belong.

    Raises:
        OSError: it cannot be read.
    """
    position = start_of(name, segment_bytes)
    if (size := os.fstat(fd).st_size) != segment_bytes:
        return Extent(position, whole=False, why=f"has {size} bytes and not {segment_bytes}")
    first = header_at(fd, 0)
    if first is None or first.magic >> 8 != _MAGIC or not first.info & _IS_LONG:
        return Extent(position, whole=False, why="does not begin as a segment does")
    system, its_bytes, page_bytes = _LONG.unpack(os.pread(fd, _LONG.size, _LONG_AT))
    if (str(system), its_bytes) != (system_identifier, segment_bytes) or page_bytes not in _PAGE_BYTES:
        return Extent(position, whole=False, why=f"belongs to another cluster ({system})")
    last = segment_bytes - page_bytes
    if not thorough and _in_place(header_at(fd, last), first, position + last, timeline, begin):
        return Extent(position + segment_bytes, whole=True)
    offset = _good_bytes(fd, first, position, segment_bytes, page_bytes, timeline, begin)
    if offset == segment_bytes:
        return Extent(position + segment_bytes, whole=True)
    early = _ends_early(fd, offset, page_bytes, segment_bytes)
    at = position + offset
    return Extent(at, early, "" if early else f"does not hold the log at {at >> 32:X}/{at & 0xFFFFFFFF:X}")


def _good_bytes(
    fd: int, first: Header, position: int, segment_bytes: int, page_bytes: int, timeline: int, begin: int
) -> int:
    """How far pages are where they belong. Read in large pieces: a log is long, and its pages are small."""
    layout = struct.Struct(f"{_SHORT.format}{page_bytes - _SHORT.size}x")
    usual = (first.magic, timeline)
    for start in range(0, segment_bytes, _READ_BYTES):
        wanted = min(_READ_BYTES, segment_bytes - start)
        image = os.pread(fd, wanted, start).ljust(wanted, b"\0")
        offset = start
        for magic, info, its_timeline, address in layout.iter_unpack(image):
            if (magic, its_timeline) != usual or address != position + offset:
                page = Header(magic, info, its_timeline, address)
                if not _in_place(page, first, position + offset, timeline, begin):
                    return offset
            offset += page_bytes
    return segment_bytes


def _in_place(page: Header | None, first: Header, position: int, timeline: int, begin: int) -> bool:
    """Whether a page is what lies at a position of the log."""
    return (
        page is not None
        and (page.magic, page.address) == (first.magic, position)
        and _of(page, position, timeline, begin)
    )


def pages_with_records(fd: int, start: int, stop: int) -> list[int]:
    """Where in a segment the pages lie in which a record begins, from the first one at or behind an offset on.

    The last page before `stop`, and the one before it, do not count: a crash leaves them as they were being written. A
    page that only goes on with a record may have been written without its end; where another begins, it was whole.
    """
    (_, _, page_bytes) = _LONG.unpack(os.pread(fd, _LONG.size, _LONG_AT))
    found = []
    for offset in range(-(-start // page_bytes) * page_bytes, stop - 2 * page_bytes, page_bytes):
        page = header_at(fd, offset)
        (rest,) = _REST.unpack(os.pread(fd, _REST.size, offset + _SHORT.size))
        room = page_bytes - (_SHORT_BYTES if offset else _LONG_BYTES)
        if page is not None and not (page.info & _CONTINUES and rest >= room):
            found.append(offset)
    return found


def _of(page: Header, position: int, timeline: int, begin: int) -> bool:
    return page.timeline == timeline or (position <= begin and page.timeline < timeline)


def _hole(fd: int, name: str, stretch: Stretch) -> str:
    found = extent(
        fd, name, stretch.timeline, stretch.start, stretch.segment_bytes, stretch.system_identifier
    )  # fmt: skip
    end = start_of(name, stretch.segment_bytes) + stretch.segment_bytes
    if found.stop >= min(end, stretch.stop) or (found.whole and end < stretch.stop):
        return ""
    return found.why or f"does not hold the log at {found.stop >> 32:X}/{found.stop & 0xFFFFFFFF:X}"


def _ends_early(fd: int, offset: int, page_bytes: int, segment_bytes: int) -> bool:
    """Whether the engine left a segment at this page: a switch is the last record, and zeros are all that follows."""
    rest = os.pread(fd, segment_bytes - offset, offset)
    if rest.count(0) != len(rest):
        return False
    # The record may begin on the page before the last one.
    pages = [at for at in (offset - 2 * page_bytes, offset - page_bytes) if at >= 0]
    records = b"".join(
        os.pread(fd, page_bytes, at)[_SHORT_BYTES if at else _LONG_BYTES :] for at in pages
    )  # fmt: skip
    end = (len(records.rstrip(b"\0")) + 7) // 8 * 8
    return end >= _RECORD.size and _is_switch(records[end - _RECORD.size : end])


def _is_switch(record: bytes) -> bool:
    length, _, _, info, manager, checksum = _RECORD.unpack(record)
    whole = (length, info, manager) == (_RECORD.size, _SWITCH, 0)
    return whole and checksum == crc32c(record[:-4])
