# SPDX-License-Identifier: Apache-2.0
"""What a session may ask of a host. The host we run on answers in this process; a remote one will answer over a wire.

A host knows its applications, volumes and journal; it knows no catalog, no specification and no policy.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from slackwater.journal.journal import Decision, Mended
from slackwater.model.clone import CloneDocument
from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Facts, Finding
from slackwater.model.hooks import NO_HOOKS, Hooks
from slackwater.model.plan import LogKeeping, Plan, PlanOptions
from slackwater.model.replica import BackupComponents, FoundReplica, Replica
from slackwater.model.service import Service
from slackwater.model.storage import Room, ShadowCopy, Volume
from slackwater.model.target import TO_REPLICA, Loss, Losses, Reach, RecoveryTarget
from slackwater.providers.conformance import Verdict as ProviderVerdict
from slackwater.recovery.clones import CloneOrder, Questions, Started
from slackwater.recovery.order import RecoveryOrder
from slackwater.recovery.steps import Learnt, Proven, Recovered
from slackwater.system.story import Story
from slackwater.writers.conformance import Verdict


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
    reach: Reach | None = None
    """How far it goes forward; None for a recovery to the replica itself."""
    since: Mapping[ComponentRef, Facts] = field(default_factory=dict)
    """What applications have written since the replica, as far as their writers can tell."""
    services: tuple[str, ...] = ()
    """Those around the application that run, and stop with it."""
    configuration: tuple[str, ...] = ()
    """Files outside of the volumes that are put back, or removed."""


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was found of a session that was cut off, and what was done about it."""

    session: str
    kind: str
    mended: tuple[Mended, ...]
    document: BackupComponents | None = None
    """The replica that it finished, or what is kept of a recovery that was taken back after its application ran."""
    process: str = ""
    """Identity of the process that ran it."""
    found: Decision = Decision.OPEN
    """How far it had come when it was found."""

    @property
    def whole(self) -> bool:
        """True when nothing is left to mend."""
        return not any(each.error for each in self.mended)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A replica that is not kept, and what taking it was like for a client."""

    document: BackupComponents
    gap_ms: float | None
    """The longest time between two answers to a client that asked all the time; None where none could ask."""
    why_no_gap: str
    """Why that was not measured; empty when it was."""
    bytes: int
    """What the files of the components take, in the copies."""


class Host(Protocol):
    """One host: local or remote."""

    name: str
    owner: str
    """The installation's id, with which everything it makes is tagged."""

    async def identify(self, named: Sequence[ComponentRef] = ()) -> Identified:
        """Ask the enabled writers for their components, and for those named that they do not find by themselves."""
        ...

    async def plan(self, components: Sequence[Component], options: PlanOptions) -> Planned:
        """Resolve the components' files to volumes and choose the hold. Takes no lock and writes nothing."""
        ...

    async def recoverable(self, planned: Plan) -> Sequence[Finding]:
        """What would stand against putting a replica of this plan's volumes back today. Reads only."""
        ...

    async def take(
        self, session: str, specification: str, plan: Plan, story: Story, *, accept_crash: bool
    ) -> BackupComponents:
        """Prepare, freeze, snapshot, thaw, and put the document beside the copies.

        With `accept_crash` a writer that fails to prepare or to come to rest, or a hook that fails before the window,
        costs the replica its consistency and not its existence, as long as the copies are the image of a power cut.

        Raises:
            SlackwaterError: it failed; everything was thawed, and `undo` removes what was made.
        """
        ...

    async def tell(self, components: Sequence[Component], story: Story, *, good: bool) -> None:
        """Tell the writers how a backup ended, after everything was recorded or undone. Never fails."""
        ...

    async def horizons(self, documents: Sequence[BackupComponents], archive: str | None = None) -> Mapping[str, Reach]:
        """How far each backup among some replicas of one component goes forward, by id. Reads only.

        Args:
            documents: all that may hold log of it, the oldest first.
            archive: how an archive of the log is asked, see `LogSource`; None for none.
        """
        ...

    async def losses(
        self,
        documents: Sequence[BackupComponents],
        behind: Collection[str],
        most: int | None,
        archive: str | None = None,
        asking: str = "",
    ) -> Mapping[str, Losses]:
        """Find transactions behind some replicas of one component by which rows were lost, by id. Reads only.

        Args:
            documents: all that may hold log of it, the oldest first.
            behind: the ids of those that a recovery could begin with; each is asked up to the next of them.
            most: no log older than `asking` is read when so many are found; None for all of it.
            archive: how an archive of the log is asked, see `LogSource`; None for none.
            asking: the one of `behind` behind which it is asked.
        """
        ...

    async def name_losses(self, started: Started, losses: Losses) -> Sequence[Loss]:
        """Say by name what was lost, by the engine on a private clone of the replica behind which it was found.

        Raises:
            SlackwaterError: it cannot be asked.
        """
        ...

    def slow_to_clone(self, document: BackupComponents) -> bool:
        """Whether a clone of a replica takes the time and the room of all its data."""
        ...

    async def advance_logs(self, document: BackupComponents, keeping: LogKeeping) -> Sequence[str]:
        """Let the logs before a replica go, when it is recorded. Idempotent.

        Returns: where that failed, a sentence each; more is kept there then, and nothing is lost.
        """
        ...

    async def drop_logs(self, wanted: Collection[str], components: Sequence[Component] | None = None) -> Sequence[str]:
        """Let go of the logs of some components (of all, for None) that no `wanted` specification keeps. Idempotent.

        Returns: what was let go of, and what could not be, a sentence each.
        """
        ...

    async def plan_recovery(
        self,
        source: BackupComponents,
        known: Mapping[ComponentRef, Sequence[Facts]],
        *,
        configuration_check: str,
        around: Hooks = NO_HOOKS,
        target: RecoveryTarget = TO_REPLICA,
        logs: Sequence[BackupComponents] = (),
        services: Sequence[Service] = (),
        with_config: bool = False,
        archive: str | None = None,
    ) -> RecoveryPlan:
        """Check replica, layout, holders and log, and list the steps. Takes no lock and writes nothing.

        Args:
            source: the replica.
            known: what earlier recoveries returned, by component.
            configuration_check: `strict`, `non-strict` or `disabled`.
            around: commands to run around stop and start.
            target: where it goes from the replica.
            logs: other replicas that may hold a part of the log on the way there, the oldest first.
            services: what to stop before, in this order, and to start after.
            with_config: put the configuration files back that the document holds; what a recovery replaced so is put
                back by its undo anyway.
            archive: how an archive of the log is asked, see `LogSource`; None for none.
        """
        ...

    async def recover(
        self, session: str, order: RecoveryOrder, story: Story, *, learnt: Learnt, proven: Proven
    ) -> Recovered:
        """Put the application back on a replica, up to the proof that it is back, and start the services around it.

        `learnt` is called before the switch with what later recoveries of the components have to know; `proven` when
        the application is back, before anything else is started.

        Raises:
            SlackwaterError: it failed; before `proven`, `undo` puts everything back to where it was.
        """
        ...

    async def confirm(
        self, undo: BackupComponents, expected: Mapping[ComponentRef, Facts]
    ) -> Mapping[ComponentRef, Facts]:
        """Prove that the components of a recovery that is finished have reached what was expected of them.

        Args:
            undo: the document of what the recovery set aside.
            expected: by component, what it told by `learnt`.

        Raises:
            SlackwaterError: one of them has not, or cannot be asked.
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

    async def pin(self, document: BackupComponents, *, pinned: bool) -> None:
        """Note beside a replica whether it is pinned. Idempotent.

        Raises:
            SlackwaterError: its storage cannot be reached or written.
        """
        ...

    async def rehearse(self, session: str, specification: str, plan: Plan, story: Story) -> Rehearsed:
        """Take a replica as `take` does, with a client asking meanwhile; the session has not decided to keep it.

        Raises:
            SlackwaterError: it failed; everything was thawed, and `undo` removes what was made.
        """
        ...

    async def clone(self, session: str, order: CloneOrder, story: Story) -> Started:
        """Start the engines of a replica on a thin clone, where they can reach nothing of the original.

        Raises:
            VerificationError: the replica is not what was made, or does not recover.
            RefusedError: no namespaces can be had here.
        """
        ...

    def answers(self, ref: ComponentRef) -> bool:
        """Whether this component's writer can put a question to a clone; False where there is no such writer."""
        ...

    async def check_clone(self, started: Started, questions: Questions) -> Mapping[ComponentRef, Facts]:
        """Have the engines of a private clone read it through; they may be stopped afterwards.

        Raises:
            VerificationError: what they found.
        """
        ...

    async def end_clone(self, document: CloneDocument) -> None:
        """End the engines of a clone that was kept, and delete it. Idempotent; the intent is the catalog's."""
        ...

    async def clone_missing(self, document: CloneDocument) -> bool:
        """Whether nothing of a clone is left on the storage."""
        ...

    def clone_runs(self, document: CloneDocument) -> bool:
        """Whether engines run on it; none does after a restart of the system."""
        ...

    async def clone_plainly(self, session: str, source: BackupComponents) -> Sequence[ShadowCopy]:
        """Make a thin writable clone of every copy, with no engine on it."""
        ...

    async def present(self, session: str, copies: Sequence[tuple[ShadowCopy, str]], *, writable: bool) -> Sequence[str]:
        """Mount copies or clones, each at a path: `nosuid,nodev,noexec`, and `ro` unless `writable`.

        Returns: the folders that were made for it, innermost first.

        Raises:
            RefusedError: a path is occupied; what was mounted is undone with the session.
        """
        ...

    def presented(self, copies: Sequence[ShadowCopy]) -> Sequence[str]:
        """Where any of these copies or clones are mounted now, by the mount table. Reads only."""
        ...

    async def unpresent(self, targets: Sequence[str], folders: Sequence[str]) -> None:
        """Unmount what is mounted at these paths, and remove those of the folders, innermost first, that are empty.

        Raises:
            RefusedError: somebody holds one; they are named.
        """
        ...

    async def missing(self, replica: Replica) -> str:
        """Why a replica is not on the storage as it was made; empty when it is."""
        ...

    async def examine(self, ref: ComponentRef) -> Sequence[Verdict]:
        """Check that a writer keeps its contract, on a component that nobody needs: it is stopped and started.

        Raises:
            NotFoundError: no such writer.
        """
        ...

    async def examine_provider(self, name: str, paths: Sequence[str]) -> Sequence[ProviderVerdict]:
        """Check that a provider keeps its contract, on scratch volumes that nobody needs: see `providers.conformance`.

        Raises:
            NotFoundError: no such provider.
            ValueError: a path is no empty directory, or no volume of its own.
        """
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

    async def undo(self, session: str) -> Reconciled:
        """Put back everything that the session made; what an application may have acknowledged is kept as a replica.

        A recovery that was told to stay, and has switched, is left as it is: `found` says so.
        """
        ...

    def go_back(self, session: str) -> bool:
        """Decide that a recovery that stays where it is, is taken back after all; `reconcile` does it.

        Returns: False where no such recovery stays, or where it has come to its end.
        """
        ...

    def take_over(self, session: str) -> None:
        """Take a session from whoever runs it: that process writes nothing more and begins no effect. Idempotent.

        What it had begun goes on until its process is dead; only then `reconcile` mends it.
        """
        ...

    def check(self, session: str) -> None:
        """See that a session is still this process's, before something that no journal notes.

        Raises:
            FencedError: another process has taken it over.
        """
        ...

    def settle(self, session: str) -> None:
        """Close the session in the journal; what it made stays.

        Raises:
            FencedError: another process has taken it over.
        """
        ...

    def release_leftovers(self) -> Sequence[str]:
        """Release what a killed guard left frozen; costs next to nothing when there is nothing."""
        ...

    async def reconcile(self) -> Sequence[Reconciled]:
        """Bring every session whose process is dead to its end."""
        ...

    def dump(self) -> Sequence[Mapping[str, object]]:
        """Everything that the journal holds, a mapping for each session, for reports. Reads only."""
        ...

    def pending(self) -> Sequence[str]:
        """Sessions in the journal whose process is dead: a reconcile would mend them. Reads only."""
        ...
