# SPDX-License-Identifier: Apache-2.0
"""What a session may ask of a host. The host we run on answers in this process; a remote one will answer over a wire.

A host knows its applications, volumes and journal; it knows no catalog, no specification and no policy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from slackwater.journal.journal import Mended
from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Facts, Finding
from slackwater.model.plan import Limits, Plan
from slackwater.model.replica import BackupComponents, FoundReplica, Replica
from slackwater.model.storage import Room, Volume
from slackwater.recovery.steps import Learnt, Recovered, RecoveryOrder
from slackwater.system.story import Story


@dataclass(frozen=True, slots=True)
class Identified:
    """Everything the enabled writers found."""

    components: tuple[Component, ...]
    failures: tuple[Finding, ...] = ()
    """Writers and providers that could not be loaded or asked; never silently absent."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and the room on each filesystem it writes to."""

    plan: Plan
    rooms: Mapping[str, Room]
    """By volume id."""


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """What a recovery is about to do."""

    order: RecoveryOrder
    steps: tuple[str, ...]
    """One plain line each."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found of a session that was cut off, and what was done about it."""

    session: str
    kind: str
    mended: tuple[Mended, ...]
    document: BackupComponents | None = None
    """The replica that it finished, if it had come so far."""

    @property
    def whole(self) -> bool:
        """True when nothing is left to mend."""
        return not any(each.error for each in self.mended)


class Host(Protocol):
    """One host: local or remote."""

    name: str
    owner: str
    """The installation's id, with which everything it makes is tagged."""

    async def identify(self) -> Identified:
        """Ask the enabled writers for their components."""
        ...

    async def plan(self, components: Sequence[Component], *, configuration_check: str, limits: Limits) -> Planned:
        """Resolve the components' files to volumes and choose the hold. Takes no lock and writes nothing."""
        ...

    async def recoverable(self, planned: Plan) -> Sequence[Finding]:
        """What would stand against putting a replica of this plan's volumes back today. Reads only."""
        ...

    async def take(
        self, session: str, specification: str, plan: Plan, story: Story, *, accept_crash: bool
    ) -> BackupComponents:
        """Prepare, freeze, snapshot, thaw, and put the document beside the copies.

        With `accept_crash` a writer that fails to prepare costs the replica its consistency and not its existence.

        Raises:
            SlackwaterError: it failed; everything was thawed, and `undo` removes what was made.
        """
        ...

    async def plan_recovery(
        self, source: BackupComponents, known: Mapping[ComponentRef, Sequence[Facts]], *, configuration_check: str
    ) -> RecoveryPlan:
        """Check replica, layout and holders, and list the steps. Takes no lock and writes nothing."""
        ...

    async def recover(self, session: str, order: RecoveryOrder, story: Story, *, learnt: Learnt) -> Recovered:
        """Put the application back on a replica, up to the proof that it is back.

        `learnt` is called before the switch with what later recoveries of the components have to know.

        Raises:
            SlackwaterError: it failed; `undo` puts everything back to where it was.
        """
        ...

    async def complete(self, recovered: Recovered) -> BackupComponents:
        """Put in order what is left when the application is proven; returns the undo replica's document. Idempotent.

        Raises:
            PartialError: not all of it could be done; nothing is taken back.
        """
        ...

    async def delete(self, document: BackupComponents) -> None:
        """Delete a replica's copies and their directory. Idempotent; never anything without our tag.

        The intent is the catalog's: the replica is marked as being deleted before, and forgotten after.
        """
        ...

    async def missing(self, replica: Replica) -> str:
        """Why a replica is not on the storage as it was made; empty when it is."""
        ...

    async def room(self, volumes: Sequence[Volume]) -> Room | None:
        """The scarcest room under these volumes; None when none of them can be reached now. Reads only."""
        ...

    async def found(self) -> Sequence[FoundReplica]:
        """Every replica that the storage shows with our tag."""
        ...

    def begin(self, session: str, kind: str, process: str) -> None:
        """Open the session in the journal, run by the process of this identity."""
        ...

    async def undo(self, session: str) -> Sequence[Mended]:
        """Put back everything that the session made."""
        ...

    def settle(self, session: str) -> None:
        """Close the session in the journal; what it made stays."""
        ...

    def release_leftovers(self) -> Sequence[str]:
        """Release what a killed guard left frozen; costs next to nothing when there is nothing."""
        ...

    async def reconcile(self) -> Sequence[Reconciled]:
        """Bring every session whose process is dead to its end."""
        ...

    def pending(self) -> Sequence[str]:
        """Sessions in the journal whose process is dead: a reconcile would mend them. Reads only."""
        ...
