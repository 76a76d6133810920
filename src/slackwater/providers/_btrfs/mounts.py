# SPDX-License-Identifier: Apache-2.0
"""Taking the mounts of live volumes away for an exchange and bringing them back, and the bar over half a switch."""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.providers._btrfs.places import explained
from slackwater.system import btrfs, mounts, processes

_MODE_TAG = "trusted.slackwater.mode"


@dataclass(frozen=True, slots=True)
class _Mounted:
    """One mount of a live subvolume, with all that is needed to have it again."""

    filesystem: str
    source: str
    subvolume: str
    """Path from the top level; mounted again by it, never by a number, which would lead to the old volume."""
    live_uuid: str
    """Of the volume to be set aside."""
    target: str
    options: tuple[str, ...]
    inner: tuple[str, ...]
    """Targets of the set's mounts that lie inside this one, deepest first; they have effects of their own."""

    def _shown(self) -> str:
        """The UUID of what is mounted at the target, if it is this path of this filesystem; otherwise empty."""
        mount = mounts.at(self.target)
        if mount is None or (mount.fstype, mount.root) != ("btrfs", f"/{self.subvolume}"):
            return ""
        fd = os.open(self.target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return btrfs.subvolume(fd).uuid if btrfs.filesystem_of(fd) == self.filesystem else ""
        finally:
            os.close(fd)

    def _mount(self) -> None:
        if not self._shown():
            source = btrfs.device_of(self.filesystem, self.source)
            mounts.mount("btrfs", source, self.target, (*self.options, f"subvol=/{self.subvolume}"))

    def _unmount(self) -> None:
        device = os.stat(self.target).st_dev
        try:
            mounts.unmount(self.target)
        except OSError as e:
            if e.errno != errno.EBUSY:
                raise
            held = [f"{h.command} (pid {h.pid}, {h.how} {h.path})" for h in processes.holders(device)]
            held += [f"the mount {m.target}" for m in mounts.read() if m.target.startswith(f"{self.target}/")]
            raise RefusedError(
                f"{self.target} cannot be unmounted: {', '.join(held[:5]) or 'something in the kernel'} holds it.",
                data="It is still mounted as it was.",
                hint=f"End what holds it: fuser -vm {self.target}",
                code="busy-mount",
            ) from e


@dataclass(frozen=True, slots=True)
class Unmount(_Mounted):
    """The mount of a live volume is taken away."""

    kind: ClassVar[str] = "mount.unmount"

    def describe(self) -> str:
        """Say what it does."""
        return f"unmount {self.target}"

    def make(self) -> Facts:
        """Unmount it, if the live volume is what it shows.

        Raises:
            RefusedError: somebody holds it; they are named.
        """
        with explained(self.describe()):
            if self._shown() == self.live_uuid:
                self._unmount()
        return {}

    def undo(self) -> None:
        """Mount it again with the same options, unless something did."""
        with explained(f"mounting {self.target} again"):
            self._mount()


@dataclass(frozen=True, slots=True)
class Mount(_Mounted):
    """What now lies at the volume's path is mounted where the old volume was."""

    kind: ClassVar[str] = "mount.mount"

    def describe(self) -> str:
        """Say what it does."""
        return f"mount {self.target} with subvol=/{self.subvolume}"

    def make(self) -> Facts:
        """Mount it, unless something did."""
        with explained(self.describe()):
            self._mount()
        return {}

    def undo(self) -> None:
        """Unmount it, unless it shows the old volume, which was then never set aside, or is back.

        After a restart of the system on half a switch, the set's mounts inside may be there as well and never have been
        exchanged: they go first, and come back with `Unmount.undo` of their own.

        Raises:
            RefusedError: somebody holds it; they are named.
        """
        with explained(f"unmounting {self.target}"):
            if self._shown() not in ("", self.live_uuid):
                for target in self.inner:
                    if mounts.at(target) is not None:
                        mounts.unmount(target)
                self._unmount()


@dataclass(frozen=True, slots=True)
class _Bars:
    """The roots of several live volumes and their clones. The tuples belong together, one item for each volume."""

    filesystems: tuple[str, ...]
    sources: tuple[str, ...]
    live: tuple[str, ...]
    aside: tuple[str, ...]
    live_uuids: tuple[str, ...]

    @contextmanager
    def _roots(self) -> Iterator[list[tuple[int, int, str]]]:
        """For each volume: its root, its clone's, and the UUID of the old volume. Gone ones are left out."""
        with ExitStack() as stack:
            tops = {
                f: stack.enter_context(btrfs.top_level(f, s))
                for f, s in zip(self.filesystems, self.sources, strict=True)
            }
            roots = []
            for f, live, aside, uuid in zip(self.filesystems, self.live, self.aside, self.live_uuids, strict=True):
                pair = [_open(path, tops[f], stack) for path in (live, aside)]
                roots.append((pair[0], pair[1], uuid))
            yield roots
            for top in tops.values():
                btrfs.commit(top)

    def _bar(self, *, only_half_way: bool = False) -> None:
        with self._roots() as roots:
            exchanged = any(live >= 0 and btrfs.subvolume(live).uuid != uuid for live, _, uuid in roots)
            for fd in (fd for live, aside, _ in roots for fd in (live, aside) if fd >= 0):
                if exchanged or not only_half_way:
                    _close_root(fd)

    def _lift(self) -> None:
        with self._roots() as roots:
            for fd in (fd for live, aside, _ in roots for fd in (live, aside) if fd >= 0):
                _open_root(fd)


@dataclass(frozen=True, slots=True)
class Bar(_Bars):
    """No engine can enter any of the volumes while some are exchanged and others are not.

    An exchange is one instant for one volume. Between two of them a power cut would let the next boot start an engine
    on half a switch, so the root directories of all of them lose their mode until the last exchange is done.
    """

    kind: ClassVar[str] = "btrfs.bar"

    def describe(self) -> str:
        """Say what it does."""
        return f"bar {', '.join(self.live)} and their clones (mode 0000) until all are exchanged"

    def make(self) -> Facts:
        """Bar them all; the mode of each is kept in an extended attribute of its own root."""
        with explained(self.describe()):
            self._bar()
        return {}

    def undo(self) -> None:
        """Give each its mode again."""
        with explained(f"lifting the bar over {', '.join(self.live)}"):
            self._lift()


@dataclass(frozen=True, slots=True)
class Unbar(_Bars):
    """The bar is lifted: all are exchanged."""

    kind: ClassVar[str] = "btrfs.unbar"

    def describe(self) -> str:
        """Say what it does."""
        return f"lift the bar over {', '.join(self.live)}"

    def make(self) -> Facts:
        """Give each its mode again."""
        with explained(self.describe()):
            self._lift()
        return {}

    def undo(self) -> None:
        """Bar them again while they are being exchanged back; with none exchanged there is nothing to bar."""
        with explained(f"barring {', '.join(self.live)}"):
            self._bar(only_half_way=True)


def _open(path: str, top: int, stack: ExitStack) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    except FileNotFoundError:
        return -1
    stack.callback(os.close, fd)
    return fd


def _close_root(fd: int) -> None:
    if _mode_kept(fd) is None:
        os.setxattr(fd, _MODE_TAG, b"%o" % (os.fstat(fd).st_mode & 0o7777))
    os.fchmod(fd, 0)


def _open_root(fd: int) -> None:
    mode = _mode_kept(fd)
    if mode is not None:
        os.fchmod(fd, mode)
        os.removexattr(fd, _MODE_TAG)


def _mode_kept(fd: int) -> int | None:
    try:
        return int(os.getxattr(fd, _MODE_TAG), 8)
    except OSError as e:
        if e.errno != errno.ENODATA:
            raise
        return None
