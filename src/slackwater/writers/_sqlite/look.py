# SPDX-License-Identifier: Apache-2.0
"""Say which files are SQLite databases: the first 100 bytes of each of those, in hex, and a dash for the others.

A program of its own (`python -I -S -B look.py PATH...`), since opening and closing a database drops the locks of the
process that does it. See "Database File Format", 1.3, for these bytes.
"""

import os
import stat
import sys

MAGIC = b"SQLite format 3\0"


def header(path: str) -> bytes:
    """Read the first 100 bytes of a regular file; nothing when it is none, or gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, 100, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        return b""
    finally:
        os.close(fd)


def main() -> None:
    """Answer for each path."""
    for path in sys.argv[1:]:
        found = header(path)
        sys.stdout.write(f"{found.hex() if found.startswith(MAGIC) else '-'}\n")


if __name__ == "__main__":
    main()
