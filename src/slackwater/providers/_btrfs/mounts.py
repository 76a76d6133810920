# SPDX-License-Identifier: Apache-2.0
"""Taking the mounts of live volumes away for an exchange and bringing them back, and the bar over half a switch."""

import errno
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.providers._bars import BarEffect, Root, UnbarEffect
from slackwater.providers._btrfs.places import explained
from slackwater.system import btrfs, mounts, processes

#: How long a mount may be busy without anybody to be seen who holds it.
_PASSING_S = 2.0


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
        ends_s = time.monotonic() + _PASSING_S
        while (busy := _unmounted(self.target)) is not None:
            held = [f"{h.command} (pid {h.pid}, {h.how} {h.path})" for h in processes.lasting_holders(device)]
            held += [f"the mount {m.target}" for m in mounts.read() if m.target.startswith(f"{self.target}/")]
            if held or time.monotonic() > ends_s:
                raise RefusedError(
                    f"{self.target} cannot be unmounted: {', '.join(held[:5]) or 'something in the kernel'} holds it.",
                    data="It is still mounted as it was.",
                    hint=f"End what holds it: fuser -vm {self.target}",
                    code="busy-mount",
                ) from busy
            time.sleep(_PASSING_S / 20)  # a process that is just ending, or looks in passing


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
class _Volumes:
    """The roots of several live volumes and their clones. The tuples belong together, one item for each volume."""

    filesystems: tuple[str, ...]
    sources: tuple[str, ...]
    live: tuple[str, ...]
    aside: tuple[str, ...]
    live_uuids: tuple[str, ...]

    @contextmanager
    def roots(self) -> Iterator[list[Root]]:
        """Open the roots on their filesystems, and write back what was changed."""
        with ExitStack() as stack:
            tops = {
                f: stack.enter_context(btrfs.top_level(f, s))
                for f, s in zip(self.filesystems, self.sources, strict=True)
            }
            roots = []
            for f, live, aside, uuid in zip(self.filesystems, self.live, self.aside, self.live_uuids, strict=True):
                here, beside = (_open(path, tops[f], stack) for path in (live, aside))
                roots.append(Root(here, beside, here is not None and btrfs.subvolume(here).uuid != uuid))
            yield roots
            for top in tops.values():
                btrfs.commit(top)

    def told(self, what: str) -> AbstractContextManager[None]:
        """See `places.explained`."""
        return explained(what)


@dataclass(frozen=True, slots=True)
class Bar(_Volumes, BarEffect):
    """The bar, as an effect of the journal."""

    kind: ClassVar[str] = "btrfs.bar"


@dataclass(frozen=True, slots=True)
class Unbar(_Volumes, UnbarEffect):
    """Its end."""

    kind: ClassVar[str] = "btrfs.unbar"


def _unmounted(target: str) -> OSError | None:
    """Unmount it; the error when it is busy."""
    try:
        mounts.unmount(target)
    except OSError as e:
        if e.errno != errno.EBUSY:
            raise
        return e
    return None


def _open(path: str, top: int, stack: ExitStack) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    except FileNotFoundError:
        return None
    stack.callback(os.close, fd)
    return fd
