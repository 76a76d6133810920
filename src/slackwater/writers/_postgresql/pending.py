# SPDX-License-Identifier: Apache-2.0
"""What a recovered server owes its archive, and what it owes no more.

What the engine gets from a restore command counts as archived (XLogArchiveForceDone in xlogarchive.c). A segment that
the live server had not archived yet, and that was laid for the recovery, would be missing in the archive for ever; so
it is noted, and when the server has recovered it is put into its log as what is to be archived.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from slackwater.system.credentials import as_user
from slackwater.writers._postgresql import history, segments
from slackwater.writers._postgresql.autoconf import HISTORIES, LOG
from slackwater.writers._postgresql.chain import CLONE, Chain, Source
from slackwater.writers._postgresql.directory import fill, opened, read, replace
from slackwater.writers._postgresql.fetching import Archive

_NOTE = "pending"
_READY, _DONE = ".ready", ".done"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def told(sources: Sequence[Source]) -> dict[str, bool]:
    """What servers say of files of their log: whether each is archived. Of sources in order of age the last counts.

    A server removes only what it has archived: what a later one on the same timeline has no more, and does not mean to
    archive either, is archived. One that has gone over to another timeline may never have had it, nor one that was made
    ready for a recovery that is not over: that has folders of ours, too.
    """
    captions = [each.caption for each in sources]
    found: dict[str, bool] = {}
    for source in sources:
        if "archive_status" in source.names:
            with contextlib.suppress(OSError), opened("archive_status", source.folder) as status:
                names = os.listdir(status)
                timeline = history.newest(source.names)
                gone = (name for name in found if name[:8] == timeline and name not in source.names)
                found |= dict.fromkeys(gone if captions.count(source.caption) == 1 else (), True)
                found |= {name.removesuffix(_READY): False for name in names if name.endswith(_READY)}
                found |= {name.removesuffix(_DONE): True for name in names if name.endswith(_DONE)}
    return found


def owe(data: int, chain: Chain, sources: Sequence[Source], archive: Archive | None, fork: int) -> None:
    """Note in a clone what is laid for its recovery before a fork and not archived; what was noted before stays."""
    with opened(HISTORIES, data) as histories:
        note(histories, [*noted(histories), *owed(chain, sources, archive, fork)])


def owed(chain: Chain, sources: Sequence[Source], archive: Archive | None, fork: int) -> list[str]:
    """The segments of a chain, whole before a fork, that are laid for a recovery and not archived.

    Args:
        chain: what is laid.
        sources: the log's, the clone among them.
        archive: None for none.
        fork: where the new timeline begins, or before.
    """
    archived = told(sources)
    links = [each for each in chain.links if each.stop <= fork and each.source.caption != CLONE]
    names = [each.name for each in links if archived.get(each.name) is False]
    return [name for name in names if archive is None or not archive.fetch(name)]


def note(histories: int, names: Sequence[str]) -> None:
    """Note in our folder of a clone what is to be published; what was noted before and is there stays."""
    replace(histories, _NOTE, "".join(f"{name}\n" for name in names))


def noted(histories: int) -> list[str]:
    """What was noted."""
    return [name for name in read(histories, _NOTE).split() if segments.NAME.fullmatch(name)]


def publish(data: int) -> None:
    """Put what was noted into a recovered server's log, to be archived. Idempotent; nothing noted: nothing.

    The server works, and may be about to remove what it has restored: so this is done until it stays.
    """
    with contextlib.suppress(FileNotFoundError), opened(HISTORIES, data) as histories, opened(LOG, data) as log:
        names = noted(histories)
        for name in list(names):
            with _wal_of(data) as (wal, status):
                for _ in range(10):
                    if _published(log, wal, status, name):
                        break
            names.remove(name)
            note(histories, names)


@contextlib.contextmanager
def _wal_of(data: int) -> Iterator[tuple[int, int]]:
    """A server's log and its archive_status, opened with its owner's rights: a link may lead there."""
    owner = os.fstat(data)
    with contextlib.ExitStack() as stack, as_user(owner.st_uid, owner.st_gid):
        wal = os.open("pg_wal", _FOLDER, dir_fd=data)
        stack.callback(os.close, wal)
        status = os.open("archive_status", _FOLDER | os.O_NOFOLLOW, dir_fd=wal)
        stack.callback(os.close, status)
        yield wal, status


def _published(log: int, wal: int, status: int, name: str) -> bool:
    """Make a segment one that is to be archived; whether it was so at the end."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(f"{name}{_DONE}", f"{name}{_READY}", src_dir_fd=status, dst_dir_fd=status)
    if not _there(wal, name):
        new = f"{name}.slackwater"
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=log)
        to = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=wal)
        try:
            fill(fd, to, os.fstat(fd).st_size)
            os.fsync(to)
        finally:
            os.close(fd)
            os.close(to)
        os.rename(new, name, src_dir_fd=wal, dst_dir_fd=wal)
        os.fsync(wal)
    if not _there(status, f"{name}{_READY}"):
        os.close(os.open(f"{name}{_READY}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=status))
        os.fsync(status)
    return _there(wal, name) and (_there(status, f"{name}{_READY}") or _there(status, f"{name}{_DONE}"))


def _there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def forgive(data: int, wal: int, sources: Sequence[Source], archive: Archive | None) -> list[str]:
    """Mark in a clone's log what is archived by now, and forget it where it was noted; returns the names.

    An archive that does not take a name twice would stop its server for ever. Where no server tells that it is
    archived, which may be out of date, the archive is asked, and what it gives compared.

    Args:
        data: the clone's data directory.
        wal: its log.
        sources: those of the log, in order of age.
        archive: None for none.
    """
    archived = told([each for each in sources if each.caption != CLONE])
    with contextlib.suppress(FileNotFoundError), opened(HISTORIES, data) as histories:
        note(histories, list(dict.fromkeys(each for each in noted(histories) if not archived.get(each))))
    marked = []
    with opened("archive_status", wal) as status:
        for what in (name.removesuffix(_READY) for name in sorted(os.listdir(status)) if name.endswith(_READY)):
            if archived.get(what) or (archive is not None and _same(wal, what, archive)):
                os.rename(f"{what}{_READY}", f"{what}{_DONE}", src_dir_fd=status, dst_dir_fd=status)
                marked.append(what)
        os.fsync(status)
    return marked


def _same(wal: int, name: str, archive: Archive) -> bool:
    with contextlib.suppress(OSError), archive.opened(name) as theirs:
        if theirs is not None:
            ours = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=wal)
            try:
                size = os.fstat(ours).st_size
                return size == os.fstat(theirs).st_size and os.pread(ours, size, 0) == os.pread(theirs, size, 0)
            finally:
                os.close(ours)
    return False
