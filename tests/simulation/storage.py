# SPDX-License-Identifier: Apache-2.0
"""A storage in memory: filesystems with volumes, tagged places with copies in them, and what a power cut takes back."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from slackwater.errors import RefusedError
from slackwater.model.replica import BackupComponents
from tests.simulation.world import OWNER

Content = tuple[int, ...]


@dataclass(eq=False)
class Tree:
    """A volume, a copy or a clone: whoever bears its `uuid`, under whatever name."""

    uuid: str
    parent: str
    """The tree of which it was made; empty for none."""
    content: Content
    """The numbers of the writes that lie in it."""
    synced: Content
    """Those of them that are on the disk."""
    read_only: bool = False
    changes: int = 0

    def write(self, content: Content) -> None:
        """Replace what is in it; not on the disk yet."""
        self.content = content
        self.changes += 1

    @property
    def facts(self) -> dict[str, str]:
        """By what an alteration is known."""
        return {"uuid": self.uuid, "changes": str(self.changes)}


@dataclass(eq=False)
class Place:
    """The directory of a session on one filesystem."""

    owner: str
    trees: dict[str, Tree] = field(default_factory=dict)
    document: BackupComponents | None = None
    pinned: bool = False


class Storage:
    """All filesystems of the host, by the name of their superblock."""

    def __init__(self) -> None:
        self.volumes: dict[str, Tree] = {}
        """By path."""
        self.filesystem_of: dict[str, str] = {}
        """By a volume's path."""
        self.places: dict[tuple[str, str], Place] = {}
        """By filesystem and session."""
        self.barred: set[str] = set()
        """Paths of volumes on which nobody may start."""
        self.foreign: list[tuple[str, str, str, str, Content]] = []
        """What is not ours: filesystem, session, name, uuid and content, to be found again as it was."""
        self._unsynced: list[Callable[[], object]] = []
        self._numbers = 0

    def uuid(self) -> str:
        """A new one."""
        self._numbers += 1
        return f"uuid-{self._numbers}"

    def add_volume(self, path: str, filesystem: str) -> None:
        """A volume of an application."""
        self.volumes[path] = Tree(self.uuid(), "", (), ())
        self.filesystem_of[path] = filesystem

    def add_stranger(self, filesystem: str, session: str, name: str) -> None:
        """A snapshot of somebody else's, which looks like ours."""
        tree = Tree(self.uuid(), "", (1, 2, 3), (1, 2, 3), read_only=True)
        self.places[filesystem, session] = Place("somebody else", {name: tree})
        self.foreign.append((filesystem, session, name, tree.uuid, tree.content))

    # -- what a power cut takes back ---------------------------------------------------------------------------------

    def change(self, do: Callable[[], object], restore: Callable[[], object]) -> None:
        """Change names; it is on the disk with the next `sync`."""
        do()
        self._unsynced.append(restore)

    def sync(self) -> None:
        """All changes of names are on the disk."""
        self._unsynced.clear()

    def lose_unsynced(self, rng: random.Random) -> set[int]:
        """A power cut: the last of the changes that were not on the disk may be lost, and what lay in caches is.

        Returns: the writes that lay in caches.
        """
        for _ in range(rng.randint(0, len(self._unsynced))):
            self._unsynced.pop()()
        self._unsynced.clear()
        aside = [tree for _, _, place in self.kept() for tree in place.trees.values()]
        lost: set[int] = set()
        for tree in (*self.volumes.values(), *aside):
            lost.update(set(tree.content) - set(tree.synced))
            tree.content = tree.synced
        return lost

    # -- places ------------------------------------------------------------------------------------------------------

    def ours(self, filesystem: str, session: str, owner: str = OWNER) -> Place | None:
        """The place of a session; None where there is none.

        Raises:
            RefusedError: it is somebody else's.
        """
        place = self.places.get((filesystem, session))
        if place is not None and place.owner != owner:
            raise RefusedError(f"The directory {session} on {filesystem} does not bear our tags.")
        return place

    def required(self, filesystem: str, session: str, owner: str = OWNER) -> Place:
        """The same, which has to be there."""
        if (place := self.ours(filesystem, session, owner)) is None:
            raise RefusedError(f"The directory {session} on {filesystem} is gone.")
        return place

    def kept(self) -> Iterator[tuple[str, str, Place]]:
        """Everything that is ours: filesystem, session, place."""
        for (filesystem, session), place in self.places.items():
            if place.owner == OWNER:
                yield filesystem, session, place

    def strangers_changed(self) -> str:
        """What became of somebody else's snapshots; empty when they are as they were."""
        for filesystem, session, name, uuid, content in self.foreign:
            place = self.places.get((filesystem, session))
            tree = place.trees.get(name) if place else None
            if place is None or tree is None or (tree.uuid, tree.content) != (uuid, content) or place.document:
                return f"{filesystem}/{session}/{name}"
        return ""
