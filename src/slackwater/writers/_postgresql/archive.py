# SPDX-License-Identifier: Apache-2.0
"""Keeping a recovered server from archiving a file whose name the archive has already.

An archive command that refuses to overwrite, as PostgreSQL's documentation advises ("Setting Up WAL Archiving"),
fails for ever on such a file, and archiving stands still behind it. `pg_wal/archive_status` says what is to be
archived (`.ready`) and what was (`.done`).
"""

import os

from slackwater.writers._postgresql import segments
from slackwater.writers._postgresql.directory import opened


def mark_archived(wal: int, live_wal: str, timeline: int, segment_bytes: int) -> tuple[str, ...]:
    """Mark what a clone's server must not archive, and return the names.

    That is what the live server has archived since the image was made; and the segment that the image's log ends
    in: the engine would archive its first part as `.partial`, under the same name at each recovery from one replica.
    Nothing is lost by that, since the new timeline's first segment begins with the same bytes.

    Args:
        wal: a descriptor of the clone's pg_wal.
        live_wal: the live server's pg_wal; empty when it does not tell (destroyed).
        timeline: the one that the clone recovers on.
        segment_bytes: the size of a log segment.
    """
    with opened("archive_status", wal) as status:
        marked = []
        for name in sorted(os.listdir(status)):
            what = name.removesuffix(".ready")
            if what != name and live_wal and _was_archived(live_wal, what):
                os.rename(name, f"{what}.done", src_dir_fd=status, dst_dir_fd=status)
                marked.append(what)
        last = _last_segment(wal, timeline, segment_bytes)
        if last and not {f"{last}.ready", f"{last}.done"} & set(os.listdir(status)):
            owner = os.fstat(status)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            fd = os.open(f"{last}.done", flags, 0o600, dir_fd=status)
            os.fchown(fd, owner.st_uid, owner.st_gid)
            os.close(fd)
            marked.append(last)
        os.fsync(status)
        return tuple(marked)


def _was_archived(live_wal: str, name: str) -> bool:
    """A segment is recycled only when it was archived, so one that is gone was."""
    if os.path.exists(f"{live_wal}/archive_status/{name}.ready"):
        return False
    return os.path.exists(f"{live_wal}/archive_status/{name}.done") or not os.path.exists(f"{live_wal}/{name}")


def _last_segment(wal: int, timeline: int, segment_bytes: int) -> str:
    """The segment that the log ends in: the newest that was begun; empty when it may be full.

    Names prove nothing, since the engine keeps old segments under future names: the first page's header says where it
    belongs (XLogPageHeaderData of xlog_internal.h). A full one is left to the archive: the next may begin behind it.
    """
    names = (name for name in os.listdir(wal) if segments.NAME.fullmatch(name) and int(name[:8], 16) == timeline)
    begun = [name for name in names if _page_address(wal, name, 0) == segments.start_of(name, segment_bytes)]
    if not begun:
        return ""
    last = max(begun)
    last_page = segment_bytes - 8192
    full = _page_address(wal, last, last_page) == segments.start_of(last, segment_bytes) + last_page
    return "" if full else last


def _page_address(wal: int, name: str, offset: int) -> int:
    """Where the page at an offset says that it belongs; -1 where there is none."""
    with segments.opened(wal, name) as fd:
        header = segments.header_at(fd, offset)
    return header.address if header else -1
