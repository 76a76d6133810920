# SPDX-License-Identifier: Apache-2.0
"""Work on the catalog that is no session of its own, and must not run beside one."""

from collections.abc import Iterator
from contextlib import contextmanager

from slackwater.errors import BusyError
from slackwater.sessions.cell import Cell
from slackwater.system.locks import SessionLock


@contextmanager
def alone(cell: Cell, what: str) -> Iterator[None]:
    """Hold the session's lock while the context lasts, without waiting for it.

    Raises:
        BusyError: a session runs.
    """
    cell.places.ensure()
    with SessionLock(cell.places.session_lock) as lock:
        if not lock.acquire(what):
            raise BusyError(
                f"Another session runs: {lock.holder() or 'it has just begun'}.",
                data="Nothing was changed.",
                hint="Try again when it has ended; see `slackwater session list`.",
            )
        yield
