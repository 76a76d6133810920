# SPDX-License-Identifier: Apache-2.0
"""Files of ours that people edit or that are made once: who may have written them, and writing one whole."""

import errno
import fcntl
import os
import stat
import tempfile
import tomllib
from contextlib import suppress
from typing import Any

from slackwater.errors import NotFoundError, RightsError, SlackwaterError, UsageError


def create_whole(path: str, text: str, *, mode: int = 0o644) -> None:
    """Create a file with its whole text or not at all, and sync it; other processes see no half of it.

    Two that try at once are kept apart by a lock on the folder, and what a killed one left (`.NAME.new`) is used up by
    the next.

    Raises:
        FileExistsError: it is there already; nothing was changed.
        OSError: the folder is missing, full or may not be written.
    """
    folder_path, name = os.path.split(path)
    half = os.path.join(folder_path, f".{name}.new")
    folder = os.open(folder_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if os.path.lexists(path):
            raise FileExistsError(path)
        fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(fd, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(fd)
        os.rename(half, path)
        os.fsync(folder)
    finally:
        os.close(folder)


def create_private(path: str, data: bytes) -> None:
    """Create a file that only its owner may read, whole or not at all, in a folder that others may write too.

    Nothing of theirs is followed or used up, and nothing that is there is replaced.

    Raises:
        FileExistsError: it is there already; nothing was changed.
        OSError: the folder is missing, full or may not be written.
    """
    fd, draft = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(os.path.abspath(path)))
    try:
        with open(fd, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(fd)
        _take_name(draft, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _take_name(draft: str, path: str) -> None:
    """Give a file its name, which must be free; on a filesystem without hard links (vfat) by looking first."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError as e:
        if e.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.rename(draft, path)


def read_toml(path: str) -> dict[str, Any]:
    """Read a TOML file that only those may write who may command us.

    Raises:
        NotFoundError: there is no such file.
        RightsError: it may not be read, or we are root and others may write it.
        UsageError: it is not TOML; the sentence gives the line.
    """
    try:
        with open(path, "rb") as f:
            refuse_untrusted(os.fstat(f.fileno()), path)
            folder = os.path.dirname(os.path.abspath(path))
            refuse_untrusted(os.stat(folder), folder)
            return tomllib.load(f)
    except FileNotFoundError as e:
        raise NotFoundError(f"There is no file {path}.", data="Nothing was changed.") from e
    except PermissionError as e:
        raise RightsError(f"{path} may not be read.", data="Nothing was changed.", hint="Run this as root.") from e
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"{path}: {e}.", data="Nothing was changed.", hint="Correct the file; it is TOML.") from e
    except RecursionError as e:
        raise UsageError(f"{path} is nested too deeply.", data="Nothing was changed.", hint="Correct the file.") from e
    except UnicodeDecodeError as e:
        raise UsageError(f"{path} is not UTF-8 text.", data="Nothing was changed.", hint="Correct the file.") from e
    except OSError as e:
        raise SlackwaterError(f"{path} cannot be read: {e.strerror}.", data="Nothing was changed.") from e


def refuse_untrusted(status: os.stat_result, path: str, uid: int | None = None) -> None:
    """Refuse, when we are root, a file or folder that somebody else owns or may write.

    What stands in it decides which databases root stops and what root deletes. `uid` is ours unless given.

    Raises:
        RightsError: with the command that puts it right.
    """
    if (os.geteuid() if uid is None else uid) != 0:
        return
    if status.st_uid != 0:
        raise RightsError(
            f"{path} belongs to user {status.st_uid}, who could make root do anything with it.",
            data="Nothing was changed.",
            hint=f"Look through it, then: chown root:root {path}",
        )
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise RightsError(
            f"{path} may be written by others than root, who could make root do anything with it.",
            data="Nothing was changed.",
            hint=f"Look through it, then: chmod go-w {path}",
        )
