# SPDX-License-Identifier: Apache-2.0
"""The contract of a writer: the part that speaks for one kind of application.

A writer is one file with one class, found through the entry point group `slackwater.writers` and made with nothing but
`credentials`. Its methods are plain and blocking; the coordinator runs them in threads, watches their deadlines and may
call them in any process of ours, so a writer keeps nothing in memory between two of them.

Order of a backup: `identify` (any time, any number of times) → `prepare` → `freeze` → *the instant* → `thaw` →
`complete`. Every writer that was asked to freeze is asked to thaw, whatever happened. Order of a recovery:
`identify` → `rewrite` → `stop_effect` → *the switch* → `start_effect` → `confirm` → `settle_effect`.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from slackwater.journal.effects import Effect
from slackwater.model.component import Component, Credentials
from slackwater.model.facts import Facts


class Writer(Protocol):
    """Speaks for one kind of application."""

    name: ClassVar[str]
    """What stands before the colon in WRITER:COMPONENT."""
    effects: ClassVar[tuple[type[Effect], ...]]
    """The kinds of effect this writer brings, so that the journal can undo or finish them."""

    def __init__(self, credentials: Mapping[str, Credentials] | None = None) -> None:
        """Take how to log in, by component name; components not named use the operating system's word."""
        ...

    def identify(self) -> Sequence[Component]:
        """Describe every component on this host, running or stopped; at most 5 s for each.

        Takes no lock and writes nothing. What is wrong with a component goes into its `findings`: one that cannot be
        asked is listed with a refusal that says why, never left out.
        """
        ...

    def processes(self, component: Component) -> frozenset[int]:
        """All processes of the application as the host numbers them, now; empty when it is stopped."""
        ...

    def prepare(self, component: Component) -> Facts:
        """Do all slow work before the window, and return where the engine stands (`expected` of the record).

        The position is read last: everything acknowledged before this call is at or before it.

        Raises:
            SlackwaterError: the engine refused or is gone.
        """
        ...

    def freeze(self, component: Component) -> None:
        """Take the application's own lock where the plan needs one. Nothing to do is a fine answer."""
        ...

    def thaw(self, component: Component) -> None:
        """Give the lock back. Idempotent; also called when `freeze` failed or never ran."""
        ...

    def complete(self, component: Component, *, good: bool) -> None:
        """Learn how the backup ended, after everything was recorded."""
        ...

    def rewrite(self, component: Component, trees: Mapping[str, str], known: Sequence[Facts], session: str) -> Facts:
        """Make the files of a clone, not yet in their place, ready to start as the recovered application.

        Whatever it writes lies in the clone and is deleted with it, so this needs no undo of its own.

        Args:
            component: as the replica's document recorded it.
            trees: for each file set's path, where its clone can be reached during this call.
            known: facts that earlier calls returned for this component, oldest first (timelines that were taken).
            session: the recovery's id.

        Returns: what `confirm` and later recoveries have to know (the new timeline).
        """
        ...

    def stop_effect(self, component: Component) -> Effect:
        """Plan to stop the application. Undone by starting it again, if it ran when the effect was planned.

        Stopped means: every process gone and its shared memory with them, not just a lock file.
        """
        ...

    def start_effect(self, component: Component) -> Effect:
        """Plan to start the application on whatever now lies in its place. Undone by stopping it."""
        ...

    def confirm(self, component: Component, expected: Facts, *, timeout_s: float) -> Facts:
        """Wait until the application has recovered, and prove it: returns what was reached.

        Raises:
            SlackwaterError: not recovered in time, short of `expected`, or gone again.
        """
        ...

    def settle_effect(self, component: Component) -> Effect:
        """Plan to remove what `rewrite` put into the files for the recovery alone."""
        ...
