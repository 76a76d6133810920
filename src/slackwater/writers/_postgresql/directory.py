# SPDX-License-Identifier: Apache-2.0
"""Data directories by descriptor: read and written as their owner would, and never through a link of theirs."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping

from slackwater.errors import RefusedError, SlackwaterError
from slackwater.system.credentials import as_user

_PIECE_BYTES = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def opened(path: str, within: int | None = None) -> Iterator[int]:
    """A directory by descriptor; one below another is not reached through a link."""
    flags = _DIRECTORY if within is None else _DIRECTORY | os.O_NOFOLLOW
    fd = os.open(path, flags, dir_fd=within)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened_wal(data: int, trees: Mapping[str, str], separate: str) -> Iterator[int]:
    try:
        found = opened(trees[separate]) if separate else opened("pg_wal", data)
        with found as wal:
            yield wal
    except NotADirectoryError as e:
        raise RefusedError(
            "pg_wal of the clone leads out of it, and the replica holds no log of its own.",
            data="Nothing was changed.", hint="Take another replica.", code="log-outside",
        ) from e  # fmt: skip


def read(directory: int, name: str) -> str:
    """Read a small file with its owner's rights: a link of theirs must not make us read what they may not."""
    owner = os.fstat(directory)
    try:
        with as_user(owner.st_uid, owner.st_gid):
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return ""
    with open(fd, encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


def replace(directory: int, name: str, text: str, *, if_still: str | None = None) -> bool:
    """Write a file anew under its name, owned like its directory, in one rename; False when it changed meanwhile."""
    owner = os.fstat(directory)
    new = f"{name}.slackwater"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(new, flags, 0o600, dir_fd=directory)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as f:
        os.fchown(fd, owner.st_uid, owner.st_gid)
        f.write(text)
        f.flush()
        os.fsync(fd)
    if if_still is not None and read(directory, name) != if_still:
        os.unlink(new, dir_fd=directory)
        return False
    os.replace(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    return True


def remove_tree(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what the kernel refuses (no room, read-only, an input or output error) into an error for people."""
    try:
        yield
    except OSError as e:
        raise SlackwaterError(
            f"{what}: {e.strerror}.", hint="See whether there is room and the filesystem is writable.", code="files"
        ) from e


def fill(found: int, to: int, size: int) -> None:
    """Copy so many bytes from the beginning of one open file into another that is empty.

    Where it can the kernel shares them (copy_file_range(2)): a log is long, and it is there already.
    """
    at = 0
    with contextlib.suppress(OSError):  # not between these two
        while at < size and (copied := os.copy_file_range(found, to, size - at, at, at)):
            at += copied
    while at < size and (piece := os.pread(found, min(_PIECE_BYTES, size - at), at)):
        at += os.pwrite(to, piece, at)
