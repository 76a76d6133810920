# SPDX-License-Identifier: Apache-2.0
"""The contract of a writer: the part that speaks for one kind of application.

A writer is one file with one class, found through the entry point group `slackwater.writers` and made with nothing but
what the specifications say of its components. Its methods are plain and blocking; the coordinator runs them in threads,
watches their deadlines and may call them in any process of ours, so a writer keeps nothing in memory between two of
them.

Order of a backup: `identify` (any time, any number of times) → `prepare` → (`bridge`) → `freeze` → *the instant* →
`thaw` → `complete`. Every writer that was asked to freeze is asked to thaw, whatever happened. Order of a recovery:
`identify` → `rewrite` → `stop_effect` → *the switch* → `start_effect` → `confirm` → `settle_effect`. Order of a
verification: `rewrite` → `start_clone` → `check_clone` → `stop_clone`, all of it on clones that nobody else uses; of a
clone for tests the same without `check_clone`.

Where a method may raise a SlackwaterError, it says with `retryable=True` that the same may well succeed a little later
with nobody doing anything: the application is busy, starts, or is out of connections; a lock is not to be had. Then a
backup is begun anew where its specification says `retries`, after everything of it was undone and outside of any
window, so `prepare`, `freeze` and `thaw` are called again, from the beginning. Whatever needs somebody (a password, a
right, a setting) is not retryable, which is the default.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Protocol, runtime_checkable

from slackwater.journal.effects import Effect
from slackwater.model.component import Component, Handling
from slackwater.model.facts import Facts, Finding
from slackwater.model.hold import Keeper
from slackwater.model.plan import LogKeeping
from slackwater.model.replica import ComponentRecord
from slackwater.model.target import LogSource, Loss, Losses, Reach, RecoveryTarget


class Bridge(Protocol):
    """A log that is kept, with the beginning of the copies marked in it; see `Writer.bridge`."""

    def close(self) -> Facts:
        """Mark the end of the copies in the log; called between the two stages.

        Returns: what a recovery has to know (PostgreSQL: the backup label), the position reached (`lsn`), and, where
            a recovery without us needs more than the copies in their places, the commands for it (`by_hand`, one a
            line; they work on the first file set's volume, and are written into RECOVER.txt).

        Raises:
            SlackwaterError: the engine refused or is gone; nothing can be kept.
        """
        ...

    def prove(self, trees: Mapping[str, str]) -> None:
        """Check that the copied log holds everything from the first mark to the second; called after the window.

        Args:
            trees: for each file set's path, where its copy can be reached during this call.

        Raises:
            SlackwaterError: something is missing; nothing can be kept.
        """
        ...


@dataclass(frozen=True, slots=True)
class Clone:
    """Clones of everything a component lives on, and where its engine may run on them without reaching the original.

    A data directory holds absolute links into production, and an engine follows them without a word. So the engine is
    started by `namespaces.inside(enclosure)`: in mount, process, IPC and network namespaces of its own, where the
    clones are mounted over the original paths and everything else of the host is read-only. Whatever is started there
    ends with the enclosure, which is an effect of the host's; so a clone needs no undo of its writer's own.
    """

    component: Component
    """As the replica's document recorded it."""
    session: str
    """Whose clone it is."""
    trees: Mapping[str, str]
    """For each file set's path, where its clone can be reached from here during the call."""
    folder: str
    """For the socket, the log, settings: made before, empty, under the same path inside and outside, writable inside.
    Removed with the enclosure."""
    enclosure: str
    """What the namespaces are found by, see `system/namespaces`; empty where none can be had. Then the writer makes
    every link out of the component lead into the clone, looks again, and refuses (RefusedError) while one does not."""
    private: bool
    """True for a verification: only root and the owner of the files may get in. False: whoever may log in to the
    application may log in here, in the same way."""


class Probe(Protocol):
    """A client of the application."""

    def __call__(self) -> None:
        """Ask the smallest question that waits when the application waits, and take the answer.

        Raises:
            Exception: the application does not answer any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """A user's own question to the recovered application, and the answer that it must give."""

    query: str
    expect: str
    """Compared as text with the first column of the first row, blanks at the ends left out."""
    database: str = ""
    """Where it is asked; empty for the engine's default."""


class Writer(Protocol):
    """Speaks for one kind of application."""

    name: ClassVar[str]
    """What stands before the colon in WRITER:COMPONENT."""
    effects: ClassVar[tuple[type[Effect], ...]]
    """The kinds of effect this writer brings, so that the journal can undo or finish them."""
    answers: ClassVar[bool]
    """Whether `check_clone` can put a question to the recovered application; only then is one given to it."""

    def __init__(self, handling: Mapping[str, Handling] | None = None) -> None:
        """Take what the specifications say, by component name; of the others nothing is said."""
        ...

    def identify(self) -> Sequence[Component]:
        """Describe every component on this host, running or stopped; at most 5 s for each.

        Takes no lock and writes nothing. What is wrong with a component goes into its `findings`: one that cannot be
        asked is listed with a refusal that says why, never left out.
        """
        ...

    def find(self, name: str) -> Component | None:
        """Describe a component that was named and that `identify` cannot find by itself, as a file nobody has open.

        Returns: None when there is no such thing, or when `identify` finds all there are. What is there and cannot be
            backed up has a refusal among its findings.
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
        """Bring the application to rest as far as that needs no lock. Nothing to do is a fine answer."""
        ...

    def thaw(self, component: Component) -> None:
        """Let it go on. Idempotent; also called when `freeze` failed or never ran."""
        ...

    def keeper(self, component: Component) -> Keeper:
        """Name the program that keeps the application's lock; only for a component that offers `APPLICATION_LOCK`.

        It is started before the window and speaks in lines, a word and what there is to say about it:

        - at its start it loads all it needs, tries whether the lock can be had, gives it back, and says `ready`; or
          `busy WHY` when it could not be had for a while;
        - on `hold` it takes the lock and says `held`, or `busy WHY`;
        - on `release` it looks whether the lock was in force all the time, gives it back, and says `released`; or
          `lost WHY`;
        - when its input ends it gives the lock back and ends.

        It is the head of a process group, and killed with it at the deadline.
        """
        ...

    def bridge(self, component: Component, session: str) -> AbstractContextManager[Bridge]:
        """Keep the log from now on and mark the beginning of the copies in it; called in `prepare`, may be slow.

        Only for a component that offers `Hold.LOG_BRIDGE`. Leaving the context lets the log go and makes nothing undone
        that anybody would miss; what it made in the engine ends with this process, however that ends.

        Raises:
            SlackwaterError: the engine refused or is gone.
        """
        ...

    def complete(self, component: Component, *, good: bool) -> None:
        """Learn how the backup ended, after everything was recorded."""
        ...

    def rewrite(
        self, component: Component, trees: Mapping[str, str], expected: Facts, known: Sequence[Facts], session: str
    ) -> Facts:
        """Make the files of a clone, not yet in their place, ready to start as the recovered application.

        Whatever it writes lies in the clone and is deleted with it, so this needs no undo of its own.

        Args:
            component: as the replica's document recorded it.
            trees: for each file set's path, where its clone can be reached during this call.
            expected: what `prepare` and a bridge's `close` returned for the replica.
            known: facts that earlier calls returned for this component, oldest first (timelines that were taken).
            session: the recovery's id.

        Returns: what `confirm` and later recoveries have to know (the new timeline).
        """
        ...

    def stop_effect(self, component: Component) -> Effect | None:
        """Plan to stop the application. Undone by starting it again, if it ran when the effect was planned.

        Stopped means: every process gone and its shared memory with them, not just a lock file. None where there is
        nobody to be stopped.
        """
        ...

    def start_effect(self, component: Component) -> Effect | None:
        """Plan to start the application on whatever now lies in its place. Undone by stopping it."""
        ...

    def confirm(self, component: Component, expected: Facts, *, timeout_s: float) -> Facts:
        """Wait until the application has recovered, and prove it: returns what was reached.

        What could not be proven, for nobody lets us in, is said in the fact `unproven`, as a sentence for the user.

        Raises:
            SlackwaterError: not recovered in time, short of `expected`, or gone again.
        """
        ...

    def settle_effect(self, component: Component) -> Effect | None:
        """Plan to remove what `rewrite` put into the files for the recovery alone; None where that is nothing."""
        ...

    def probe(self, component: Component) -> AbstractContextManager[Probe]:
        """Be a client of the running application, to measure what a backup lets its clients wait.

        Raises:
            SlackwaterError: nobody can be its client (SQLite, plain files), or we are not let in.
        """
        ...

    def start_clone(self, clone: Clone, expected: Facts, *, timeout_s: float) -> Facts:
        """Start the engine on the clones and wait until it has recovered; returns what was reached. Idempotent.

        The files were made ready by `rewrite`. No network, no archiving, no replication, no subscriptions, no listener
        but a socket in `clone.folder`. An application without an engine (SQLite, plain files) has nothing to start and
        returns what it can say of the files.

        Args:
            clone: where.
            expected: as for `confirm`; the same must be reached.
            timeout_s: how long recovering may take.

        Returns: for people and programs how to get in (`socket_directory`, `port`), and what `confirm` would return.

        Raises:
            VerificationError: it did not start, did not recover, or fell short of `expected`.
            RefusedError: without an enclosure, a link still leads into a live volume.
        """
        ...

    def check_clone(self, clone: Clone, question: Question | None) -> Facts:
        """Have the engine's own checks read everything, after `start_clone`; the clone may be written to, and stopped.

        The question is the user's own; None for none, and always None where `answers` is False.

        PostgreSQL: pg_amcheck over tables and indexes, data checksums; SQLite: PRAGMA integrity_check; files: all of
        them can be read.

        Returns: one fact for each check that was made, in words (`amcheck`: `no damage in 4 databases`).

        Raises:
            VerificationError: a check found damage, could not be made although it should, or the question was answered
                otherwise.
        """
        ...

    def stop_clone(self, clone: Clone) -> None:
        """Bring what `start_clone` started to a clean end. Stopped already: nothing. Never touches the original."""
        ...


@runtime_checkable
class Rolls(Protocol):
    """What a writer offers beside `Writer` whose application has a log, by which a replica can be rolled forward."""

    def reach(
        self, record: ComponentRecord, sources: Sequence[LogSource], target: RecoveryTarget, now: datetime
    ) -> Reach:
        """Walk the log from the replica to the target, and say how far it goes. Reads only; the application may run.

        A hole in the log is never taken for its end: it is what stands against every target behind it.

        Args:
            record: the component, as the replica's document recorded it.
            sources: all that may hold a part of the log, in order of their age, the replica first, the live volumes
                last and an archive before these; some may be damaged or empty.
            target: of any kind but `REPLICA`.
            now: the time, which no target may be beyond.

        Raises:
            SlackwaterError: the replica itself cannot be read, or the engine's tools are not there.
        """
        ...

    def horizon(self, record: ComponentRecord, sources: Sequence[LogSource]) -> Reach:
        """Say quickly how far the log goes from the replica, for lists; a recovery asks `reach`. Reads only.

        Returns: `against` says why it ends before the last commit, and `at` is the last commit before that; where
            it does not, both are empty.

        Raises:
            SlackwaterError: as for `reach`.
        """
        ...

    def losses(self, record: ComponentRecord, sources: Sequence[LogSource], until: str) -> Losses:
        """Find the transactions behind a replica by which rows were lost. Reads only; the application may run.

        Args:
            record: as for `reach`.
            sources: as for `reach`.
            until: the position that ends it, `since` of a later replica's; empty for the end of the log.

        Raises:
            SlackwaterError: as for `reach`.
        """
        ...

    def name_losses(self, clone: Clone, losses: Losses) -> Sequence[Loss]:
        """Say by name what was lost, by the catalog of the replica, on a clone that `start_clone` has started.

        Returns: the newest first. What turns out to have lost no rows is left out.

        Raises:
            SlackwaterError: the clone cannot be asked.
        """
        ...

    def taken(self, record: ComponentRecord, sources: Sequence[LogSource]) -> Facts:
        """What an archive among the sources knows that no recovery may use again, for the `known` of `rewrite`.

        Reads only; sources as for `reach`.

        Raises:
            SlackwaterError: it does not answer.
        """
        ...

    def forgive(self, record: ComponentRecord, trees: Mapping[str, str], sources: Sequence[LogSource]) -> None:
        """Mark in a clone that is not rolled forward what the archive among the sources has of its log. Idempotent.

        Else its server would archive it again, and an archive that does not take a name twice stand still. What the
        archive does not tell stays as it is. Called while the application runs.

        Args:
            record: as for `reach`; an undo replica's, too.
            trees: of the clone, as for `rewrite`.
            sources: as for `reach`.

        Raises:
            SlackwaterError: it cannot be written, or nobody said how the archive is asked.
        """
        ...

    def roll(
        self, record: ComponentRecord, trees: Mapping[str, str], sources: Sequence[LogSource], target: RecoveryTarget,
        now: datetime, before: Facts,
    ) -> Facts:  # fmt: skip
        """Lay the log beside a clone that `rewrite` made ready, and aim its recovery at the target. Idempotent.

        Called while the application runs, and once more when it is stopped and its log is complete: then it should cost
        only what was written since. What it writes lies in the clone; `settle_effect` removes it.

        Args:
            record: as for `reach`.
            trees: of the clone, as for `rewrite`.
            sources: as for `reach`.
            target: as for `reach`.
            now: as for `reach`.
            before: what the call before has returned for this clone, among other facts; empty for the first one.

        Returns: what `confirm` has to compare with, in place of what was expected of the replica; None for what is no
            longer to be known.

        Raises:
            RefusedError: the target cannot be reached any more.
        """  # fmt: skip
        ...


@runtime_checkable
class TellsSince(Protocol):
    """What a writer offers beside `Writer` whose application tells how far it has gone on from a replica."""

    def since(self, component: Component, expected: Facts) -> Facts:
        """Say what the application has written since a replica, of which `prepare` returned `expected`. Reads only.

        Returns: `bytes` of log, and at most how many `transactions`; what is not known is left out.

        Raises:
            SlackwaterError: it cannot be asked.
        """
        ...


@runtime_checkable
class KeepsLog(Protocol):
    """What a writer offers beside `Rolls` whose application can be told to keep its log, within a bound.

    Where an archive of the administrator's keeps it, the first is asked only for what stands against that, and the
    others have nothing to do.
    """

    def check_log(self, component: Component, keeping: LogKeeping) -> Sequence[Finding]:
        """What stands against keeping it within the bound, and what was lost of what was kept. Reads only.

        Raises:
            SlackwaterError: the application cannot be asked.
        """
        ...

    def keep_log_effect(self, component: Component, keeping: LogKeeping) -> Effect | None:
        """Plan to keep the log from now on, made before `prepare`; None where the application does not run.

        Undone by letting it go, if it was not kept before.

        Raises:
            SlackwaterError: the application cannot be asked.
        """
        ...

    def advance_log(self, component: Component, keeping: LogKeeping, expected: Facts) -> None:
        """Let the log before a replica go, when that is recorded: the log on its own copies has it. Idempotent.

        Args:
            component: as it was backed up.
            keeping: whose log is kept.
            expected: what `prepare` returned for the replica.

        Raises:
            SlackwaterError: the application cannot be asked; more is kept then, and nothing is lost.
        """
        ...

    def drop_logs(self, component: Component, owner: str, wanted: Collection[str]) -> Mapping[str, str]:
        """Let go of every log that this installation keeps for none of the `wanted` specifications. Idempotent.

        Of the others, too, where they are not bounded any more: the application must never suffer.

        Returns: what was let go of, in words of the application's, each with why.
        """
        ...
