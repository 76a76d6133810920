# SPDX-License-Identifier: Apache-2.0
"""What the provider `full` makes: places, copies, and deletions.

What is being copied bears a name with a dot before it and gets its own when it is whole, compared and on the disk.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.providers._copying import Contents, contents, copy_tree, expect, remove_tree, require_tree
from slackwater.providers._effects import PlaceEffect
from slackwater.providers._full.places import FullPlace, explained
from slackwater.providers._trees.manifest import manifest
from slackwater.system import files, mounts

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class MakePlace(FullPlace, PlaceEffect):
    """The tagged directory that holds a session's copies."""

    kind: ClassVar[str] = "full.place"


@dataclass(frozen=True, slots=True)
class CopyTree(FullPlace):
    """A whole copy of a tree that does not change meanwhile: of a snapshot, or of another full copy."""

    kind: ClassVar[str] = "full.copy"
    name: str
    origin: str
    """Path of what is copied. That of a snapshot is good only in the process that planned it; nobody else copies it."""
    digest: str
    """What the copy has to hold; empty: what the origin holds."""

    def describe(self) -> str:
        """Say what it does."""
        return f"copy {self.origin} as {self.path(self.name)} on {self.where}"

    def make(self) -> Facts:
        """Copy, compare, name; made already, it is compared again.

        Raises:
            VerificationError: what was copied is not what it has to be.
            SlackwaterError: cp failed, or there is no room.
        """
        with (
            explained(self.describe(), "The live data was not touched."),
            self.top() as top,
            self.required(top) as place,
        ):
            here = f"/proc/self/fd/{place}/{self.name}"
            if os.path.isdir(here):
                found = expect(here, self.digest or contents(here).digest, f"The copy {self.path(self.name)}")
            else:
                found = self._take(place)
                self.settle(top)
            with _opened(self.name, place) as fd:
                return {**manifest(fd).facts, **found.facts}

    def _take(self, place: int) -> Contents:
        require_tree(self.origin)
        draft = f"/proc/self/fd/{place}/{_draft(self.name)}"
        remove_tree(_draft(self.name), place)
        copy_tree(self.origin, draft, share=bool(self.digest))
        made = expect(draft, self.digest or contents(self.origin).digest, f"The copy {self.path(self.name)}")
        with open(f"/proc/self/fd/{place}/{sums(self.name)}", "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write(made.sums)
        files.write_back(place)
        os.rename(_draft(self.name), self.name, src_dir_fd=place, dst_dir_fd=place)
        return made

    def undo(self) -> None:
        """Delete it, whole or not."""
        with explained(f"deleting {self.path(self.name)}"), self.top() as top, self.opened(top) as place:
            if place is not None:
                remove(self, self.name, place)
                self.settle(top)


@dataclass(frozen=True, slots=True)
class Delete:
    """The copies of a session and its directories. The tuples belong together, one item for each copy."""

    kind: ClassVar[str] = "full.delete"
    owner: str
    session: str
    filesystems: tuple[str, ...]
    sources: tuple[str, ...]
    tos: tuple[str, ...]
    names: tuple[str, ...]

    def describe(self) -> str:
        """Say what it does."""
        return f"delete the full copies {', '.join(self.names)} of {self.session}"

    def make(self) -> Facts:
        """Delete what is still there of it.

        Raises:
            RefusedError: a directory does not bear our tags, or a copy is mounted.
        """
        rows = list(zip(self.filesystems, self.sources, self.tos, self.names, strict=True))
        places = [(FullPlace(f, source, self.owner, self.session, to), name) for f, source, to, name in rows]
        with explained(self.describe(), "What was not yet deleted is still there."):
            for place, name in places:
                with place.top() as top, place.opened(top) as fd:
                    if fd is not None:
                        remove(place, name, fd)
            for place in dict.fromkeys(place for place, _ in places):
                place.remove_directory()
        return {"deleted": len(places)}

    def undo(self) -> None:
        """Nothing: what was deleted does not come back."""


def remove(place: FullPlace, name: str, fd: int) -> None:
    """Delete a copy, whole or not, with its sums. Idempotent.

    Raises:
        RefusedError: it is mounted.
    """
    if shown := shown_at(place, name):
        raise RefusedError(
            f"{place.path(name)} is mounted at {shown[0]}.",
            data="It was left as it is.",
            hint=f"umount {shown[0]}",
            code="mounted",
        )
    for each in (_draft(name), name):
        remove_tree(each, fd)
    with suppress(FileNotFoundError):
        os.unlink(sums(name), dir_fd=fd)


def shown_at(place: FullPlace, name: str) -> tuple[str, ...]:
    """Where our namespace shows a copy; its path, which holds the session's id, is no other filesystem's."""
    inner = f"/{place.path(name)}"
    return tuple(m.target for m in mounts.read() if f"{m.root}/".find(f"{inner}/") >= 0)


def sums(name: str) -> str:
    """The file beside a copy that sha256sum(1) checks it by."""
    return f"{name}.sha256"


def _draft(name: str) -> str:
    return f".{name}.new"


@contextmanager
def _opened(name: str, place: int) -> Iterator[int]:
    fd = os.open(name, _DIRECTORY, dir_fd=place)
    try:
        yield fd
    finally:
        os.close(fd)
