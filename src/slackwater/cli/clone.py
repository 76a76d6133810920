# SPDX-License-Identifier: Apache-2.0
"""`slackwater clone`: create, list, delete."""

from functools import partial
from typing import Annotated

import typer

from slackwater.cli import completion
from slackwater.cli.app import new_app, verb
from slackwater.cli.frame import confirm, do, open_cell
from slackwater.cli.options import Json, Progress, ReplicaId, Wait, Yes, duration_s, wait_s
from slackwater.cli.progress import listening
from slackwater.cli.values import CloneDeleted, Clones
from slackwater.errors import BusyError, NotFoundError, RefusedError, RightsError, UsageError, VerificationError

_DEFAULT_TTL = "2h"
_Name = Annotated[str, typer.Option("--name", metavar="NAME", help="How the clone shall be called.")]
_Ttl = Annotated[
    str,
    typer.Option("--ttl", metavar="DURATION", help=f"After how long it expires; {_DEFAULT_TTL} unless given."),
]
_Keep = Annotated[bool, typer.Option("--keep", help="Keep it until it is deleted by hand.")]
_Clone = Annotated[str, typer.Argument(metavar="NAME", help="A clone's name or id.", autocompletion=completion.clones)]

clones = new_app("Try things on a writable copy of a replica.")


def join(app: typer.Typer) -> None:
    """Add the noun to the application."""
    app.add_typer(clones, name="clone")


@verb(
    clones,
    "create",
    "slackwater clone create latest --name upgrade-test",
    "slackwater clone create 2026-11-22-1 --name audit --ttl 3d",
    "slackwater clone create latest --name reports --keep --json",
    fails=(BusyError, NotFoundError, RefusedError, RightsError, VerificationError),
)
def create(
    replica: ReplicaId,
    name: _Name,
    ttl: _Ttl = "",
    keep: _Keep = False,
    wait: Wait = "",
    progress: Progress = "auto",
    json: Json = False,
) -> object:
    """Start the engine on a thin, writable copy of a replica.

    It runs apart from everything, on a socket of its own: without network, archiving, replication or subscriptions. The
    replica and the application are not touched by whatever is done to it. After a restart of the system it is stopped.
    """
    if ttl and keep:
        raise UsageError("--ttl and --keep cannot be given together.", data="Nothing was changed.", hint="Choose one.")
    ttl_s = None if keep else duration_s(ttl or _DEFAULT_TTL, "--ttl")
    with listening(progress) as listener:
        looking = open_cell(preview=True)
        found = looking.catalog.replicas.find(replica)
        from slackwater.hosts.rights import require_rights
        from slackwater.sessions import clone as sessions

        require_rights(looking.places.state_dir)
        cell = open_cell(writing=True)
        waiting_s = wait_s(wait, cell)
        return do(partial(sessions.create, cell, found, name, ttl_s, wait_s=waiting_s, listener=listener))


@verb(clones, "list", "slackwater clone list", "slackwater clone list --json", fails=(RightsError,))
def list_clones(json: Json = False) -> Clones:
    """List the clones, the newest first, and whether their engines run."""
    cell = open_cell()
    from slackwater.sessions import clone as sessions

    return Clones(sessions.listed(cell))


@verb(
    clones,
    "delete",
    "slackwater clone delete upgrade-test",
    "slackwater clone delete upgrade-test --yes",
    fails=(BusyError, NotFoundError, RefusedError, RightsError),
)
def delete(
    name: _Clone, yes: Yes = False, wait: Wait = "", progress: Progress = "auto", json: Json = False
) -> CloneDeleted:
    """End and delete a clone, with all that was written to it."""
    with listening(progress) as listener:
        looking = open_cell(preview=True)
        found = looking.catalog.clones.find(name)
        from slackwater.hosts.rights import require_rights
        from slackwater.sessions import clone as sessions

        require_rights(looking.places.state_dir)
        if not yes:
            confirm([f"What was written to the clone {found.name} of replica {found.replica} is lost."], "Delete it?")
        cell = open_cell(writing=True)
        waiting_s = wait_s(wait, cell)
        return CloneDeleted(do(partial(sessions.delete, cell, found.name, wait_s=waiting_s, listener=listener)))
