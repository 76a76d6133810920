# SPDX-License-Identifier: Apache-2.0
"""Where replicas lie on a filesystem: `.slackwater/<session>/`, for one user alone, tagged as ours.

The tags are extended attributes. Root's are of the `trusted` namespace, which only root can write (xattr(7)), so
nobody can make us believe that a directory is ours; without root they are of the `user` namespace, inside a directory
that only this user can enter. Nothing is deleted before the tags were read.
"""

import errno
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256

from slackwater.errors import PASSING, RefusedError, RightsError, SlackwaterError
from slackwater.model.replica import BackupComponents
from slackwater.providers import _document
from slackwater.system import mounts

ROOT = ".slackwater"
#: Of copies of directories in a subvolume of Btrfs: another name, since those of whole subvolumes may lie beside.
FILES_ROOT = f"{ROOT}-files"
DOCUMENT, MANUAL = "components.json", "RECOVER.txt"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME_LENGTH = 64


def tag(name: str) -> str:
    """The extended attribute that bears a tag of ours, as we are."""
    return f"{'trusted' if os.geteuid() == 0 else 'user'}.slackwater.{name}"


def read_tag(fd: int, name: str) -> str | None:
    """What a tag says; None where there is none."""
    try:
        return os.getxattr(fd, tag(name)).decode(errors="replace")
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Place(ABC):
    """A session's directory on one filesystem; the fields that the effects of a provider of filesystems begin with."""

    filesystem: str
    """Its UUID."""
    source: str
    """A device on which it was seen, or the file behind a loop device."""
    owner: str
    session: str

    @property
    def root(self) -> str:
        """The directory, below the top, that holds those of all sessions."""
        return ROOT

    @property
    @abstractmethod
    def where(self) -> str:
        """The filesystem, in words."""

    @abstractmethod
    def top(self, *, read_only: bool = False) -> AbstractContextManager[int]:
        """A descriptor of the directory that holds `root`, on one mount with the volumes."""

    @abstractmethod
    def settle(self, top: int) -> None:
        """Wait until the names that were changed below the top are on the disk."""

    @abstractmethod
    def told(self, what: str, data: str = "") -> AbstractContextManager[None]:
        """Say in our words what the kernel refused."""

    @property
    def key(self) -> tuple[str, str]:
        """What tells whether two are the same, also when their filesystem was seen on different devices."""
        return self.filesystem, self.directory

    @property
    def directory(self) -> str:
        """The path of the session's directory from the top."""
        return f"{self.root}/{self.session}"

    def path(self, name: str) -> str:
        """The path of a copy from the top."""
        return f"{self.directory}/{name}"

    @contextmanager
    def opened(self, top: int) -> Iterator[int | None]:
        """A descriptor of the directory, None when there is none.

        Raises:
            RefusedError: there is one, and it is not ours.
        """
        with _root(top, self.root) as root, _directory(self.session, root) as fd:
            if fd is not None and tags(fd) != (self.owner, self.session):
                raise RefusedError(
                    f"{self.directory} on {self.where} does not bear this installation's tag.",
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
                raise SlackwaterError(f"There is no {self.directory} on {self.where}.", data="Nothing was changed.")
            yield fd

    def make_directory(self) -> None:
        """Make the directory and tag it. Idempotent; it never exists under its name without its tags."""
        with self.top() as top:
            with self.opened(top) as fd:
                if fd is not None:
                    return
            _make(self.root, top)
            with _root(top, self.root) as root:
                _make(draft := f".{self.session}.new", root)
                with _directory(draft, root) as fd:
                    os.setxattr(_there(fd, draft), tag("owner"), self.owner.encode())
                    os.setxattr(_there(fd, draft), tag("session"), self.session.encode())
                os.rename(draft, self.session, src_dir_fd=root, dst_dir_fd=root)
            self.settle(top)

    def remove_directory(self) -> None:
        """Remove the directory with the document, but only when no copy lies in it. Idempotent.

        Raises:
            SlackwaterError: something else lies in it.
        """
        with self.top() as top:
            with _root(top, self.root) as root:
                if root is None:
                    return
                with self.opened(top) as fd:
                    if fd is not None:
                        self._empty(fd)
                for name in (self.session, f".{self.session}.new"):
                    _remove(name, root)
            _remove(self.root, top, also_full=True)
            self.settle(top)

    def _empty(self, fd: int) -> None:
        documents = {DOCUMENT, f"{DOCUMENT}.new", MANUAL, f"{MANUAL}.new"}
        names = set(os.listdir(fd))
        if copies := names - documents:
            raise SlackwaterError(
                f"{self.directory} on {self.where} still holds {', '.join(sorted(copies))}.",
                data="What lies there was left as it is.",
            )
        for name in names & documents:
            os.unlink(name, dir_fd=fd)


def sessions(top: int, owner: str, root: str = ROOT) -> list[str]:
    """The sessions whose directories below a top bear the owner's tag; none where `root` is not ours alone."""
    found = []
    with suppress(RefusedError), _root(top, root) as directory:
        for name in sorted(os.listdir(directory)) if directory is not None else ():
            try:
                with _directory(name, directory) as fd:
                    if fd is not None and tags(fd) == (owner, name):
                        found.append(name)
            except OSError:
                continue  # no directory: not ours
    return found


def documents(top: int, owner: str, root: str = ROOT) -> Iterator[BackupComponents]:
    """The documents of those sessions; one that is missing or not whole is passed over."""
    for session in sessions(top, owner, root):
        with _root(top, root) as directory, _directory(session, directory) as fd:
            document = None if fd is None else _document.load(fd, DOCUMENT)
            if document is not None and (document.owner, document.session) == (owner, session):
                yield document


def tags(fd: int) -> tuple[str, str]:
    """Owner and session that a directory is tagged with; empty without a tag."""
    return read_tag(fd, "owner") or "", read_tag(fd, "session") or ""


def pinned(fd: int) -> bool:
    """Whether the replica in a directory is noted as pinned."""
    return bool(read_tag(fd, "pinned"))


def note_pin(fd: int, *, on: bool) -> None:
    """Note at a directory whether its replica is pinned, on the disk when this returns. Idempotent."""
    if on:
        os.setxattr(fd, tag("pinned"), b"yes")
    elif pinned(fd):
        os.removexattr(fd, tag("pinned"))
    os.fsync(fd)


def name_of(inner: str) -> str:
    """A directory name that tells which volume it is; where that cannot be told, a part of a checksum does.

    Args:
        inner: the volume's path inside its filesystem, without a slash before.
    """
    plain = inner.replace("/", "-").lstrip("@.-") or "top"
    name = re.sub(r"[^A-Za-z0-9._-]", "_", plain)
    if name != plain or len(name) > _NAME_LENGTH or name in (DOCUMENT, MANUAL):
        digest = sha256(os.fsencode(inner)).hexdigest()[:8]
        name = f"{name[-(_NAME_LENGTH - 9) :].lstrip('.-')}-{digest}"
    return name


def others(directory: str, trees: Sequence[str]) -> Iterator[str]:
    """What lies in a directory outside of some trees in it, folders with a slash at the end."""
    for entry in os.scandir(directory):
        if any(mounts.inside(entry.path, tree) for tree in trees):
            continue
        if any(mounts.inside(tree, entry.path) for tree in trees):
            yield from others(entry.path, trees)
        else:
            yield entry.path + ("/" if entry.is_dir(follow_symlinks=False) else "")


@contextmanager
def explained(what: str, data: str, hints: Mapping[int, str]) -> Iterator[None]:
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
        sentence, hint = f"{what} failed: {e.strerror or e}.", hints.get(e.errno or 0, "")
        raise SlackwaterError(sentence, data=data, hint=hint, retryable=e.errno in PASSING) from e


@contextmanager
def _root(top: int, name: str) -> Iterator[int | None]:
    with _directory(name, top) as fd:
        if fd is not None:
            found = os.fstat(fd)
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                owner = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
                raise RefusedError(
                    f"{name} at the top of a filesystem is not for {owner} alone.",
                    data="It was left as it is.",
                    hint=f"See what lies in it, then chown it to {owner} and chmod 0700 {name}.",
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
        os.mkdir(name, 0o700, dir_fd=_there(parent, ROOT))
    except FileExistsError:
        return


def _remove(name: str, parent: int, *, also_full: bool = False) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as e:
        if e.errno != errno.ENOTEMPTY or not also_full:  # other sessions' replicas stay
            raise


def _there(fd: int | None, name: str) -> int:
    if fd is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return fd
