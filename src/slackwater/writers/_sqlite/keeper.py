# SPDX-License-Identifier: Apache-2.0
"""Keep everybody from writing to an SQLite database: `python -I -S -B keeper.py PATH`, standard library only.

The lock is that of a write transaction which writes nothing (BEGIN IMMEDIATE). Readers go on; a writer waits for its
own busy timeout. In WAL mode a checkpoint may still move frames into the database meanwhile, but nothing can take them
out of the log, so that any two copies of database and log belong together ("Write-Ahead Logging", 2.2).

This process opens nothing but its connection: whatever it would open and close of the database would drop the lock, and
SQLite would not notice. So it is not asked: the kernel's list (/proc/locks, proc(5)) says whether the lock is there.
Once lost it does not come back, so one look at the end speaks for all of the time.
"""

import os
import sqlite3
import sys
from urllib.parse import quote

#: How long the lock may take to be had: before the window, and in it.
TRY_S, HOLD_S = 10.0, 5.0
#: Which bytes a writer locks: the file's RESERVED byte, or the log index's first (os.h and wal.c of SQLite).
RESERVED, WAL_WRITE = 0x40000001, 120


class Keeper:
    """One connection."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, isolation_level=None)
        self.locked, self.byte, self.inode = path, RESERVED, 0

    def take(self, patience_s: float) -> None:
        """Take the lock, and see it in the kernel's list.

        Raises:
            sqlite3.Error: it is not to be had, or this is no database.
        """
        self.connection.execute(f"PRAGMA busy_timeout = {int(patience_s * 1000)}")
        self.connection.execute("BEGIN IMMEDIATE")
        (mode,) = self.connection.execute("PRAGMA journal_mode").fetchone()
        self.locked, self.byte = (f"{self.path}-shm", WAL_WRITE) if mode == "wal" else (self.path, RESERVED)
        self.inode = os.stat(self.path).st_ino
        if why := self.lost():
            raise sqlite3.OperationalError(why)

    def lost(self) -> str:
        """Why the lock is not in force; empty when it is."""
        try:
            inode, replaced = os.stat(self.locked).st_ino, os.stat(self.path).st_ino != self.inode
        except OSError as e:
            return f"{self.path} cannot be looked at any more ({e.strerror})"
        if replaced:
            return f"{self.path} was replaced by another file"
        own = os.readlink("/proc/self")
        with open("/proc/locks") as locks:
            for line in locks:
                _, kind, _, access, pid, file, start, end = line.replace("-> ", "").split()
                if (kind, access, pid) == ("POSIX", "WRITE", own) and file.rpartition(":")[2] == str(inode):
                    last = sys.maxsize if end == "EOF" else int(end)
                    if int(start) <= self.byte <= last:
                        return ""
        return f"the kernel knows of no lock of ours on {self.locked}"

    def give_back(self) -> None:
        """Roll the transaction back."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


def attempt(keeper: Keeper, patience_s: float, word: str) -> str:
    """Take the lock; the word when it was had, else `busy` and why."""
    try:
        keeper.take(patience_s)
    except sqlite3.Error as e:
        keeper.give_back()
        return f"busy {keeper.path}: {e}"
    return word


def say(answer: str) -> None:
    """Answer with one line."""
    sys.stdout.write(f"{answer}\n")
    sys.stdout.flush()


def main(path: str) -> None:
    """Obey orders until they end."""
    keeper = Keeper(path)
    ready = attempt(keeper, TRY_S, "ready")
    keeper.give_back()
    say(ready)
    for line in sys.stdin:
        if line.strip() == "hold":
            say(attempt(keeper, HOLD_S, "held"))
        elif line.strip() == "release":
            why = keeper.lost()
            keeper.give_back()
            say(f"lost {why}" if why else "released")
    keeper.connection.close()


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (sqlite3.Error, OSError) as e:
        say(f"failed {sys.argv[1]}: {e}")
