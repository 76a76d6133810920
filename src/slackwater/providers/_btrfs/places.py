# SPDX-License-Identifier: Apache-2.0
"""Where replicas lie on a Btrfs: `.slackwater/<session>/` at the top level, root only, tagged as ours.

The tags are extended attributes of the `trusted` namespace, which only root can write (xattr(7)), so nobody can make
us believe that a directory is ours. Nothing is deleted before the tags were read.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from slackwater.errors import RefusedError, RightsError, SlackwaterError
from slackwater.system import btrfs, mounts

ROOT = ".slackwater"
DOCUMENT, MANUAL = "components.json", "RECOVER.txt"
OWNER_TAG, SESSION_TAG = "trusted.slackwater.owner", "trusted.slackwater.session"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Place:
    """A session's directory on one filesystem; the fields that every effect of this provider begins with."""

    filesystem: str
    """Its UUID."""
    source: str
    """A device on which it was seen, or the file behind a loop device."""
    owner: str
    session: str

    def path(self, name: str) -> str:
        """The path of a copy from the top level."""
        return f"{ROOT}/{self.session}/{name}"

    @contextmanager
    def top(self, *, read_only: bool = False) -> Iterator[int]:
        """A descriptor of the filesystem's top level."""
        with btrfs.top_level(self.filesystem, self.source, read_only=read_only) as fd:
            yield fd

    @contextmanager
    def opened(self, top: int) -> Iterator[int | None]:
        """A descriptor of the directory, None when there is none.

        Raises:
            RefusedError: there is one, and it is not ours.
        """
        with _root(top) as root, _directory(self.session, root) as fd:
            if fd is not None and tags(fd) != (self.owner, self.session):
                raise RefusedError(
                    f"{ROOT}/{self.session} on the Btrfs {self.filesystem} does not bear this installation's tag.",
                    data="It was left as it is.",
                    hint="It belongs to another installation of slackwater, or to somebody else.",
                )
            yield fd

    @contextmanager
    def required(self, top: int) -> Iterator[int]:
        """A descriptor of the directory.

        Raises:
            SlackwaterError: there is none, or it is not ours.
        """
        with self.opened(top) as fd:
            if fd is None:
                raise SlackwaterError(
                    f"There is no {ROOT}/{self.session} on the Btrfs {self.filesystem}.", data="Nothing was changed."
                )
            yield fd

    def make_directory(self) -> None:
        """Make the directory and tag it. Idempotent; it never exists under its name without its tags."""
        with self.top() as top:
            with self.opened(top) as fd:
                if fd is not None:
                    return
            _make(ROOT, top)
            with _root(top) as root:
                _make(draft := f".{self.session}.new", root)
                with _directory(draft, root) as fd:
                    os.setxattr(_there(fd), OWNER_TAG, self.owner.encode())
                    os.setxattr(_there(fd), SESSION_TAG, self.session.encode())
                os.rename(draft, self.session, src_dir_fd=root, dst_dir_fd=root)
            btrfs.commit(top)

    def remove_directory(self) -> None:
        """Remove the directory with the document, but only when no copy lies in it. Idempotent.

        Raises:
            SlackwaterError: something else lies in it.
        """
        with self.top() as top:
            with _root(top) as root:
                if root is None:
                    return
                with self.opened(top) as fd:
                    if fd is not None:
                        self._empty(fd)
                for name in (self.session, f".{self.session}.new"):
                    _remove(name, root)
            _remove(ROOT, top)
            btrfs.commit(top)

    def _empty(self, fd: int) -> None:
        documents = {DOCUMENT, f"{DOCUMENT}.new", MANUAL, f"{MANUAL}.new"}
        names = set(os.listdir(fd))
        if copies := names - documents:
            raise SlackwaterError(
                f"{ROOT}/{self.session} on the Btrfs {self.filesystem} still holds {', '.join(sorted(copies))}.",
                data="What lies there was left as it is.",
            )
        for name in names & documents:
            os.unlink(name, dir_fd=fd)


def sessions(top: int, owner: str) -> list[str]:
    """The sessions whose directories on a filesystem bear the owner's tag; none where `.slackwater` is not root's."""
    found = []
    with suppress(RefusedError), _root(top) as root:
        for name in sorted(os.listdir(root)) if root is not None else ():
            try:
                with _directory(name, root) as fd:
                    if fd is not None and tags(fd) == (owner, name):
                        found.append(name)
            except OSError:
                continue  # no directory: not ours
    return found


def tags(fd: int) -> tuple[str, str]:
    """Owner and session that a directory is tagged with; empty without a tag."""
    return _tag(fd, OWNER_TAG), _tag(fd, SESSION_TAG)


def mounted_in(filesystem: str, path: str) -> list[str]:
    """Where a path of the filesystem, or something below it, is mounted, in any mount namespace, in words."""
    found = []
    own = mounts.own_namespace()
    for space in mounts.namespaces():
        blocks: dict[str, bool] = {}
        for mount in space.mounts:
            if mount.fstype == "btrfs" and mounts.inside(mount.root, f"/{path}"):
                if mount.superblock not in blocks:
                    blocks[mount.superblock] = _is(filesystem, space, mount)
                if blocks[mount.superblock]:
                    where = "" if space.inode == own else f" in the mount namespace of process {min(space.pids)}"
                    found.append(mount.target + where)
    return found


def _is(filesystem: str, space: mounts.Namespace, mount: mounts.Mount) -> bool:
    """Whether a mount shows this filesystem; when its target cannot be reached, its device has to tell."""
    try:
        fd = os.open(f"/proc/{min(space.pids)}/root{mount.target}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return btrfs.filesystem_of(fd) == filesystem
        finally:
            os.close(fd)
    except OSError:
        return os.path.realpath(mount.source) in btrfs.devices_of(filesystem)


@contextmanager
def explained(what: str, data: str = "") -> Iterator[None]:
    """Say in our words what the kernel refused.

    Raises:
        RightsError: for want of root.
        SlackwaterError: for any other OSError.
    """
    try:
        yield
    except OSError as e:
        if e.errno in (errno.EPERM, errno.EACCES) and os.geteuid() != 0:
            raise RightsError(f"{what} needs root.", data=data, hint="Run it with sudo.") from e
        hint = {
            errno.ENOSPC: "Make room: delete replicas, or see `btrfs filesystem usage` and balance.",
            errno.EROFS: "The filesystem is read-only: see the kernel's log for why, and mount it writable.",
            errno.ETXTBSY: "An active swap file lies on it: swapoff it, or move it to a subvolume of its own.",
            errno.EPERM: "It may be the default subvolume: see `btrfs subvolume get-default`.",
            errno.ENOTEMPTY: "It holds further subvolumes: see `btrfs subvolume list`.",
        }.get(e.errno or 0, "")
        raise SlackwaterError(f"{what} failed: {e.strerror or e}.", data=data, hint=hint) from e


@contextmanager
def _root(top: int) -> Iterator[int | None]:
    with _directory(ROOT, top) as fd:
        if fd is not None:
            found = os.fstat(fd)
            if found.st_uid != 0 or stat.S_IMODE(found.st_mode) & 0o077:
                raise RefusedError(
                    f"{ROOT} at the top level of a Btrfs is not root's alone.",
                    data="It was left as it is.",
                    hint=f"See what lies in it, then chown root:root and chmod 0700 {ROOT}.",
                )
        yield fd


@contextmanager
def _directory(name: str, parent: int | None) -> Iterator[int | None]:
    try:
        fd = None if parent is None else os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        fd = None
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _make(name: str, parent: int | None) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=_there(parent))
    except FileExistsError:
        return


def _remove(name: str, parent: int) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as e:
        if e.errno != errno.ENOTEMPTY or name != ROOT:  # other sessions' replicas stay
            raise


def _there(fd: int | None) -> int:
    if fd is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), ROOT)
    return fd


def _tag(fd: int, name: str) -> str:
    try:
        return os.getxattr(fd, name).decode(errors="replace")
    except OSError:
        return ""
