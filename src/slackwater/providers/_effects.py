# SPDX-License-Identifier: Apache-2.0
"""What the providers that exchange directories make alike: places, copies, clones, the exchange, the seal, deletions.

A subclass is a frozen dataclass, whose fields the journal stores, and knows its storage: what lies at a path, by an
identity that is kept over an exchange of names, and how it is made and removed (`Beside`). Each effect finds out on the
storage how far it came. Each change of names is on the disk before it counts as made, so that a power cut cannot take
it back.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.providers._copying import copy_tree, expect, require_tree
from slackwater.providers._places import Place
from slackwater.system import files


class PlaceEffect(Place):
    """The tagged directory that holds a session's copies on one filesystem."""

    __slots__ = ()
    kind: ClassVar[str]

    def describe(self) -> str:
        """Say what it does."""
        return f"make the directory {self.directory} for the copies on {self.where}"

    def make(self) -> Facts:
        """Make and tag it."""
        with self.told(self.describe(), "No data was touched."):
            self.make_directory()
        return {"filesystem": self.filesystem, "place": self.directory}

    def undo(self) -> None:
        """Remove it with the document, if no copy lies in it."""
        with self.told(f"removing {self.directory}"):
            self.remove_directory()


class Beside(Place):
    """A place beside the volumes, on one mount with them: what lies in it can change places with them."""

    __slots__ = ()
    noun: ClassVar[str]
    """What a volume is, in words."""
    shown_by: ClassVar[str] = ""
    """The command that shows what lies at a path."""

    @abstractmethod
    def identity_at(self, path: str, folder: int) -> str | None:
        """What no other volume, copy or clone ever bears; None where there is none at this path below a directory."""

    @abstractmethod
    def facts_at(self, path: str, folder: int) -> Facts:
        """What tells whether a copy at this path below a directory is still the one that was made, and unaltered."""

    @abstractmethod
    def remove(self, name: str, place: int) -> None:
        """Delete a copy or clone, and what a making or removal of it that was cut off has left. Idempotent."""

    @abstractmethod
    def refuse_mounted(self, path: str) -> None:
        """Raise when what lies at a path below the top is mounted: whoever has it so is left with the wrong one.

        Raises:
            RefusedError: it is.
        """

    @abstractmethod
    def refuse_held(self, top: int, path: str) -> None:
        """Raise when a process holds something in a volume: it would go on writing into what was set aside.

        Raises:
            RefusedError: one does.
        """

    def stranger(self, path: str, expected: str) -> RefusedError:
        """The error that something else lies at a path than what was made there."""
        seen = f"See `{self.shown_by}`: it" if self.shown_by else "It"
        return RefusedError(
            f"What lies at {path} on {self.where} is not {expected}.",
            data="It was left as it is.",
            hint=f"{seen} was moved or replaced by hand, or another step has to be undone first.",
        )


class SnapshotEffect(Beside):
    """The read-only copy of one live volume; how the window's commit makes it, its provider knows."""

    __slots__ = ()
    kind: ClassVar[str]
    name: str

    @abstractmethod
    def refuse_other(self, place: int) -> None:
        """Raise when something lies in the copy's place and is not the copy.

        Raises:
            RefusedError: it is another's.
        """

    def undo(self) -> None:
        """Delete it, if it is there."""
        with self.told(f"deleting {self.path(self.name)}"), self.top() as top, self.opened(top) as place:
            if place is not None:
                if self.identity_at(self.name, place) is not None:
                    self.refuse_other(place)
                    self.refuse_mounted(self.path(self.name))
                self.remove(self.name, place)
                self.settle(top)


class Turn(Beside):
    """What a clone and its exchange have in common: which copy, and which live volume it takes the place of."""

    __slots__ = ()
    name: str
    live: str
    """Path of the live volume from the top."""

    @property
    @abstractmethod
    def old(self) -> str:
        """The identity of the live volume, as planned. Whoever bears it is the old volume, wherever it lies."""

    @abstractmethod
    def is_clone(self, path: str, folder: int) -> bool:
        """Whether the clone lies at a path below a directory; the live volume may be one, too, of another recovery."""

    def is_old(self, path: str, folder: int) -> bool:
        """Whether the old volume lies at a path below a directory."""
        return self.identity_at(path, folder) == self.old


class CloneEffect(Turn):
    """A writable clone of a copy, beside, until it is exchanged with the live volume."""

    __slots__ = ()
    kind: ClassVar[str]
    copy: str
    """Path of the copy from the top."""

    @abstractmethod
    def take(self, top: int, place: int) -> None:
        """Clone the copy.

        Raises:
            RefusedError: another copy lies there than was planned with.
        """

    @abstractmethod
    def protect(self, place: int) -> None:
        """Make the clone a copy, which is not written to any more. Idempotent."""

    def clone_facts(self, path: str, top: int) -> Facts:
        """What there is to know of a clone."""
        return self.facts_at(path, top)

    def describe(self) -> str:
        """Say what it does."""
        return f"clone {self.copy} as {self.path(self.name)}"

    def make(self) -> Facts:
        """Clone the copy. After an exchange the clone is at the live path, and is described from there."""
        with (
            self.told(self.describe(), "The live data was not touched."),
            self.top() as top,
            self.required(top) as place,
        ):
            if self.identity_at(self.name, place) is None:
                self.take(top, place)
            path = self.live if self.is_old(self.name, place) else self.path(self.name)
            if not self.is_clone(path, top):
                raise self.stranger(self.path(self.name), f"a clone of {self.copy}")
            return self.clone_facts(path, top)

    def keep(self) -> Facts:
        """Make it a copy, where it lies beside again after its exchange was undone."""
        with self.told(f"keeping {self.path(self.name)}"), self.top() as top, self.required(top) as place:
            if not self.is_clone(self.name, place):
                raise self.stranger(self.path(self.name), f"a clone of {self.copy}")
            self.protect(place)
            files.write_back(place)
            self.settle(top)
            return self.facts_at(self.name, place)

    def undo(self) -> None:
        """Delete the clone, and only the clone: after an exchange the old live volume lies at this very path."""
        with self.told(f"deleting {self.path(self.name)}"), self.top() as top, self.opened(top) as place:
            if place is None:
                return
            if self.identity_at(self.name, place) is not None and not self.is_clone(self.name, place):
                raise self.stranger(self.path(self.name), f"a clone of {self.copy}, but what a recovery set aside")
            self.refuse_mounted(self.path(self.name))
            self.remove(self.name, place)
            self.settle(top)


class ExchangeEffect(Turn):
    """The clone takes the live volume's place, and the live volume the clone's, in one instant."""

    __slots__ = ()
    kind: ClassVar[str]

    def describe(self) -> str:
        """Say what it does."""
        return f"exchange the {self.noun} {self.live} with its clone; the old one is then {self.path(self.name)}"

    def make(self) -> Facts:
        """Exchange them, unless the live path already shows another than the old volume."""
        with self.told(self.describe()), self.top() as top, self.required(top) as place:
            if self.is_old(self.live, top) and self.is_clone(self.name, place):
                self._turn(top)
            elif not (self.is_clone(self.live, top) and self.is_old(self.name, place)):
                raise self.stranger(self.live, "the volume that was planned with, nor its clone")
            self.settle(top)  # also what was found turned: whoever turned it may have died before it was on the disk
            return {"live": self.live, "aside": self.path(self.name), "aside_identity": self.old}

    def exchanged(self) -> bool:
        """Whether the clone lies in the volume's place, and the volume beside."""
        with self.told(f"looking at {self.live}"), self.top(read_only=True) as top, self.opened(top) as place:
            return place is not None and self.is_clone(self.live, top) and self.is_old(self.name, place)

    def undo(self) -> None:
        """Exchange them back, if the old volume lies beside."""
        with self.told(f"putting the old volume back at {self.live}"), self.top() as top, self.opened(top) as place:
            if place is not None and self.is_old(self.name, place):
                if not self.is_clone(self.live, top):
                    raise self.stranger(self.live, f"the clone that took the place of {self.path(self.name)}")
                self._turn(top)
            self.settle(top)  # also what was found put back

    def _turn(self, top: int) -> None:
        self.refuse_mounted(self.live)
        self.refuse_held(top, self.live)
        self.loosen(top)
        files.exchange(top, self.live, self.path(self.name))

    def loosen(self, top: int) -> None:
        """Make what lies beside fit to be live again: it may have been sealed."""


class SealEffect(Beside):
    """What a recovery set aside becomes a read-only replica."""

    __slots__ = ()
    kind: ClassVar[str]
    name: str

    @property
    @abstractmethod
    def old(self) -> str:
        """The identity of what was set aside."""

    @abstractmethod
    def protect(self, place: int, *, on: bool) -> None:
        """Take or give the right to write to it, where the storage can. Idempotent."""

    def describe(self) -> str:
        """Say what it does."""
        return f"make {self.path(self.name)} read-only"

    def make(self) -> Facts:
        """Protect it, and return the facts by which an alteration is noticed."""
        with self.told(self.describe()), self.top() as top, self.required(top) as place:
            if self.identity_at(self.name, place) != self.old:
                raise self.stranger(self.path(self.name), "what the recovery set aside")
            self.protect(place, on=True)
            # What its processes had written and never synced would reach the disk later, and show as an alteration.
            files.write_back(place)
            self.settle(top)
            return self.facts_at(self.name, place)

    def undo(self) -> None:
        """Make it writable again, if it lies there."""
        with self.told(f"making {self.path(self.name)} writable"), self.top() as top, self.opened(top) as place:
            if place is not None and self.identity_at(self.name, place) == self.old:
                self.protect(place, on=False)
                self.settle(top)


class DeleteEffect:
    """The copies of a session and its directories."""

    __slots__ = ()
    kind: ClassVar[str]
    session: str
    names: tuple[str, ...]

    @abstractmethod
    def rows(self) -> Iterable[tuple[Beside, str, str]]:
        """Each copy: its place, its name, and its identity."""

    def describe(self) -> str:
        """Say what it does."""
        return f"delete the copies {', '.join(self.names)} of {self.session}"

    def make(self) -> Facts:
        """Delete what is still there of it.

        Raises:
            RefusedError: a directory does not bear our tags, a copy is another than recorded, or is mounted.
        """
        deleted = 0
        copies: dict[Beside, list[tuple[str, str]]] = {}
        for place, name, identity in self.rows():
            copies.setdefault(place, []).append((name, identity))
        for place, names in copies.items():
            with place.told(self.describe(), "What was not yet deleted is still there, and good."):
                deleted += _delete_copies(place, names)
                place.remove_directory()
        return {"deleted": deleted}

    def undo(self) -> None:
        """Nothing: what was deleted does not come back."""


def _delete_copies(place: Beside, copies: list[tuple[str, str]]) -> int:
    with place.top() as top, place.opened(top) as fd:
        if fd is None:
            return 0
        there = {name: place.identity_at(name, fd) for name, _ in copies}
        for name, identity in copies:
            if there[name] not in (None, identity):
                raise place.stranger(place.path(name), "the copy that was recorded")
            place.refuse_mounted(place.path(name))
        for name, _ in copies:
            place.remove(name, fd)
        place.settle(top)
        return sum(each is not None for each in there.values())


class FillEffect(Beside):
    """A copy of ours with what a full copy on another filesystem holds."""

    __slots__ = ()
    kind: ClassVar[str]
    name: str
    origin: str
    """Path of the full copy."""
    digest: str
    """Of what it has to hold."""

    @abstractmethod
    def is_whole(self, place: int) -> bool:
        """Whether the copy is there, whole.

        Raises:
            RefusedError: something else lies there.
        """

    @abstractmethod
    def begin(self, place: int) -> str:
        """A path, good in this process, to which the tree is to be copied; what was begun before is gone."""

    @abstractmethod
    def end(self, place: int) -> None:
        """Make what was filled the whole copy."""

    def describe(self) -> str:
        """Say what it does."""
        return f"copy {self.origin} as the {self.noun} {self.path(self.name)}, and compare what it holds"

    def make(self) -> Facts:
        """Make, fill and compare it.

        Raises:
            VerificationError: the full copy does not hold what was backed up.
        """
        with (
            self.told(self.describe(), "The live data was not touched."),
            self.top() as top,
            self.required(top) as place,
        ):
            if not self.is_whole(place):
                require_tree(self.origin)
                here = self.begin(place)
                copy_tree(self.origin, here)
                expect(here, self.digest, self.origin)
                files.write_back(place)
                self.end(place)
                self.settle(top)
            return self.facts_at(self.name, place)

    def undo(self) -> None:
        """Delete it, whole or not."""
        with self.told(f"deleting {self.path(self.name)}"), self.top() as top, self.opened(top) as place:
            if place is not None:
                self.is_whole(place)
                self.refuse_mounted(self.path(self.name))
                self.remove(self.name, place)
                self.settle(top)
