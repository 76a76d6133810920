# SPDX-License-Identifier: Apache-2.0
"""Calling writers and providers, which others may have written: whatever they raise becomes an error for people."""

from collections.abc import Callable
from typing import TypeVar

from slackwater.errors import DeadlineError, SlackwaterError

T = TypeVar("T")


class HungError(DeadlineError):
    """A call that changes the storage did not come back: what it may still make is undone when our process is gone."""

    passes = False


def hangs(error: BaseException | None) -> bool:
    """Whether a call has not come back, also where something else has failed since, when that was put right."""
    while error is not None and not isinstance(error, HungError):
        error = error.__context__
    return error is not None


def plainly(what: str, call: Callable[[], T], *but: type[Exception]) -> Callable[[], T]:
    """Make a call that raises nothing but what a user can understand.

    Args:
        what: what is done, as the subject of a sentence: "The freeze of sqlite:/srv/a.db".
        call: a method of a writer or provider; a SystemExit of theirs must not end us with something frozen, either.
        but: what the caller understands, too.
    """

    def asked() -> T:
        try:
            return call()
        except BaseException as e:
            if isinstance(e, (SlackwaterError, *but)):
                raise
            raise SlackwaterError(
                f"{what} failed by a defect of its plug-in: {type(e).__name__}: {e}.",
                data="Everything was thawed and nothing was kept.",
                hint="Tell the authors of the plug-in.",
                code="plug-in",
            ) from e

    return asked
