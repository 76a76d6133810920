# SPDX-License-Identifier: Apache-2.0
"""One directory tree made like another, again and again, each time only what changed.

A file is passed over when inode, size and times are those it had when it was copied. That proves that nothing was
written since: to share a file's extents, the kernel first puts its dirty pages on the disk and takes their mappings'
right to write, so that the next store through a mapping faults and moves the times, too (page_mkwrite; tried on Linux
6.18, `test_reflink_trees.py`), and it waits for a write that is under way. Times go in ticks, so a file that was
changed in the very tick of its copying is copied again.

Where files cannot share extents their data is copied, which waits for no write that is under way: one that began before
the copy and moved the times then may put its data into what was copied already. So such a file is copied again, too,
unless nobody had it open for writing when its times were read.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from slackwater.providers._copying import go_on
from slackwater.providers._trees.attributes import carry, carry_name
from slackwater.providers._trees.manifest import names
from slackwater.providers._trees.places import directory
from slackwater.system import files, reflink

#: Longer than a tick of the kernel's clock on any configuration (10 ms with HZ=100).
TICK_S = 0.02
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 5
_NO_FILES = (errno.ELOOP, errno.ENXIO)  # a link, a socket

Look = tuple[int, int, int, int, int]
"""Device, inode, size, times of change of data and of anything, in ns: moves with every change."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is copied; paths are relative to the source, `.` for all of it."""

    trees: tuple[str, ...] = (".",)
    without: frozenset[str] = frozenset()
    last: tuple[str, ...] = ()


@dataclass(slots=True)
class _Cloned:
    look: Look
    settled: bool
    """It had not been changed in the tick of its cloning, so the same look means the same data."""
    path: str


@dataclass(slots=True)
class Mirror:
    """A target directory that becomes like a source directory. Both descriptors are the caller's."""

    source: int
    target: int
    fstype: str
    scope: Scope = Scope()
    shares: bool = True
    """Files share their extents; else their data is copied."""
    _made: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What the target holds: device and inode of what it was made of, by path."""
    _looks: dict[str, Look] = field(default_factory=dict)
    """How directories, links and pipes looked when they were made."""
    _cloned: dict[tuple[int, int], _Cloned] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    """What the source held in this pass."""

    def copy(self) -> None:
        """Make the target like the source is now. What vanishes meanwhile is left out, what appears is taken.

        Raises:
            OSError: the kernel refused.
        """
        self._seen = set()
        for tree in self.scope.trees:
            self._tree(tree)
        for path in self.scope.last:
            parent, name = os.path.split(path)
            with (
                suppress(FileNotFoundError),
                directory(parent, self.source) as source,
                directory(parent, self.target) as target,
            ):
                self._entry(path, name, source, target)
                _set_times(target, os.fstat(source))
        for path in sorted(self._made.keys() - self._seen, key=len, reverse=True):
            self._drop(path)

    @property
    def settled(self) -> bool:
        """False when a file was changed so shortly before it was cloned that it has to be cloned again."""
        return all(each.settled for each in self._cloned.values())

    def changed(self, limit: int = 3) -> list[str]:
        """What in the source is no more what it was when it was copied, or came or went; files before directories."""
        differs, present = [], set()
        for tree in self.scope.trees:
            with suppress(FileNotFoundError), directory("" if tree == "." else tree, self.source) as fd:
                for path, status in self._walk("" if tree == "." else tree, fd):
                    present.add(path)
                    if not self._is_as_copied(path, status):
                        differs.append((stat.S_ISDIR(status.st_mode), path))
        for path in self.scope.last:
            with suppress(FileNotFoundError):
                status = os.stat(path, dir_fd=self.source, follow_symlinks=False)
                present.add(path)
                if not self._is_as_copied(path, status):
                    differs.append((False, path))
        differs += [(False, path) for path in self._made.keys() - present if path not in self._roots()]
        return [path for _, path in sorted(differs)[:limit]]

    def _is_as_copied(self, path: str, status: os.stat_result) -> bool:
        look, key = look_of(status), (status.st_dev, status.st_ino)
        if path != "." and self._made.get(path) != key:
            return False
        if stat.S_ISREG(status.st_mode):
            known = self._cloned[key]
            return known.settled and known.look == look
        return self._looks.get(path) == look

    def _roots(self) -> set[str]:
        """The trees and what leads to them."""
        found = set()
        for tree in self.scope.trees:
            while tree not in ("", "."):
                found.add(tree)
                tree = os.path.dirname(tree)  # noqa: PLW2901
        return found

    def _walk(self, path: str, fd: int) -> Iterator[tuple[str, os.stat_result]]:
        """Everything below a directory that is copied in no particular place of the order."""
        yield path or ".", os.fstat(fd)
        for name in names(fd):
            inner = os.path.join(path, name)
            if inner in self.scope.without or inner in self.scope.last:
                continue
            with suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    yield inner, status
                    continue
                child = os.open(name, _DIRECTORY, dir_fd=fd)
                try:
                    yield from self._walk(inner, child)
                finally:
                    os.close(child)

    # -- one pass --------------------------------------------------------------------------------------------------

    def _tree(self, tree: str) -> None:
        """A tree, with the directories that lead to it."""
        if tree == ".":
            self._fill("", self.source, self.target)
            return
        parent, name = os.path.split(tree)
        for step in _steps(parent):
            above, last = os.path.split(step)
            with directory(above, self.source) as source, directory(above, self.target) as target:
                self._enter(step, last, source, target, fill=False)
        with directory(parent, self.source) as source, directory(parent, self.target) as target:
            self._entry(tree, name, source, target)
        if tree not in self._seen:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), tree)

    def _fill(self, path: str, source: int, target: int) -> None:
        """The entries of a directory, then its own attributes, which making the entries moved."""
        if os.geteuid() != 0:
            os.chmod(target, 0o700)
        status = os.fstat(source)
        for name in names(source):
            inner = os.path.join(path, name)
            if inner not in self.scope.without and inner not in self.scope.last:
                self._entry(inner, name, source, target)
        for inner in (os.path.join(path, name) for name in names(target)):
            if inner not in self._seen and inner not in self.scope.last:
                self._drop(inner)
        if not path:
            self._note(".", status)
        carry(target, source, status)
        _set_times(target, status)

    def _entry(self, path: str, name: str, source: int, target: int) -> None:
        for _ in range(_ATTEMPTS):
            try:
                status = os.stat(name, dir_fd=source, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    self._enter(path, name, source, target)
                elif stat.S_ISREG(status.st_mode):
                    self._file(path, name, status, source, target)
                else:
                    self._other(path, name, status, source, target)
            except FileNotFoundError:
                return  # vanished
            except (_ReplacedError, NotADirectoryError):
                continue  # by something of another kind: look again
            else:
                self._seen.add(path)
                return

    def _enter(self, path: str, name: str, source: int, target: int, *, fill: bool = True) -> None:
        theirs = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            status = os.fstat(theirs)
            if self._made.get(path) != (status.st_dev, status.st_ino) or path not in self._looks:
                self._drop(path)
                self._made_directory(name, target, theirs)
                self._note(path, status)
            ours = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                if fill:
                    self._looks[path] = look_of(status)
                    self._fill(path, theirs, ours)
                else:
                    self._seen.add(path)
                    carry(ours, theirs, status)
                    _set_times(ours, status)
            finally:
                os.close(ours)
        finally:
            os.close(theirs)

    def _made_directory(self, name: str, target: int, theirs: int) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=target)
        except FileExistsError:
            return  # another part of the copy made it
        fd = os.open(name, _DIRECTORY, dir_fd=target)
        try:
            reflink.carry_flags(fd, theirs, self.fstype)
        finally:
            os.close(fd)

    def _other(self, path: str, name: str, status: os.stat_result, source: int, target: int) -> None:
        """A symbolic link, pipe, socket or device."""
        if self._made.get(path) == (status.st_dev, status.st_ino) and self._looks.get(path) == look_of(status):
            return
        self._drop(path)
        if stat.S_ISLNK(status.st_mode):
            os.symlink(_link(name, source), name, dir_fd=target)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        self._note(path, status)
        carry_name(name, target, source, status)

    def _file(self, path: str, name: str, status: os.stat_result, source: int, target: int) -> None:
        key = (status.st_dev, status.st_ino)
        known = self._cloned.get(key)
        if self._made.get(path) == key and known and known.settled and known.look == look_of(status):
            return
        theirs = _open(name, source)
        try:
            began_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
            status = os.fstat(theirs)
            key = (status.st_dev, status.st_ino)
            if not stat.S_ISREG(status.st_mode):
                raise _ReplacedError
            quiet = self.shares or files.written_by_nobody(theirs)
            ours = self._opened(path, name, status, target)
            try:
                self._clone(ours, theirs, status)
            finally:
                os.close(ours)
            # A stamp of the future is of a clock that was set back since: whoever writes now makes another one.
            settled = quiet and abs(began_ns - status.st_ctime_ns) > int(TICK_S * 1e9)
            self._cloned[key] = _Cloned(look_of(status), settled, path)
        finally:
            os.close(theirs)

    def _opened(self, path: str, name: str, status: os.stat_result, target: int) -> int:
        """The target's file: there already, a further name of a file that is, or new."""
        key = (status.st_dev, status.st_ino)
        if self._made.get(path) != key or path in self._looks:
            self._drop(path)
            known = self._cloned.get(key)
            if status.st_nlink > 1 and known and self._made.get(known.path) == key:
                os.link(known.path, name, src_dir_fd=self.target, dst_dir_fd=target, follow_symlinks=False)
            else:
                os.close(os.open(name, _MAKE, 0o600, dir_fd=target))
            self._made[path] = key
        return os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)

    def _clone(self, ours: int, theirs: int, status: os.stat_result) -> None:
        size = os.fstat(ours).st_size
        if size == 0:
            reflink.carry_flags(ours, theirs, self.fstype)
        if self.shares:
            if size > status.st_size:
                os.ftruncate(ours, 0)
            if not _shared_whole(ours, theirs):
                os.ftruncate(ours, 0)
                reflink.clone(ours, theirs)
        else:
            for _ in files.copy_data(ours, theirs):
                go_on()
        carry(ours, theirs, status)
        _set_times(ours, status)

    # -- what the target holds -------------------------------------------------------------------------------------

    def _note(self, path: str, status: os.stat_result) -> None:
        if path != ".":
            self._made[path] = (status.st_dev, status.st_ino)
        self._looks[path] = look_of(status)

    def _drop(self, path: str) -> None:
        """Remove what was made of a path, with everything below."""
        if path not in self._made:
            return
        below = [each for each in self._made if each.startswith(f"{path}/")]
        for each in sorted([path, *below], key=len, reverse=True):
            try:
                os.unlink(each, dir_fd=self.target)
            except IsADirectoryError:
                os.rmdir(each, dir_fd=self.target)
            del self._made[each]
            self._looks.pop(each, None)


class _ReplacedError(Exception):
    """What was a file is none any more."""


def look_of(status: os.stat_result) -> Look:
    """What moves with every change of a file."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def scope_of(volume: str, trees: Sequence[str], without: Sequence[str], last: Sequence[str]) -> Scope:
    """What to copy of a volume; paths absolute."""
    inside = [os.path.relpath(tree, volume) for tree in trees or (volume,)]
    outer = [tree for tree in inside if not any(tree != o and (o == "." or tree.startswith(f"{o}/")) for o in inside)]
    return Scope(
        trees=tuple(dict.fromkeys(outer)),
        without=frozenset(os.path.relpath(each, volume) for each in without),
        last=tuple(os.path.relpath(each, volume) for each in last),
    )


def _set_times(fd: int, status: os.stat_result) -> None:
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _open(name: str, directory_fd: int) -> int:
    try:
        return os.open(name, _READ, dir_fd=directory_fd)
    except OSError as e:
        if isinstance(e, FileNotFoundError) or e.errno not in _NO_FILES:
            raise
        raise _ReplacedError from e


def _shared_whole(ours: int, theirs: int) -> bool:
    """Share all extents; False where the source shrank meanwhile, and the target has to be begun anew.

    Its new end, a part of a block, is not shared with the middle of a file (EINVAL, ioctl_ficlonerange(2)); and where
    it was cut off between two blocks the target keeps an old end.
    """
    try:
        reflink.clone(ours, theirs)
    except OSError as e:
        if e.errno != errno.EINVAL or os.fstat(ours).st_size == 0:
            raise
        return False
    return os.fstat(theirs).st_size >= os.fstat(ours).st_size


def _link(name: str, directory_fd: int) -> str:
    try:
        return os.readlink(name, dir_fd=directory_fd)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        raise _ReplacedError from e


def _steps(path: str) -> list[str]:
    """`a/b/c` as `a`, `a/b`, `a/b/c`."""
    parts = path.split("/") if path else []
    return ["/".join(parts[: number + 1]) for number in range(len(parts))]
