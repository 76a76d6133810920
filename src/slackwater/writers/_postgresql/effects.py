# SPDX-License-Identifier: Apache-2.0
"""What this writer does outside its own process, for the journal."""

from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import SlackwaterError
from slackwater.model.facts import Facts
from slackwater.writers._postgresql import control, rewrite
from slackwater.writers._postgresql.control import Control

_END_OF_RECOVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class StopPostgresql(Control):
    """Stop a server. Undone by starting it, if it ran when this was planned."""

    kind: ClassVar[str] = "postgresql.stop"
    was_running: bool = False

    def describe(self) -> str:
        """Say what making it does."""
        verb = "stop" if self.was_running else "make sure of the stop of"
        return f"{verb} PostgreSQL {self.caption}"

    def make(self) -> Facts:
        """Stop it, and prove that every process and its shared memory are gone; see `control.stop`."""
        control.stop(self)
        return {}

    def undo(self) -> None:
        """Start it again on whatever lies in its place."""
        if self.was_running:
            control.start(self)


@dataclass(frozen=True, slots=True)
class StartPostgresql(Control):
    """Start a server. Undone by stopping it."""

    kind: ClassVar[str] = "postgresql.start"

    def describe(self) -> str:
        """Say what making it does."""
        return f"start PostgreSQL {self.caption}"

    def make(self) -> Facts:
        """Start it and wait until it accepts connections or ends; see `control.start`."""
        return control.start(self)

    def undo(self) -> None:
        """Stop it."""
        control.stop(self)


@dataclass(frozen=True, slots=True)
class SettlePostgresql:
    """Remove from a recovered data directory what only its recovery needed. Nothing to undo: it has recovered."""

    kind: ClassVar[str] = "postgresql.settle"
    caption: str
    data_directory: str

    def describe(self) -> str:
        """Say what making it does."""
        return f"remove the recovery settings from PostgreSQL {self.caption}"

    def make(self) -> Facts:
        """Take our lines out of postgresql.auto.conf, and have the server read it again. Done already: nothing.

        A server that lets readers in may still be recovering; its end is waited for, for a minute.

        Raises:
            SlackwaterError: the server has not yet recovered; what it still needs stays.
        """
        if not control.until(lambda: not rewrite.recovering(self.data_directory), _END_OF_RECOVERY_S):
            raise SlackwaterError(
                f"PostgreSQL {self.caption} has not finished its recovery yet.",
                data="It still needs what was prepared for it, and keeps it.",
                hint="Wait until it has recovered, then run slackwater reconcile.",
                code="recovering",
            )
        rewrite.settle(self.data_directory)
        control.reload(self.data_directory)
        return {}

    def undo(self) -> None:
        """Nothing: the lines served one recovery."""
