# SPDX-License-Identifier: Apache-2.0
"""The bar over half a switch of directories, see `providers/_bars`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from slackwater.providers._bars import Root
from slackwater.providers._trees.places import TreePlace, explained, found
from slackwater.system import filesystems


@dataclass(frozen=True, slots=True)
class Volumes:
    """The roots of several live volumes and their clones. The tuples belong together, one item for each volume."""

    filesystems: tuple[str, ...]
    sources: tuple[str, ...]
    fstypes: tuple[str, ...]
    bases: tuple[str, ...]
    live: tuple[str, ...]
    aside: tuple[str, ...]
    live_identities: tuple[str, ...]

    @contextmanager
    def roots(self) -> Iterator[list[Root]]:
        """Open the roots on their filesystems, and write back what was changed."""
        with ExitStack() as stack:
            tops: dict[TreePlace, int] = {}
            roots = []
            fields = (self.filesystems, self.sources, self.fstypes, self.bases)
            for where, live, aside, identity in zip(
                zip(*fields, strict=True), self.live, self.aside, self.live_identities, strict=True
            ):
                filesystem, source, fstype, base = where
                place = TreePlace(filesystem, source, "", "", fstype, base)
                if place not in tops:
                    tops[place] = stack.enter_context(place.top())
                here, beside = (stack.enter_context(found(path, tops[place])) for path in (live, aside))
                roots.append(Root(here, beside, here is not None and filesystems.identity(here) != identity))
            yield roots
            for place, top in tops.items():
                place.settle(top)

    def told(self, what: str) -> AbstractContextManager[None]:
        """See `places.explained`."""
        return explained(what)
