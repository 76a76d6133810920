# SPDX-License-Identifier: Apache-2.0
"""What every provider does alike that keeps replicas in tagged directories: documents, pins, and finding them again."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

from slackwater.errors import NotFoundError
from slackwater.model.replica import BackupComponents, FoundReplica
from slackwater.model.storage import ShadowCopy, Volume
from slackwater.providers import _document
from slackwater.providers._places import DOCUMENT, MANUAL, Place, note_pin, others, pinned, sessions

_ENTRIES = 20


class Keeping(ABC):
    """The part of a provider that has to do with directories of ours."""

    name: ClassVar[str]

    def __init__(self, owner: str) -> None:
        self._owner = owner

    @abstractmethod
    def _place(self, copy: ShadowCopy) -> Place:
        """The directory that a copy lies in."""

    @abstractmethod
    def _manual(self, document: BackupComponents, place: Place, copies: list[ShadowCopy]) -> str:
        """The plain commands that recover the copies of a document that lie in one place."""

    @abstractmethod
    def _told(self, what: str, data: str = "") -> AbstractContextManager[None]:
        """Say in our words what the kernel refused."""

    def foreign(self, volume: Volume, trees: Sequence[str]) -> Sequence[str]:
        """What else lies on the volume: next to each tree, and next to each folder on the way to it."""
        with self._told(f"listing {volume.path}"):
            entries = [] if volume.path in trees else list(others(volume.path, trees))
        return sorted(entries, key=lambda path: (len(path), path))[:_ENTRIES]

    def write_document(self, document: BackupComponents) -> None:
        """Put the document, and the commands to do without us, beside the copies on every filesystem. Idempotent.

        Raises:
            SlackwaterError: a directory is missing or not ours, or cannot be written.
        """
        text = _document.seal(document)
        for place, copies in self._by_place(document.copies).items():
            with self._told(f"writing {place.path(DOCUMENT)}"), place.top() as top, place.required(top) as fd:
                _document.store(fd, MANUAL, self._manual(document, place, copies).encode())
                _document.store(fd, DOCUMENT, text)

    def pin(self, copies: Sequence[ShadowCopy], session: str, *, pinned: bool) -> None:
        """Note it as a tag of the directory, on every filesystem."""
        for place in self._by_place(copies):
            with self._told(f"tagging {place.directory}"), place.top() as top, place.required(top) as fd:
                note_pin(fd, on=pinned)

    def _mine(self, copies: Sequence[ShadowCopy]) -> list[ShadowCopy]:
        return [copy for copy in copies if copy.provider == self.name]

    def _by_place(self, copies: Sequence[ShadowCopy]) -> dict[Place, list[ShadowCopy]]:
        """The copies that are this provider's, by the directories they lie in."""
        places: dict[tuple[str, str], Place] = {}
        found: dict[Place, list[ShadowCopy]] = {}
        for copy in self._mine(copies):
            place = self._place(copy)
            place = places.setdefault(place.key, place)  # whatever device each was seen on
            found.setdefault(place, []).append(copy)
        return found

    def _found(
        self,
        top: int,
        superblock: str,
        place_of: Callable[[str], Place],
        names_in: Callable[[int], Iterable[str]],
    ) -> Iterator[FoundReplica]:
        """What lies below the top of one filesystem.

        Args:
            top: a descriptor of it.
            superblock: of the filesystem.
            place_of: the place of a session there.
            names_in: what of a place's directory is a copy.
        """
        for session in sessions(top, self._owner, place_of("").root):
            place = place_of(session)
            with place.required(top) as fd:
                names = sorted(names_in(fd))
                document, kept = _document.load(fd, DOCUMENT), pinned(fd)
            if document is not None and (document.owner, document.session) != (self._owner, session):
                document = None
            places = tuple(place.path(name) for name in names)
            yield FoundReplica(
                session, superblock, places, document, {"filesystem": place.filesystem}, pinned=kept
            )  # fmt: skip

    def _gone(self, copy: ShadowCopy) -> NotFoundError:
        return NotFoundError(f"{copy.place} is gone from {self._place(copy).where}.", data="Nothing was changed.")


def directories(place: int) -> Iterable[str]:
    """What of a place's directory is a copy, where copies are directories and what is being made has a dot before."""
    return (n for n in os.listdir(place) if not n.startswith(".") and n not in (DOCUMENT, MANUAL))
