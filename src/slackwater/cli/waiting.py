# SPDX-License-Identifier: Apache-2.0
"""One line on a terminal while a command keeps a person waiting; it goes when there is an answer.

It needs a thread, so it is for commands that hold no application; sessions tell of their phases (`progress.py`).
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from slackwater.cli.progress import terminal

ASKING = "asking the applications here"
COMPARING = "comparing the catalog with the storage"
EXAMINING = "looking at this host"
LOOKING = "looking at the volumes"
MENDING = "looking for what was cut off"
NOTING = "noting it beside the replica"
READING = "reading the log"
STOPPING = "waiting for the session to end"
_AFTER_S = 1.0


@contextmanager
def waiting(what: str, *, unless: bool = False) -> Iterator[None]:
    """Say `what` is done on standard error once that takes more than a second.

    Args:
        what: in a few words.
        unless: nobody is to be told, as with --json.
    """
    if unless or not terminal():
        yield
        return
    ended, told = threading.Event(), threading.Event()

    def tell() -> None:
        if not ended.wait(_AFTER_S):
            told.set()
            _write(f"{what} ...")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        if told.is_set():
            _write("\r\x1b[K")


def _write(text: str) -> None:
    with suppress(OSError):
        os.write(2, text.encode())
