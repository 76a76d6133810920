# SPDX-License-Identifier: Apache-2.0
"""Folders for what is needed for a moment only and may be large: they go, also when we were killed meanwhile."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator

from slackwater.errors import SlackwaterError

_PREFIX = "slackwater-scratch-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """An empty folder of ours in TMPDIR, or in /var/tmp, which is no memory. Others may pass through it, and not look.

    It is locked for as long as it is used: one that nobody holds was left by a process that was killed, and goes.

    Raises:
        SlackwaterError: there is no such place, or no room.
    """
    base = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108  # a name that nobody can foresee is made there
    try:
        _sweep(base)
        path = tempfile.mkdtemp(prefix=_PREFIX, dir=base)
        fd = os.open(path, _FOLDER)
    except OSError as e:
        raise SlackwaterError(f"No folder can be made in {base}: {e.strerror}.", hint="TMPDIR names another.") from e
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.fchmod(fd, 0o711)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(fd)


def _sweep(base: str) -> None:
    for name in os.listdir(base):
        if name.startswith(_PREFIX):
            with contextlib.suppress(OSError):
                fd = os.open(f"{base}/{name}", _FOLDER)
                try:
                    # One that is just being made is not open to others yet, nor locked.
                    status = os.fstat(fd)
                    if status.st_uid == os.geteuid() and status.st_mode & 0o777 == 0o711:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(f"{base}/{name}")
                finally:
                    os.close(fd)
