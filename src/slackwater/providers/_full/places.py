# SPDX-License-Identifier: Apache-2.0
"""Where full copies lie: at a mount point of another filesystem, `.slackwater-full/SESSION/`, tagged as ours."""

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from slackwater.errors import RefusedError
from slackwater.providers import _places
from slackwater.providers._places import Place
from slackwater.system import files, filesystems, mounts
from slackwater.system.command import run

#: Not the name of the other providers, which look for theirs at the tops of the filesystems they know.
FULL = ".slackwater-full"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HINTS = {
    errno.ENOSPC: "Make room there: `slackwater replica delete ID`, or a larger filesystem.",
    errno.EROFS: "The filesystem is read-only: see the kernel's log for why, and mount it writable.",
    errno.EOPNOTSUPP: "The filesystem has to know extended attributes: use ext4, XFS or Btrfs.",
}


@dataclass(frozen=True, slots=True)
class FullPlace(Place):
    """A session's directory on the filesystem that full copies go to."""

    to: str
    """Where that filesystem was mounted; it is found again by its UUID, wherever it is mounted now."""

    @property
    def root(self) -> str:
        """Below the mount point."""
        return FULL

    @property
    def where(self) -> str:
        """The filesystem, in words."""
        return f"the filesystem {self.filesystem} ({self.to})"

    @property
    def mount(self) -> mounts.Mount:
        """The mount that shows the directories of all sessions.

        Raises:
            RefusedError: the filesystem is not mounted.
        """
        first = mounts.at(self.to)
        for each in ([first] if first else []) + [m for m in on_disks() if m != first]:
            shown = each == first or os.path.isdir(f"{each.target}/{FULL}")
            if shown and uuid_of(each) == self.filesystem:
                return each
        raise RefusedError(
            f"{self.where[0].upper()}{self.where[1:]} is not mounted.",
            data="Nothing was changed.",
            hint=f"mount UUID={self.filesystem} {self.to}",
            code="target-not-mounted",
        )

    @contextmanager
    def top(self, *, read_only: bool = False) -> Iterator[int]:
        """A descriptor of the mount point."""
        fd = os.open(self.mount.target, _DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    def settle(self, top: int) -> None:
        """Write everything back."""
        files.write_back(top)

    def told(self, what: str, data: str = "") -> AbstractContextManager[None]:
        """See `explained`."""
        return explained(what, data)


def on_disks() -> list[mounts.Mount]:
    """The mounts of filesystems that have a disk (/proc/filesystems: not `nodev`); network ones could hang."""
    kinds = filesystems.on_disks()
    return [each for each in mounts.read() if each.fstype in kinds]


def uuid_of(mount: mounts.Mount) -> str:
    """The UUID of a mounted filesystem, by blkid(8); empty where it has none."""
    return run("blkid", "-c", "/dev/null", "-s", "UUID", "-o", "value", "--", mount.source, check=False).output.strip()


def explained(what: str, data: str = "") -> AbstractContextManager[None]:
    """See `_places.explained`."""
    return _places.explained(what, data, _HINTS)
