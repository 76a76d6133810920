# SPDX-License-Identifier: Apache-2.0
"""One session at a time on a host: a lock that ends with its holder's life."""

import fcntl
import os
import time
from types import TracebackType
from typing import Self

#: A program that a killed holder was just starting has the lock until its execve(2) closes it.
GRACE_S = 1.0
_LOOK_S = 0.02


class SessionLock:
    """flock(2) on a file: held while the context lasts, given back by the kernel when the holder dies."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, note: str, *, within_s: float = GRACE_S) -> bool:
        """Try to take the lock, and leave `note` for those who come later.

        Args:
            note: what it is taken for.
            within_s: how long to try; no less than what a holder that was killed may leave it taken for.

        Returns: whether it is ours now.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + within_s
        while not _locked(fd):
            if time.monotonic() >= until:
                os.close(fd)
                return False
            time.sleep(_LOOK_S)
        self._fd = fd
        self.note(note)
        return True

    def note(self, text: str) -> None:
        """Say, for those who find the lock taken, what it is held for."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def holder(self) -> str:
        """The note of whoever holds it now, or held it last."""
        try:
            with open(self._path, encoding="utf-8") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def release(self) -> None:
        """Give it back. Idempotent."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
