# SPDX-License-Identifier: Apache-2.0
"""Seeing that a process keeps everybody out of its database (PRAGMA locking_mode=EXCLUSIVE), without opening it.

Such a process has a write lock on the bytes that every reader shares, from its first write until it ends, also in WAL
mode, and the kernel lists it (/proc/locks, proc(5)). A transaction of a rollback journal takes the same lock, but only
for its own time. A write transaction that lets readers in is none of this: its end can be waited for.
"""

import os
import time
from collections.abc import Collection, Mapping

from slackwater.system import mounts

#: The first byte that readers share (SHARED_FIRST, os.h of SQLite).
_SHARED = 0x40000002
#: Who has the lock at each of these looks does not give it back. Between two transactions of a busy writer there is
#: less than a millisecond.
_FOR_S, _POLL_S = 0.3, 0.001


def exclusive(holders: Mapping[str, Collection[int]]) -> dict[str, int]:
    """For each database that a process keeps everybody out of: which.

    Args:
        holders: for the path of each database, who has it open. Only they are asked about, since a file's number alone
            is not enough on Btrfs: the subvolumes of one filesystem may have the same.
    """
    wanted = {path: {(_file(path), pid) for pid in pids} for path, pids in holders.items() if pids}
    locked = _held() & {each for mine in wanted.values() for each in mine}
    ends_s = time.monotonic() + _FOR_S
    while locked and time.monotonic() < ends_s:
        time.sleep(_POLL_S)
        # Twice, since the kernel gives its list out in pieces: while it changes, a line between two may be lost.
        locked &= _held() | _held()
    return {path: min(pid for _, pid in mine & locked) for path, mine in wanted.items() if mine & locked}


def _file(path: str) -> str:
    """A file as the kernel's list names it; empty, which it names none, when it is gone."""
    try:
        mount, found = mounts.mount_of(path), os.stat(path)
    except OSError:
        return ""
    major, minor = (mount.superblock if mount else "0:0").split(":")
    return f"{int(major):02x}:{int(minor):02x}:{found.st_ino}"


def _held() -> set[tuple[str, int]]:
    """Each file whose shared bytes are locked for one process alone, and that process."""
    found = set()
    with open("/proc/locks", encoding="ascii") as f:
        for line in f:
            _, kind, *_, access, pid, file, start, end = line.split()
            # A line with an arrow (-> POSIX) is one who waits.
            if (kind, access) == ("POSIX", "WRITE") and int(start) <= _SHARED and (end == "EOF" or int(end) >= _SHARED):
                found.add((file, int(pid)))
    return found
