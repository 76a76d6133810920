# SPDX-License-Identifier: Apache-2.0
"""Small files in folders that belong to another user, read and written with that user's rights and never with root's.

Such a user can lay links and exchange folders at any instant; so done, they lead only where he may go himself.
"""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from slackwater.system.credentials import as_user

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
LIMIT_BYTES = 1 << 20
"""Of a file that is read; what is longer is cut there."""


@dataclass(frozen=True, slots=True)
class Owner:
    """As whom files are read and written."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file."""

    data: bytes
    status: os.stat_result

    @property
    def digest(self) -> str:
        """What tells its content from another."""
        return digest(self.data)


class Folder:
    """One folder, opened once: names in it are never followed as links."""

    def __init__(self, fd: int) -> None:
        """Work on an open folder."""
        self.fd = fd

    def find(self, name: str) -> Found | None:
        """Read a regular file; None when there is nothing.

        Raises:
            OSError: ELOOP for a link, EINVAL for what is no regular file, and what the kernel says.
        """
        try:
            fd = os.open(name, _READ, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as f:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file")
            return Found(f.read(LIMIT_BYTES), status)

    def write(self, name: str, data: bytes, mode: int, gid: int) -> None:
        """Write a new file, whole on the disk when this returns. What bears the name is removed first."""
        self.remove(name)
        with open(os.open(name, _NEW, 0o600, dir_fd=self.fd), "wb") as f:
            f.write(data)
            if os.fstat(f.fileno()).st_gid != gid:
                os.fchown(f.fileno(), -1, gid)
            os.fchmod(f.fileno(), mode & 0o777)
            f.flush()
            os.fsync(f.fileno())

    def link(self, name: str, to: str) -> None:
        """Give a file a second name.

        Raises:
            FileExistsError: somebody bears it.
        """
        os.link(name, to, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)

    def rename(self, name: str, to: str) -> None:
        """Rename a file; what bore the name before is gone."""
        os.rename(name, to, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def remove(self, name: str) -> None:
        """Remove a name. Gone already: nothing."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.fd)

    def sync(self) -> None:
        """Have all names on the disk."""
        os.fsync(self.fd)


@contextlib.contextmanager
def opened(path: str, owner: Owner) -> Iterator[tuple[Folder, str]]:
    """The folder of a file and the file's name in it; inside the context this thread has the owner's rights only.

    Raises:
        OSError: the owner may not go there, or we may not be him. PermissionError for root: nothing is done as root.
    """
    if owner.uid == 0:
        raise PermissionError(errno.EPERM, "no user but root is known for it")
    folder, name = os.path.split(path)
    with as_user(owner.uid, owner.gid):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield Folder(fd), name
        finally:
            os.close(fd)


def against(path: str, owner: Owner) -> str:
    """Why a file cannot be put back with its owner's rights; empty when it can. Reads only."""
    try:
        with opened(path, owner) as (folder, name):
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder.fd, effective_ids=True):
                return f"user {owner.uid} may not write in its folder"
            own = os.fstat(folder.fd)
            found = folder.find(name)
    except OSError as e:
        return "it is a link" if e.errno == errno.ELOOP else e.strerror or str(e)
    if found is None:
        return ""
    if found.status.st_uid != owner.uid:
        return f"it belongs to user {found.status.st_uid}, and not to {owner.uid}, as whom the engine runs"
    inherited = own.st_gid if own.st_mode & stat.S_ISGID else owner.gid
    if found.status.st_gid not in (inherited, owner.gid):
        return f"it belongs to group {found.status.st_gid}, which the engine's user cannot give it"
    return ""


def digest(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
