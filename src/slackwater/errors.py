# SPDX-License-Identifier: Apache-2.0
"""The errors that reach a user: one short tree.

Each says what happened and to what, what it means for the data, and what to do next; each class has a stable code and
exit status. Whatever else is raised is a defect of ours and is reported as one (code `internal`, exit status 1).
"""

import errno
from typing import ClassVar

#: What the kernel refuses by that may pass by itself: no room, no memory, busy.
PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT})


class SlackwaterError(Exception):
    """Something failed that a user can understand."""

    code: ClassVar[str] = "failed"
    exit_status: ClassVar[int] = 1
    passes: ClassVar[bool] = False
    """Whether it is retryable where nothing else is said."""

    def __init__(
        self, sentence: str, *, data: str = "", hint: str = "", code: str = "", retryable: bool | None = None
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.data = data
        """What it means for the data: "Nothing was changed." is a good answer and must be true."""
        self.hint = hint
        """What to do next: a command, where there is one."""
        self.reason = code or self.code
        """The finer code, as `nested-subvolume`; the class's own where there is none."""
        self.retryable = self.passes if retryable is None else retryable
        """Whether the same may well succeed a little later with nobody doing anything: busy, late, out of room."""


class AbortedError(SlackwaterError):
    """Stopped on request: Ctrl-C, SIGTERM, or `session abort`."""

    code = "aborted"


class FencedError(SlackwaterError):
    """Another process has taken this session over, and puts right what it had begun."""

    code = "fenced"


class UsageError(SlackwaterError):
    """The command line, a setting or a specification is wrong."""

    code = "usage"
    exit_status = 2


class BusyError(SlackwaterError):
    """Another session holds what this one needs."""

    code = "busy"
    exit_status = 3
    passes = True


class NotFoundError(SlackwaterError):
    """No such component, replica, session or specification."""

    code = "not-found"
    exit_status = 4


class RefusedError(SlackwaterError):
    """A check said no before anything was touched."""

    code = "refused"
    exit_status = 5


class RightsError(SlackwaterError):
    """Root, or a right in the database, is missing."""

    code = "permission"
    exit_status = 6


class PartialError(SlackwaterError):
    """Done, with failures."""

    code = "completed-with-failures"
    exit_status = 10


class CrashOnlyError(SlackwaterError):
    """Only crash-consistent where more was asked."""

    code = "crash-consistent"
    exit_status = 11


class DeadlineError(SlackwaterError):
    """The window's deadline passed, or the hold was broken: everything was thawed and nothing was kept."""

    code = "deadline"
    exit_status = 12
    passes = True


class VerificationError(SlackwaterError):
    """A replica did not pass its verification."""

    code = "verification-failed"
    exit_status = 20
