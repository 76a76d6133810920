# SPDX-License-Identifier: Apache-2.0
"""One session at a time on a host: a lock that ends with its holder's life."""

import fcntl
import os
from types import TracebackType
from typing import Self


class SessionLock:
    """flock(2) on a file: held while the context lasts, given back by the kernel when the holder dies."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def acquire(self, note: str) -> bool:
        """Try to take the lock, without waiting, and leave `note` for those who come later.

        Returns: whether it is ours now.
        """
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
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
