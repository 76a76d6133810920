# SPDX-License-Identifier: Apache-2.0
"""Where commands work: the cell of this installation, what a killed guard left, and questions to a person."""

import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from slackwater.cli import words
from slackwater.config.places import Places
from slackwater.errors import AbortedError, UsageError

if TYPE_CHECKING:
    from slackwater.sessions.cell import Cell

_Value = TypeVar("_Value")
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def open_cell(*, writing: bool = False, preview: bool = False) -> "Cell":
    """The cell of this installation.

    Whoever opens it first releases what a killed guard left frozen; only a preview leaves that alone, too.
    """
    places = Places.from_environment()
    if not preview:
        release_leftovers(places)
    if not writing:
        _tell_of_a_lost_catalog(places)
    from slackwater.sessions.cell import Cell

    return Cell(places, writing=writing)


def _tell_of_a_lost_catalog(places: Places) -> None:
    """Say that an installation which was at work has no catalog: an empty list would look as if nothing were there."""
    try:
        lost = not os.path.exists(places.catalog_file) or os.path.getsize(places.catalog_file) == 0
        if lost and os.path.exists(places.owner_file):
            words.tell(
                f"note: There is no catalog at {places.catalog_file}. If there was one: slackwater catalog rebuild"
            )
    except OSError:
        return  # whoever opens it says why


def release_leftovers(places: Places) -> None:
    """Let go what a killed guard left frozen, and say so. Costs next to nothing; a command never fails by it."""
    if os.geteuid() != 0 or not os.path.isdir(places.guard_dir):
        return
    from slackwater.guard.leftovers import release_leftovers as release

    try:
        for said in release(places.guard_dir):
            words.tell(f"note: {said}")
    except Exception as e:  # noqa: BLE001  # one unreadable record must not keep every command from running
        words.tell(f"warning: what a killed guard left in {places.guard_dir} cannot be read: {e}")


def do(work: Callable[[], Awaitable[_Value]]) -> _Value:
    """Run a session's coroutine to its end. A request to stop that comes when it has ended comes too late."""
    import asyncio

    import anyio

    class Loop(asyncio.SelectorEventLoop):
        """One that never gives a signal back to Python, which would end us by a traceback or without a word."""

        def remove_signal_handler(self, sig: int) -> bool:
            removed = super().remove_signal_handler(sig)
            signal.signal(sig, signal.SIG_IGN)
            return removed

    with _as_before():
        return anyio.run(work, backend_options={"loop_factory": Loop})


@contextmanager
def _as_before() -> Iterator[Collection[signal.Signals]]:
    """Give the signals that may be set; whatever is done with them meanwhile, they are as they were afterwards."""
    mine = threading.current_thread() is threading.main_thread()  # only it may set them, see Python's signal.signal
    before = {each: signal.getsignal(each) for each in _STOPS} if mine else {}
    try:
        yield before
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Be deaf to requests to stop: what is left to do is to say what was done."""
    with _as_before() as mine:
        for each in mine:
            signal.signal(each, signal.SIG_IGN)
        yield


def confirm(lines: list[str], question: str) -> None:
    """Ask on the terminal before something is destroyed or replaced.

    Raises:
        UsageError: there is no terminal to ask on.
        AbortedError: the answer was not yes.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "There is no terminal to ask on before this is done.",
            data="Nothing was changed.",
            hint="Add --yes to go ahead without a question, or --preview to see what would be done.",
            code="not-confirmed",
        )
    for line in lines:
        words.tell(line)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise AbortedError("Not confirmed.", data="Nothing was changed.")
