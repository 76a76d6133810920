# SPDX-License-Identifier: Apache-2.0
"""The plain commands that recover a replica without us, as they lie beside it.

They are complete: a test runs them literally, with the application stopped before and started after.
"""

import os
from shlex import quote

from slackwater.model.replica import BackupComponents
from slackwater.model.storage import ShadowCopy
from slackwater.providers import _document, _manual
from slackwater.providers._trees.places import TreePlace

_TOP = "/run/top"


def manual(document: BackupComponents, place: TreePlace, copies: list[ShadowCopy]) -> str:
    """Write RECOVER.txt for the copies of a document that lie in one place."""
    lines = [*_commands(copies, document.session, place), *_document.by_hand(document, copies)]
    return _manual.beside(document, copies, lines)


def _commands(copies: list[ShadowCopy], session: str, place: TreePlace) -> list[str]:
    options = "-o subvolid=5 " if place.fstype == "btrfs" else ""
    return [
        f"mkdir -p {_TOP}",
        f"mount -t {place.fstype} {options}UUID={place.filesystem} {_TOP}",
        *(command for copy in copies for command in _switch(copy, session, place)),
        f"umount {_TOP}",
    ]


def _switch(copy: ShadowCopy, session: str, place: TreePlace) -> list[str]:
    live, replica = (
        os.path.normpath(f"{_TOP}{place.inner(path)}") for path in (str(copy.volume.facts["live"]), copy.place)
    )
    return [
        f"mv -T {quote(live)} {quote(f'{live}.before-{session}')}",
        f"cp -a --reflink=auto {quote(replica)} {quote(live)}",
    ]
