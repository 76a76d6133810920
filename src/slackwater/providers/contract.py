# SPDX-License-Identifier: Apache-2.0
"""The contract of a provider: the part that makes snapshots with one storage technology.

A provider is one file with one class, found through the entry point group `slackwater.providers`. Its methods are
plain and blocking. Whatever it makes bears the owner's tag, and it touches nothing that does not. Paths given to
other rooms are good in any process of this host for as long as the thing exists.

A SlackwaterError that may pass by itself (no room for the moment, a storage that is busy or answers late) is raised
with `retryable=True`: a backup is then begun anew where its specification says `retries`, after `undo` of everything
that was made, with effects of the same names. A commit's OSError is judged by its number (`errors.PASSING`).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from slackwater.journal.effects import Effect
from slackwater.model.facts import Facts, Finding
from slackwater.model.replica import BackupComponents, FoundReplica
from slackwater.model.storage import Capabilities, MountOrder, Room, ShadowCopy, Take, Volume


class Commit(Protocol):
    """A snapshot that is ready: everything slow is done, descriptors are open, one call makes the instant."""

    def __call__(self) -> None:
        """Make the instant, and nothing else. No path look-up, no log, no write of our own.

        Raises:
            OSError: the kernel refused.
        """
        ...


@runtime_checkable
class Exchange(Effect, Protocol):
    """The effect that puts one clone in one volume's place, by one atomic call."""

    def exchanged(self) -> bool:
        """Whether the storage shows the clone in the volume's place."""
        ...


@runtime_checkable
class Clone(Effect, Protocol):
    """The effect that makes one clone beside a volume, whose place it then takes."""

    def keep(self) -> Facts:
        """Instead of undoing it: make the clone, which lies beside again, a read-only copy. Idempotent.

        Returns: the facts of the copy, as those of a sealed one.

        Raises:
            SlackwaterError: it is not there.
        """
        ...


@runtime_checkable
class Receiver(Protocol):
    """What a provider adds that can bring full copies back; without it, recoveries from them are refused."""

    def fill_effect(self, volume: Volume, session: str, origin: str, digest: str) -> Effect:
        """Plan a copy of this provider's, in the place of `session`, filled with what lies at `origin`.

        It is called by the volume's name, described by `copy(volume, session, facts)` with the facts of its `make`, and
        undone by deleting it, whole or not. `make` compares what it then holds.

        Args:
            volume: the live volume, in whose place a clone of it will be put; under the name that the copy is to have.
            session: the recovery's id.
            origin: path of a directory tree on another filesystem.
            digest: of its contents, as `_copying.contents` tells it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Switch:
    """How a recovery puts clones in the place of the volumes, as effects in order."""

    clones: tuple[Effect, ...]
    """Made while the application still runs; the directory that holds them first, then a `Clone` for each copy."""
    bar: tuple[Effect, ...]
    """Made while it is stopped, before any exchange, so that nothing can start on half a switch."""
    exchange: tuple[Effect, ...]
    """After the last of them the new volumes are in place, and the old ones are set aside."""
    unbar: tuple[Effect, ...]
    """Made after the last exchange of all providers."""
    seal: tuple[Effect, ...]
    """Made afterwards: what was set aside becomes a read-only replica."""
    aside: tuple[ShadowCopy, ...]
    """Where the clones lie until the exchange, and what was set aside lies after it: the copies of the undo replica."""


class Provider(Protocol):
    """Makes snapshots with one storage technology."""

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    effects: ClassVar[tuple[type[Effect], ...]]

    def __init__(self, owner: str) -> None:
        """Take the installation's id, which tags everything this provider makes."""
        ...

    def volume_of(self, path: str) -> Volume | None:
        """The volume that carries `path`, or None when this storage is not of this provider's kind. Reads only."""
        ...

    def check_backup(self, volume: Volume, trees: Sequence[str], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        """What stands against a snapshot of the volume for these directory trees (nested volumes, swap). Reads only.

        `beside` are the other volumes of the set: what lies on one of them is not missing.
        """
        ...

    def check_recovery(self, volume: Volume, pids: frozenset[int], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        """What stands against putting a clone in the volume's place, now and after a reboot. Reads only.

        Args:
            volume: the live volume.
            pids: the application's own processes, which will be stopped; every other holder is named and refused.
            beside: the other volumes of the set, which are switched along.
        """
        ...

    def estimate_s(self, volume: Volume) -> float:
        """How long a commit of the volume is likely to take, for the plan; 0 where it is always short. Reads only."""
        ...

    def foreign(self, volume: Volume, trees: Sequence[str]) -> Sequence[str]:
        """Entries on the volume outside `trees`, folders with a slash at the end; at most 20, shortest first."""
        ...

    def room(self, volume: Volume) -> Room:
        """How much the filesystem of the volume can still take."""
        ...

    def place_effect(self, volume: Volume, session: str) -> Effect:
        """Plan the tagged directory that will hold the session's copies on this volume's filesystem."""
        ...

    def snapshot_effect(self, volume: Volume, session: str) -> Effect:
        """Plan the read-only shadow copy of one volume.

        In a window the commit takes it, and `make`, called afterwards, only reads what was made.
        """
        ...

    def open(self, take: Take, session: str) -> AbstractContextManager[Commit]:
        """Get everything ready for the commit; leaving the context closes what was opened and changes nothing.

        Where each file has an instant of its own, a volume may be taken in two parts, by two commits.
        """
        ...

    def copy(self, volume: Volume, session: str, facts: Facts) -> ShadowCopy:
        """Describe the shadow copy that `snapshot_effect` made, from the facts its `make` returned.

        Where each file has an instant of its own, `changed` among them names files that changed while they were copied;
        it is empty, or missing, when all copies show one moment.
        """
        ...

    def write_document(self, document: BackupComponents) -> None:
        """Put the document beside the copies, sealed with a checksum, and sync file and directory. Idempotent."""
        ...

    def reach(self, copy: ShadowCopy) -> AbstractContextManager[str]:
        """A path to the root of a copy or clone, good in this process while the context lasts."""
        ...

    def clone_effect(self, copy: ShadowCopy, session: str) -> Effect:
        """Plan a thin, writable clone of one copy in the place of `session` (`place_effect` comes before).

        It takes nobody's place: a clone to be looked at, tried or verified on. Undone by deleting it, and only it; also
        deleted by `delete_effect` for what `copy(copy.volume, session, facts)` describes, with the facts of its `make`.
        The copy itself stays as it is, and may be deleted before its clones.
        """
        ...

    def mount_order(self, copy: ShadowCopy) -> MountOrder:
        """How a copy or a clone is mounted at some path, in whatever mount namespace. Reads only.

        Raises:
            NotFoundError: it is gone.
        """
        ...

    def mounted_at(self, copy: ShadowCopy) -> Sequence[str]:
        """Where a copy or a clone, or a part of it, is mounted in our mount namespace now, by mountinfo alone.

        Costs milliseconds and does not raise for a filesystem that is not there: lists ask it for every replica.
        """
        ...

    def altered(self, copy: ShadowCopy) -> str:
        """Why this copy is not the one that was made (gone, replaced, written to); empty when it is."""
        ...

    def switch(
        self, copies: Sequence[ShadowCopy], live: Sequence[Volume], session: str, *, alone: bool = True
    ) -> Switch:
        """Plan to put clones of the copies in the place of the live volumes, in the same order.

        Args:
            copies: copies that this provider made.
            live: the volumes they were made of, as they are now.
            session: the recovery's id.
            alone: whether this is the whole switch, so that one exchange needs no bar.
        """
        ...

    def delete_effect(self, copies: Sequence[ShadowCopy], session: str) -> Effect:
        """Plan to delete a session's copies and their directory. Cannot be undone: its `undo` does nothing."""
        ...

    def pin(self, copies: Sequence[ShadowCopy], session: str, *, pinned: bool) -> None:
        """Note beside the copies whether their replica is pinned, so that a lost catalog does not lose it. Idempotent.

        Raises:
            SlackwaterError: the copies are gone, not ours, or cannot be written beside.
        """
        ...

    def find(self) -> Sequence[FoundReplica]:
        """Every directory of replicas with our tag on the filesystems of this host that are mounted. Reads only."""
        ...
