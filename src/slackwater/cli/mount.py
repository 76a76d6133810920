# SPDX-License-Identifier: Apache-2.0
"""`slackwater replica mount`, `unmount` and `verify`."""

from functools import partial
from typing import Annotated

import typer

from slackwater.cli import completion
from slackwater.cli.app import verb
from slackwater.cli.frame import confirm, do, open_cell
from slackwater.cli.options import Json, Progress, ReplicaId, Wait, Yes, wait_s
from slackwater.cli.progress import listening
from slackwater.cli.replica import replicas
from slackwater.errors import BusyError, NotFoundError, RefusedError, RightsError, VerificationError

_Path = Annotated[
    str, typer.Argument(metavar="PATH", help="An empty folder, or one to be made; by the settings unless given.")
]
_ReadWrite = Annotated[
    bool,
    typer.Option("--read-write", help="On a writable clone; marks the replica as used. The replica stays what it is."),
]
_What = Annotated[
    str,
    typer.Argument(metavar="ID|PATH", help="A replica, or where one is mounted.", autocompletion=completion.replicas),
]


def join(_app: typer.Typer) -> None:
    """Add the commands to the noun `replica`."""
    verb(
        replicas,
        "mount",
        "slackwater replica mount latest",
        "slackwater replica mount 2026-11-22-1 /mnt/yesterday",
        "slackwater replica mount latest /mnt/scratch --read-write",
        fails=(BusyError, NotFoundError, RefusedError, RightsError),
    )(mount)
    verb(
        replicas,
        "unmount",
        "slackwater replica unmount latest",
        "slackwater replica unmount /mnt/yesterday",
        fails=(BusyError, NotFoundError, RefusedError, RightsError),
    )(unmount)
    verb(
        replicas,
        "verify",
        "slackwater replica verify latest",
        "slackwater replica verify 2026-11-22-1 --json",
        fails=(BusyError, NotFoundError, RefusedError, RightsError, VerificationError),
    )(verify)


def mount(
    replica: ReplicaId,
    path: _Path = "",
    read_write: _ReadWrite = False,
    wait: Wait = "",
    progress: Progress = "auto",
    json: Json = False,
) -> object:
    """Mount a replica, to look into it or to copy files out of it.

    Read-only, without set-user-ids, devices or programs that could be run. Of a replica with several volumes each lies
    below the path by its name. While it is mounted it cannot be deleted; rotation leaves it alone.
    """
    with listening(progress) as listener:
        found = open_cell(preview=True).catalog.replicas.find(replica)
        from slackwater.hosts.rights import require_root
        from slackwater.sessions import mount as sessions

        require_root()
        cell = open_cell(writing=True)
        work = partial(sessions.mount, read_write=read_write, wait_s=wait_s(wait, cell), listener=listener)
        return do(partial(work, cell, found, path))


def unmount(what: _What, yes: Yes = False, wait: Wait = "", progress: Progress = "auto", json: Json = False) -> object:
    """Unmount a replica.

    One that was mounted read-write was a clone: it is deleted, with what was written to it.
    """
    with listening(progress) as listener:
        cell = open_cell(preview=True)
        from slackwater.hosts.rights import require_root
        from slackwater.sessions import mount as sessions

        found = sessions.mounted(cell, what)
        require_root()
        lost = [each.targets[0] for each in found if each.clone is not None]
        if lost and not yes:
            confirm([f"What was written below {', '.join(lost)} is lost."], "Unmount it?")
        cell = open_cell(writing=True)
        return do(partial(sessions.unmount, cell, found, wait_s=wait_s(wait, cell), listener=listener))


def verify(replica: ReplicaId, wait: Wait = "", progress: Progress = "auto", json: Json = False) -> object:
    """Prove that a replica can be recovered.

    Its engine recovers on a thin clone, apart from the application, and then reads everything through: tables, indexes,
    checksums, and the question of the specification. How it ended is recorded with the replica.
    """
    with listening(progress) as listener:
        looking = open_cell(preview=True)
        found = looking.catalog.replicas.find(replica)
        from slackwater.hosts.rights import require_rights
        from slackwater.sessions import verify as sessions

        require_rights(looking.places.state_dir)
        cell = open_cell(writing=True)
        return do(partial(sessions.verify, cell, found, wait_s=wait_s(wait, cell), listener=listener))
