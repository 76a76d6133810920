# SPDX-License-Identifier: Apache-2.0
"""Copying a directory tree between filesystems with cp(1), and telling by contents whether two trees are the same."""

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import file_digest, sha256

from slackwater.errors import SlackwaterError, VerificationError
from slackwater.model.facts import Facts
from slackwater.system.command import CommandError

_stopped = threading.Event()
_LOOK_S = 0.2
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
#: What belongs to a filesystem, or to us, and not to the tree.
_NOT_COPIED = ("btrfs.", "trusted.slackwater.", "user.slackwater.", "security.selinux")


@dataclass(frozen=True, slots=True)
class Contents:
    """A tree with everything in its files."""

    digest: str
    """Of names, kinds, owners, rights, times in seconds, extended attributes, hard links, and all contents."""
    sums: str
    """The contents of each file, as sha256sum(1) writes and checks them."""
    size_bytes: int

    @property
    def facts(self) -> Facts:
        """As they are kept in a document."""
        return {"contents": self.digest, "bytes": self.size_bytes}


def copy_tree(source: str, target: str, *, share: bool = False) -> None:
    """Copy a tree with owners, modes, times, attributes, ACLs, hard links, holes and special files; `target` is made.

    The program ends with us, however we end, so that nothing writes into what somebody else then takes away.

    Args:
        source: a path that is good in this process.
        target: the root of the copy, good in this process; its content is added to.
        share: share extents where the filesystem can.

    Raises:
        CommandError: cp failed; what it had copied is there.
    """
    paths = (path.replace("/proc/self/", f"/proc/{os.getpid()}/", 1) for path in (source, target))
    _run(
        "setpriv", "--pdeathsig", "KILL", "cp", "-a", "--sparse=auto" if share else "--sparse=always",
        f"--reflink={'auto' if share else 'never'}", "-T", "--", *paths,
    )  # fmt: skip
    _forget_tags(target)


def _run(*arguments: str) -> None:
    """To its end, however long it takes, or until it is stopped."""
    begin()
    environment = {**os.environ, "LC_ALL": "C"}
    with subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
        cwd="/", text=True, errors="replace",
    ) as program:  # fmt: skip
        while True:
            try:
                _, complaint = program.communicate(timeout=_LOOK_S)
                break
            except subprocess.TimeoutExpired:
                if _stopped.is_set():
                    program.kill()
    if program.returncode != 0:
        raise CommandError(
            f"{' '.join(arguments[3:])} failed with status {program.returncode} and said: {complaint.strip()[-600:]}"
        )


def stop() -> None:
    """Have what copies or reads a tree in this process fail soon."""
    _stopped.set()


def begin() -> None:
    """Forget that an earlier copy was stopped."""
    _stopped.clear()


def go_on() -> None:
    """Look whether a copy is to be stopped.

    Raises:
        SlackwaterError: it is.
    """
    if _stopped.is_set():
        raise SlackwaterError("The copy was stopped.", data="Nothing of it is kept.", code="aborted")


def contents(tree: str) -> Contents:
    """Read a whole tree."""
    whole, sums, size = sha256(), [], 0
    links: dict[int, str] = {}
    for path, status in _entries(tree):
        go_on()
        name = os.path.relpath(path, tree)
        told: list[object] = [status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime), _attributes(path)]
        if stat.S_ISREG(status.st_mode):
            told += [status.st_size, digest := _digest(path), links.setdefault(status.st_ino, name)]
            sums.append(_sum_line(digest, name))
            size += status.st_blocks * 512
        elif stat.S_ISLNK(status.st_mode):
            told.append(os.readlink(path))
        elif not stat.S_ISDIR(status.st_mode):
            told.append(status.st_rdev)
        whole.update(os.fsencode(name) + b"\0" + repr(told).encode(errors="surrogateescape") + b"\n")
    return Contents(f"sha256:{whole.hexdigest()}", "".join(sums), size)


def expect(tree: str, digest: str, what: str) -> Contents:
    """Read a whole tree that has to hold this and nothing else.

    Raises:
        VerificationError: it holds something else.
    """
    found = contents(tree)
    if found.digest != digest:
        raise VerificationError(
            f"{what} does not hold what was backed up: a file of it was altered, or its disk is broken.",
            data="The application was not touched.",
            hint="Recover from another replica; `sha256sum --check` beside the copy names the files.",
            code="replica-altered",
        )
    return found


def size_of(tree: str) -> int:
    """How many bytes a tree takes on its disk, without what is mounted in it; what vanishes meanwhile is left out."""
    return sum(status.st_blocks * 512 for _, status in _entries(tree, os.stat(tree).st_dev))


def remove_tree(name: str, parent: int) -> None:
    """Delete a tree below a directory. Idempotent."""
    if name in os.listdir(f"/proc/self/fd/{parent}"):
        shutil.rmtree(name, dir_fd=parent)


def _entries(path: str, living_on: int | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Everything in a tree, in the order of names, the root first.

    Args:
        path: its root.
        living_on: for a tree that changes meanwhile, its device; what lies on another one is left out.
    """
    try:
        status = os.lstat(path)
        names = sorted(os.listdir(path)) if stat.S_ISDIR(status.st_mode) else []
    except FileNotFoundError:
        if living_on is not None:
            return
        raise
    if living_on in (None, status.st_dev):
        yield path, status
        for name in names:
            yield from _entries(os.path.join(path, name), living_on)


def _attributes(path: str) -> list[tuple[str, bytes]]:
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
        return [(n, os.getxattr(path, n, follow_symlinks=False)) for n in names if not n.startswith(_NOT_COPIED)]
    except OSError:
        return []


def _digest(path: str) -> str:
    with open(os.open(path, _FILE), "rb") as f:
        return file_digest(f, "sha256").hexdigest()


def _sum_line(digest: str, name: str) -> str:
    plain = name.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{'' if plain == name else chr(92)}{digest}  {plain}\n"


def _forget_tags(target: str) -> None:
    """The root of a copy may bear tags of ours, which say what it is there and not here."""
    for name in os.listxattr(target):
        if "slackwater." in name:
            os.removexattr(target, name)


def require_tree(path: str) -> None:
    """Raise when there is no directory to copy from.

    Raises:
        SlackwaterError: there is none.
    """
    if not os.path.isdir(path):
        raise SlackwaterError(
            f"There is no {path} to copy from.",
            data="Nothing was changed.",
            hint="Mount the filesystem that holds the replica.",
            code="not-mounted",
        )
