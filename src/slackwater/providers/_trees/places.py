# SPDX-License-Identifier: Apache-2.0
"""Where copies of directories lie: on the same filesystem, out of the application's sight, on one mount with it."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.providers import _places
from slackwater.providers._effects import Beside
from slackwater.providers._places import FILES_ROOT, ROOT, read_tag, tag
from slackwater.providers._trees.manifest import inodes, manifest
from slackwater.system import btrfs, filesystems, mounts, processes

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HINTS = {
    errno.ENOSPC: "Make room: `slackwater status` shows what is left, `slackwater replica delete ID` makes more.",
    errno.EDQUOT: "A quota is used up: see `xfs_quota` or `quota`.",
    errno.EROFS: "The filesystem is read-only: see the kernel's log for why, and mount it writable.",
    errno.ENODEV: "Mount it.",
    errno.ETXTBSY: "An active swap file lies in it: swapoff it, or move it elsewhere.",
}


@dataclass(frozen=True, slots=True)
class TreePlace(Beside):
    """A session's directory on one filesystem, or in one subvolume of a Btrfs."""

    noun: ClassVar[str] = "directory"
    fstype: str
    base: str
    """The path, inside the filesystem, of the directory that holds `root`; empty for the filesystem's own top."""

    @property
    def root(self) -> str:
        """On Btrfs another name, since the provider of that name has its places at the top, too."""
        return FILES_ROOT if self.fstype == "btrfs" else ROOT

    @property
    def key(self) -> tuple[str, str]:
        """One filesystem may hold several bases."""
        return self.filesystem, self.inner(self.directory)

    @property
    def where(self) -> str:
        """The filesystem, in words."""
        return f"the {_TYPES.get(self.fstype, self.fstype)} {self.filesystem}"

    @contextmanager
    def top(self, *, read_only: bool = False) -> Iterator[int]:
        """A descriptor of the base, on a mount that nobody else sees; without root on one that everybody sees."""
        if os.geteuid() != 0:
            with _seen(self) as fd:
                yield fd
        elif self.fstype == "btrfs":
            with (
                btrfs.top_level(self.filesystem, self.source, read_only=read_only) as fd,
                directory(self.base, fd) as base,
            ):
                yield base
        else:
            mount = _mount(self)
            with (
                filesystems.top_level(mount, self.filesystem, read_only=read_only) as fd,
                directory(self.base, fd) as base,
            ):
                yield base

    def settle(self, top: int) -> None:
        """Wait for the transaction."""
        filesystems.commit(top, self.fstype)

    def told(self, what: str, data: str = "") -> AbstractContextManager[None]:
        """See `explained`."""
        return explained(what, data)

    def inner(self, path: str) -> str:
        """A path from the top as mountinfo shows it: from the filesystem's own top, with a slash before."""
        return "/" + os.path.join(self.base, path)

    def identity_at(self, path: str, folder: int) -> str | None:
        """Inode and generation of a directory."""
        with found(path, folder) as fd:
            return None if fd is None else filesystems.identity(fd)

    def facts_at(self, path: str, folder: int) -> Facts:
        """Its identity, and what stat(2) says of everything in it."""
        with directory(path, folder) as fd:
            return facts_of(fd)

    def tag_at(self, path: str, folder: int, name: str) -> str | None:
        """What a tag says of a directory; None without the directory or the tag."""
        with found(path, folder) as fd:
            return None if fd is None else read_tag(fd, name)

    def remove(self, name: str, place: int) -> None:
        """Remove a tree from a place; while it goes, its name has a dot before."""
        for left in (gone(name), drafted(name)):
            with suppress(FileNotFoundError):
                shutil.rmtree(left, dir_fd=place)
        with suppress(FileNotFoundError):
            os.rename(name, gone(name), src_dir_fd=place, dst_dir_fd=place)
            shutil.rmtree(gone(name), dir_fd=place)

    @contextmanager
    def draft(self, name: str, place: int, kind: str) -> Iterator[int]:
        """A descriptor of a new, tagged directory, which gets its name when the context ends well."""
        with suppress(FileNotFoundError):
            shutil.rmtree(drafted(name), dir_fd=place)
        os.mkdir(drafted(name), 0o700, dir_fd=place)
        with directory(drafted(name), place) as fd:
            os.setxattr(fd, tag(kind), self.session.encode())
            yield fd
        os.rename(drafted(name), name, src_dir_fd=place, dst_dir_fd=place)

    def refuse_mounted(self, path: str) -> None:
        """A mount of it, or of something in it, would not follow a rename or removal."""
        mount = filesystems.mount_with(self.filesystem, self.fstype)
        for each in bound(mount.superblock, self.inner(path)) if mount else ():
            where = "" if each.own else f" in the mount namespace of process {min(each.pids)}"
            raise RefusedError(
                f"The directory {path} on {self.where} is mounted at {each.target}{where}."
                if each.shows
                else f"{each.target}{where} is mounted inside of the directory {path} on {self.where}.",
                data="It was left as it is.",
                hint=f"umount {each.target}",
                code="mounted",
            )

    def refuse_held(self, top: int, path: str) -> None:
        """By the inodes of everything in it."""
        with directory(path, top) as tree:
            held = holders(tree)
        if held:
            raise RefusedError(
                f"{held[0].command} (pid {held[0].pid}) holds {held[0].path} in the directory {path}.",
                data="It was left as it is.",
                hint=f"Stop it (kill {held[0].pid}, or the service it belongs to), then: slackwater reconcile",
                code="held",
            )


_TYPES = {"xfs": "XFS", "btrfs": "Btrfs"}


def facts_of(tree: int) -> Facts:
    """What tells whether a copy is still the one that was made, and unaltered."""
    return {"identity": filesystems.identity(tree), **manifest(tree).facts}


def drafted(name: str) -> str:
    """What is being made is called so."""
    return f".{name}.new"


def gone(name: str) -> str:
    """What is being removed is called so."""
    return f".{name}.gone"


@contextmanager
def directory(path: str, top: int) -> Iterator[int]:
    """A descriptor of a directory below another; nowhere on the way a link is followed.

    Raises:
        OSError: it is missing, or no directory.
    """
    fd = os.open(".", _DIRECTORY, dir_fd=top)
    try:
        for part in path.split("/") if path else ():
            child = os.open(part, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = child
        yield fd
    finally:
        os.close(fd)


@contextmanager
def found(path: str, top: int) -> Iterator[int | None]:
    """A descriptor of a directory below another; None when there is none."""
    with ExitStack() as stack:
        try:
            fd: int | None = stack.enter_context(directory(path, top))
        except (FileNotFoundError, NotADirectoryError):
            fd = None
        yield fd


@contextmanager
def _seen(place: TreePlace) -> Iterator[int]:
    inner = place.inner("").rstrip("/") or "/"
    mount = _mount(place, inner)
    fd = os.open(os.path.normpath(os.path.join(mount.target, os.path.relpath(inner, mount.root))), _DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _mount(place: TreePlace, inner: str = "") -> mounts.Mount:
    mount = filesystems.mount_with(place.filesystem, place.fstype, inner)
    if mount is None:
        raise OSError(errno.ENODEV, f"{place.where} is not mounted")
    return mount


@dataclass(frozen=True, slots=True)
class Bound:
    """A mount that shows a directory tree or a part of it, or that lies on a directory in it."""

    target: str
    pids: frozenset[int]
    """Who lives in its mount namespace."""
    own: bool
    """It is in our namespace."""
    shows: bool
    """It shows a part of the tree; otherwise it covers one."""


def bound(superblock: str, inner: str) -> list[Bound]:
    """The mounts, in any mount namespace, that would not follow a rename of a directory.

    Args:
        superblock: of the filesystem.
        inner: the directory's path inside it, with a slash before.
    """
    own = mounts.own_namespace()
    result = []
    for space in mounts.namespaces():
        table = {mount.id: mount for mount in space.mounts}
        for mount in space.mounts:
            shows = mount.superblock == superblock and mounts.inside(mount.root, inner)
            if shows or _covers(mount, table.get(mount.parent), superblock, inner):
                result.append(Bound(mount.target, space.pids, space.inode == own, shows))
    return result


def _covers(mount: mounts.Mount, below: mounts.Mount | None, superblock: str, inner: str) -> bool:
    if below is None or below.superblock != superblock or not mounts.inside(mount.target, below.target):
        return False
    point = os.path.normpath(os.path.join(below.root, os.path.relpath(mount.target, below.target)))
    return mounts.inside(point, inner)


def holders(tree: int, exclude: frozenset[int] = frozenset()) -> tuple[processes.Holder, ...]:
    """Who holds a file or directory of a tree, known by its inode and not by a path, and does not let go.

    A file that was removed while it is held belongs to no tree any more.
    """
    mine = inodes(tree)
    return processes.lasting_holders(os.fstat(tree).st_dev, exclude, among=lambda each: each.inode in mine)


def explained(what: str, data: str = "") -> AbstractContextManager[None]:
    """See `_places.explained`."""
    return _places.explained(what, data, _HINTS)
