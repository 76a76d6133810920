# SPDX-License-Identifier: Apache-2.0
"""What the kernel does with names, with data, and with pages that are not yet on the disk, on any filesystem."""

import ctypes
import errno
import fcntl
import os
import signal
from collections.abc import Iterator

_RENAME_EXCHANGE = 2
_PIECE = 16 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def exchange(directory: int, one: str, other: str) -> None:
    """Let two files or directories change places, in one instant (renameat2(2), RENAME_EXCHANGE).

    Args:
        directory: a descriptor; both paths are relative to it, for between two mounts it cannot be done (EXDEV).
        one: path of the one.
        other: path of the other.
    """
    if _libc.renameat2(directory, os.fsencode(one), directory, os.fsencode(other), _RENAME_EXCHANGE) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), one, None, other)


def write_back(fd: int) -> None:
    """Put everything on the disk that the descriptor's filesystem still has in memory (syncfs(2))."""
    if _libc.syncfs(fd) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def copy_data(target: int, source: int) -> Iterator[int]:
    """Make a file's data that of another, with its holes; gives control back after each piece, with its size in bytes.

    What was stored through a mapping before the call is copied, and the first store through one after it moves the
    file's times: its pages are put on the disk first, which takes their mappings' right to write. Moves the position of
    the source's descriptor.
    """
    os.fsync(source)
    size, at = os.fstat(source).st_size, 0
    os.ftruncate(target, 0)
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
            end = os.lseek(source, at, os.SEEK_HOLE)
        except OSError as e:
            if e.errno != errno.ENXIO:  # no more data
                raise
            break
        while at < end:
            done = os.copy_file_range(source, target, min(end - at, _PIECE), at, at)
            if not done:  # it shrank meanwhile
                break
            at += done
            yield done
        if at < end:
            break
    os.ftruncate(target, size)


def written_by_nobody(fd: int) -> bool:
    """Whether nobody has a file open for writing, or mapped so, at this instant; False where that cannot be told.

    The kernel grants a lease for reading on no other condition (fcntl(2), F_SETLEASE). It is given back at once; who
    opens the file in between waits for that, and the signal about it is one that is ignored.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True
