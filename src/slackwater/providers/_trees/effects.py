# SPDX-License-Identifier: Apache-2.0
"""What the providers of directories make: places, copies, clones, the exchange, the seal, and deletions.

Each effect finds out on the storage how far it came: by the identity of a directory (inode and generation), which is
kept over an exchange of names, and by tags on the roots of what we made. What is being made or removed bears a name
with a dot before it, so a copy or clone under its own name is whole. Most of what they do is in `_effects`; a provider
gives them their kinds, by which journals know them, and says whether files share their extents.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.providers._copying import begin
from slackwater.providers._effects import (
    CloneEffect,
    DeleteEffect,
    ExchangeEffect,
    FillEffect,
    PlaceEffect,
    SealEffect,
    SnapshotEffect,
    Turn,
)
from slackwater.providers._places import read_tag, tag
from slackwater.providers._trees.mirror import Mirror
from slackwater.providers._trees.places import TreePlace, directory, drafted, facts_of, found
from slackwater.system import files, filesystems


@dataclass(frozen=True, slots=True)
class MakePlace(TreePlace, PlaceEffect):
    """The tagged directory that holds a session's copies on one filesystem."""


@dataclass(frozen=True, slots=True)
class Snapshot(TreePlace, SnapshotEffect):
    """The copy of one live directory."""

    shares: ClassVar[bool]
    name: str
    live: str
    """Path of the live directory from the top."""
    live_identity: str

    def describe(self) -> str:
        """Say what it does."""
        how = "sharing all extents" if self.shares else "whole"
        return f"copy the directory {self.live} as {self.path(self.name)}, {how}"

    @contextmanager
    def begun(self, top: int, place: int) -> Iterator[tuple[int, int]]:
        """Descriptors of the live directory and of the copy, which is made, empty, and tagged. Idempotent."""
        with directory(self.live, top) as source:
            if filesystems.identity(source) != self.live_identity:
                raise RefusedError(
                    f"The directory {self.live} is not the one that was found before.", data="Nothing was changed."
                )
            if self.identity_at(self.name, place) is None:
                with self.draft(self.name, place, "copy"):
                    pass
            self.refuse_other(place)
            with directory(self.name, place) as target:
                yield source, target

    def make(self) -> Facts:
        """Read what the window's commit has made, and see that it is on the disk.

        Raises:
            RefusedError: it is not there or not whole. A later one is never taken instead: it would show another moment
                than the rest of the set.
        """
        with (
            self.told(self.describe(), "The live data was not touched."),
            self.top() as top,
            self.required(top) as place,
            found(self.name, place) as copy,
        ):
            changed = None if copy is None else read_tag(copy, "changed")
            if copy is None or changed is None:
                raise self.stranger(self.path(self.name), f"a whole copy of {self.live}")
            self.refuse_other(place)
            files.write_back(copy)
            return {**facts_of(copy), "changed": changed}

    def refuse_other(self, place: int) -> None:
        """Its tag says whose copy it is."""
        if self.tag_at(self.name, place, "copy") != self.session:
            raise self.stranger(self.path(self.name), f"the copy of {self.live}")


@dataclass(frozen=True, slots=True)
class _Turn(TreePlace, Turn):
    """What a clone and its exchange have in common."""

    name: str
    copy_identity: str
    live: str
    live_identity: str

    @property
    def old(self) -> str:
        """The live directory's identity."""
        return self.live_identity

    def is_clone(self, path: str, folder: int) -> bool:
        """The live volume may itself be a clone, from an earlier recovery, with that one's tag."""
        return self.tag_at(path, folder, "clone") == self.session and not self.is_old(path, folder)


@dataclass(frozen=True, slots=True)
class Clone(_Turn, CloneEffect):
    """A clone of a copy, beside, until it is exchanged with the live directory."""

    shares: ClassVar[bool]
    copy: str

    def clone_facts(self, path: str, top: int) -> Facts:
        """An application may be writing to it already."""
        return {"identity": self.identity_at(path, top) or ""}

    def take(self, top: int, place: int) -> None:
        """File by file; a clone that was begun and cut off is begun anew."""
        with directory(self.copy, top) as copy:
            if filesystems.identity(copy) != self.copy_identity:
                raise self.stranger(self.copy, "the copy that was planned with")
            begin()
            with self.draft(self.name, place, "clone") as clone:
                Mirror(copy, clone, self.fstype, shares=self.shares).copy()
                files.write_back(clone)
        self.settle(top)

    def protect(self, place: int) -> None:
        """It is reached read-only from now on."""
        with directory(self.name, place) as clone:
            if read_tag(clone, "kept") is None:
                os.setxattr(clone, tag("kept"), b"yes")


@dataclass(frozen=True, slots=True)
class Exchange(_Turn, ExchangeEffect):
    """The exchange of two directories."""


@dataclass(frozen=True, slots=True)
class Seal(TreePlace, SealEffect):
    """What a recovery set aside becomes a replica: by what it holds, for a directory has no mark against writing."""

    name: str
    live_identity: str

    @property
    def old(self) -> str:
        """The identity of the directory that was live."""
        return self.live_identity

    def protect(self, place: int, *, on: bool) -> None:
        """Nothing: it lies where nobody writes, and is reached read-only."""

    def describe(self) -> str:
        """Say what it does."""
        return f"note what {self.path(self.name)} holds, so that an alteration is noticed"

    def undo(self) -> None:
        """Nothing: it was only looked at."""


@dataclass(frozen=True, slots=True)
class Delete(DeleteEffect):
    """The copies of a session and its directories. The tuples belong together, one item for each copy."""

    owner: str
    session: str
    filesystems: tuple[str, ...]
    sources: tuple[str, ...]
    fstypes: tuple[str, ...]
    bases: tuple[str, ...]
    names: tuple[str, ...]
    identities: tuple[str, ...]

    def rows(self) -> Iterator[tuple[TreePlace, str, str]]:
        """One for each copy."""
        fields = (self.filesystems, self.sources, self.fstypes, self.bases, self.names, self.identities)
        for filesystem, source, fstype, base, name, identity in zip(*fields, strict=True):
            yield TreePlace(filesystem, source, self.owner, self.session, fstype, base), name, identity


@dataclass(frozen=True, slots=True)
class Fill(TreePlace, FillEffect):
    """A directory with what a full copy holds; it gets its name when it is whole, and not before."""

    name: str
    origin: str
    digest: str

    def is_whole(self, place: int) -> bool:
        """By its name."""
        return self.name in os.listdir(place)

    def begin(self, place: int) -> str:
        """A directory that cp(1) makes."""
        self.remove(self.name, place)
        return f"/proc/self/fd/{place}/{drafted(self.name)}"

    def end(self, place: int) -> None:
        """Give it its name."""
        os.rename(drafted(self.name), self.name, src_dir_fd=place, dst_dir_fd=place)
