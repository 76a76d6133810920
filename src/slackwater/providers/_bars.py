# SPDX-License-Identifier: Apache-2.0
"""The bar over half a switch, the same for every provider that exchanges directories.

An exchange is one instant for one volume. Between two of them a power cut would let the next boot start an engine on
half a switch, so the root directories of all volumes and clones lose their mode until the last exchange is done.
"""

import os
from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import ClassVar, NamedTuple

from slackwater.model.facts import Facts
from slackwater.providers._places import read_tag, tag


class Root(NamedTuple):
    """The roots of one volume and its clone; None for one that is gone."""

    live: int | None
    aside: int | None
    exchanged: bool
    """Another than the old volume lies in its place."""


class _Bars:
    """The volumes of a switch. A subclass knows how they are found, and how the kernel's refusals are explained."""

    __slots__ = ()
    live: tuple[str, ...]
    """Where the volumes lie, for people."""

    @abstractmethod
    def roots(self) -> AbstractContextManager[list[Root]]:
        """Open the roots; what was changed of them is on the disk when the context has ended."""

    @abstractmethod
    def told(self, what: str) -> AbstractContextManager[None]:
        """Say in our words what the kernel refused."""

    def _bar(self, *, only_half_way: bool = False) -> None:
        with self.roots() as roots:
            if not only_half_way or any(each.exchanged for each in roots):
                for fd in _present(roots):
                    _close(fd)

    def _lift(self) -> None:
        with self.roots() as roots:
            for fd in _present(roots):
                _open_again(fd)


class BarEffect(_Bars):
    """No engine can enter any of the volumes while some are exchanged and others are not."""

    __slots__ = ()
    kind: ClassVar[str]

    def describe(self) -> str:
        """Say what it does."""
        return f"bar {', '.join(self.live)} and their clones (mode 0000) until all are exchanged"

    def make(self) -> Facts:
        """Bar them all; the mode of each is kept in an extended attribute of its own root."""
        with self.told(self.describe()):
            self._bar()
        return {}

    def undo(self) -> None:
        """Give each its mode again."""
        with self.told(f"lifting the bar over {', '.join(self.live)}"):
            self._lift()


class UnbarEffect(_Bars):
    """The bar is lifted: all are exchanged."""

    __slots__ = ()
    kind: ClassVar[str]

    def describe(self) -> str:
        """Say what it does."""
        return f"lift the bar over {', '.join(self.live)}"

    def make(self) -> Facts:
        """Give each its mode again."""
        with self.told(self.describe()):
            self._lift()
        return {}

    def undo(self) -> None:
        """Bar them again while they are being exchanged back; with none exchanged there is nothing to bar."""
        with self.told(f"barring {', '.join(self.live)}"):
            self._bar(only_half_way=True)


def _present(roots: list[Root]) -> list[int]:
    return [fd for each in roots for fd in (each.live, each.aside) if fd is not None]


def _close(fd: int) -> None:
    """Take a directory's mode, and keep it in an extended attribute of its own. Idempotent."""
    if read_tag(fd, "mode") is None:
        os.setxattr(fd, tag("mode"), b"%o" % (os.fstat(fd).st_mode & 0o7777))
    os.fchmod(fd, 0)


def _open_again(fd: int) -> None:
    """Give a directory the mode that `_close` kept, if it did. Idempotent."""
    mode = read_tag(fd, "mode")
    if mode is not None:
        os.fchmod(fd, int(mode, 8))
        os.removexattr(fd, tag("mode"))
