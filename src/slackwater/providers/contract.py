# SPDX-License-Identifier: Apache-2.0
"""The contract of a provider: the part that makes snapshots with one storage technology.

A provider is one file with one class, found through the entry point group `slackwater.providers`. Its methods are
plain and blocking. Whatever it makes bears the owner's tag, and it touches nothing that does not. Paths given to
other rooms are good in any process of this host for as long as the thing exists.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from slackwater.journal.effects import Effect
from slackwater.model.facts import Facts, Finding
from slackwater.model.replica import BackupComponents, FoundReplica
from slackwater.model.storage import Capabilities, Room, ShadowCopy, Volume


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

    def made(self) -> bool:
        """Whether the storage shows the clone in the volume's place."""
        ...


@dataclass(frozen=True, slots=True)
class Switch:
    """How a recovery puts clones in the place of the volumes, as effects in order."""

    clones: tuple[Effect, ...]
    """Made while the application still runs; the directory that holds them comes first."""
    exchange: tuple[Effect, ...]
    """Made while it is stopped; after the last of them the new volumes are in place, and the old ones are set aside."""
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

    def open(self, volume: Volume, session: str) -> AbstractContextManager[Commit]:
        """Get everything ready for the commit; leaving the context closes what was opened and changes nothing."""
        ...

    def copy(self, volume: Volume, session: str, facts: Facts) -> ShadowCopy:
        """Describe the shadow copy that `snapshot_effect` made, from the facts its `make` returned."""
        ...

    def write_document(self, document: BackupComponents) -> None:
        """Put the document beside the copies, sealed with a checksum, and sync file and directory. Idempotent."""
        ...

    def reach(self, copy: ShadowCopy) -> AbstractContextManager[str]:
        """A path to the root of a copy or clone, good in this process while the context lasts."""
        ...

    def altered(self, copy: ShadowCopy) -> str:
        """Why this copy is not the one that was made (gone, replaced, written to); empty when it is."""
        ...

    def switch(self, copies: Sequence[ShadowCopy], live: Sequence[Volume], session: str) -> Switch:
        """Plan to put clones of the copies in the place of the live volumes, in the same order."""
        ...

    def delete_effect(self, copies: Sequence[ShadowCopy], session: str) -> Effect:
        """Plan to delete a session's copies and their directory. Cannot be undone: its `undo` does nothing."""
        ...

    def find(self) -> Sequence[FoundReplica]:
        """Every directory of replicas with our tag on the filesystems of this host that are mounted. Reads only."""
        ...
