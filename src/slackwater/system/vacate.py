# SPDX-License-Identifier: Apache-2.0
"""Where no namespaces can be had: an engine that runs on directories of ours, and its end, as an effect."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import SlackwaterError
from slackwater.model.facts import Facts
from slackwater.system import mounts
from slackwater.system.namespaces import make_passable

_GRACE_S, _END_S, _POLL_S = 5.0, 10.0, 0.02


@dataclass(frozen=True, slots=True)
class Vacate:
    """A folder for an engine's socket and log; undone by ending whoever works in the clones, and removing it."""

    kind: ClassVar[str] = "clone.vacate"
    folder: str
    places: tuple[str, ...]
    """The directories of the clones; nobody but an engine that was started on them has business there."""

    def describe(self) -> str:
        """Say what making it does."""
        return f"make the folder {self.folder} for an engine on {', '.join(self.places)}"

    def make(self) -> Facts:
        """Make the folder, unless it is there."""
        make_passable(self.folder)
        return {"folder": self.folder}

    def undo(self) -> None:
        """Ask everybody who works in the clones to end, kill those that do not, and remove the folder.

        Raises:
            SlackwaterError: somebody does not end.
        """
        for sign, patience_s in ((signal.SIGINT, _GRACE_S), (signal.SIGKILL, _END_S)):
            for pid in self.tenants():
                _send(pid, sign)
            ends_s = time.monotonic() + patience_s
            while any(self.tenants()) and time.monotonic() < ends_s:
                time.sleep(_POLL_S)
        if left := list(self.tenants()):
            raise SlackwaterError(
                f"The clone's process {left[0]} has not ended.",
                data="The application was not touched.",
                hint=f"See what keeps it (ps {left[0]}), then: slackwater reconcile",
                code="not-stopped",
            )
        shutil.rmtree(self.folder, ignore_errors=True)

    def tenants(self) -> Iterator[int]:
        """Every process whose working directory lies in one of the clones."""
        for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
            try:
                where = os.readlink(f"/proc/{pid}/cwd")
            except OSError:
                continue  # it has ended, or is a stranger's and we are not root
            if any(mounts.inside(where, place) for place in self.places):
                yield pid


def _send(pid: int, sign: signal.Signals) -> None:
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return
