# SPDX-License-Identifier: Apache-2.0
"""What the writer `sqlite` does outside its own process, for the journal."""

import time
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import SlackwaterError
from slackwater.model.facts import Facts
from slackwater.writers._handling import StartApplication, StopApplication, stop
from slackwater.writers._sqlite.find import holders, names

_LETS_GO_S, _POLL_S = 10.0, 0.05


@dataclass(frozen=True, slots=True)
class StopSqlite(StopApplication):
    """Stop whoever has a database open."""

    kind: ClassVar[str] = "sqlite.stop"
    path: str = ""

    def describe(self) -> str:
        """Say what making it does."""
        return StopApplication.describe(self) if self.controlled else f"make sure that nobody has {self.path} open"

    def make(self) -> Facts:
        """Stop it, and wait until nobody has the database open.

        Raises:
            SlackwaterError: somebody still has.
        """
        stop(self)
        ends_s = time.monotonic() + _LETS_GO_S
        while left := holders(self.path):
            if time.monotonic() >= ends_s:
                raise SlackwaterError(
                    f"{self.path} is still open in {names(left)}.",
                    data="They can still write to it; nothing was switched.",
                    hint='Stop them, or say how: stop = "…" and start = "…" in the component\'s table.',
                    code="not-stopped",
                )
            time.sleep(_POLL_S)
        return {}


@dataclass(frozen=True, slots=True)
class StartSqlite(StartApplication):
    """Start whoever uses a database."""

    kind: ClassVar[str] = "sqlite.start"
