# SPDX-License-Identifier: Apache-2.0
"""The plain commands that recover a replica without us, as they lie beside it.

They are complete: a test runs them literally, with the application stopped before and started after.
"""

from shlex import quote

from slackwater.model.replica import BackupComponents
from slackwater.model.storage import ShadowCopy
from slackwater.providers import _document, _manual

_TOP = "/run/top"


def manual(document: BackupComponents, filesystem: str, copies: list[ShadowCopy]) -> str:
    """Write RECOVER.txt for the copies of a document that lie on one filesystem."""
    lines = [*_commands(copies, document.session, filesystem), *_document.by_hand(document, copies)]
    return _manual.beside(document, copies, lines)


def _commands(copies: list[ShadowCopy], session: str, filesystem: str) -> list[str]:
    mounted = [copy for copy in copies if copy.volume.facts.get("mounted")]
    innermost_first = sorted(mounted, key=_mount_point, reverse=True)
    return [
        *(f"umount {_mount_point(copy)}" for copy in innermost_first),
        f"mkdir -p {_TOP}",
        f"mount -t btrfs -o subvolid=5 UUID={filesystem} {_TOP}",
        *(command for copy in copies for command in _switch(copy, session)),
        f"umount {_TOP}",
        *(
            f"mount -t btrfs -o {_subvol(copy)} UUID={filesystem} {_mount_point(copy)}"
            for copy in innermost_first[::-1]
        ),
    ]


def _switch(copy: ShadowCopy, session: str) -> list[str]:
    live, replica = (f"{_TOP}/{each}" for each in (copy.volume.facts["subvolume"], copy.place))
    return [
        f"mv -T {quote(live)} {quote(f'{live}.before-{session}')}",
        f"btrfs subvolume snapshot {quote(replica)} {quote(live)}",
    ]


def _mount_point(copy: ShadowCopy) -> str:
    return quote(str(copy.volume.facts["mount_point"]))


def _subvol(copy: ShadowCopy) -> str:
    return quote(f"subvol=/{copy.volume.facts['subvolume']}")
