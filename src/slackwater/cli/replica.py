# SPDX-License-Identifier: Apache-2.0
"""`slackwater replica`: list, show, pin, unpin, delete."""

from datetime import timedelta
from functools import partial
from typing import Annotated

import typer

from slackwater.cli import words
from slackwater.cli.app import new_app, verb
from slackwater.cli.frame import confirm, do, open_cell
from slackwater.cli.options import (
    Json,
    MaybeSpec,
    Preview,
    Progress,
    ReplicaId,
    Wait,
    Yes,
    duration_s,
    named,
    wait_s,
)  # fmt: skip
from slackwater.cli.progress import listening
from slackwater.cli.values import Deletion, Replicas, ReplicaShown
from slackwater.errors import BusyError, NotFoundError, RefusedError, RightsError

_OlderThan = Annotated[str, typer.Option("--older-than", metavar="DURATION", help="Only older ones, as 7d.")]
_Unverified = Annotated[bool, typer.Option("--unverified", help="Only those that were never verified.")]

replicas = new_app("List, show, protect and delete replicas.")


def join(app: typer.Typer) -> None:
    """Add the noun to the application."""
    app.add_typer(replicas, name="replica")


@verb(
    replicas,
    "list",
    "slackwater replica list",
    "slackwater replica list orders --older-than 7d",
    fails=(NotFoundError, RightsError),
)
def list_replicas(
    spec: MaybeSpec = "", older_than: _OlderThan = "", unverified: _Unverified = False, json: Json = False
) -> Replicas:
    """List what is kept, the newest first."""
    age_s = duration_s(older_than, "--older-than") if older_than else None
    cell = open_cell()
    before = cell.clock.now() - timedelta(seconds=age_s) if age_s is not None else None
    found = cell.catalog.replicas.list(spec or None, before=before, unverified=unverified)
    if spec and not found:
        named(cell, spec)
    return Replicas(tuple(found))


@verb(
    replicas,
    "show",
    "slackwater replica show latest",
    "slackwater replica show 2026-11-22-1 --json",
    fails=(NotFoundError, RightsError),
)
def show(replica: ReplicaId, json: Json = False) -> ReplicaShown:
    """Show one replica.

    What it holds, why it is consistent, and what a recovery from it would not bring back.
    """
    return ReplicaShown(open_cell().catalog.replicas.find(replica))


@verb(replicas, "pin", "slackwater replica pin 2026-11-22-1", fails=(NotFoundError, RefusedError, RightsError))
def pin(replica: ReplicaId, json: Json = False) -> ReplicaShown:
    """Keep a replica from rotation and deletion."""
    return _pinned(replica, pinned=True)


@verb(replicas, "unpin", "slackwater replica unpin 2026-11-22-1", fails=(NotFoundError, RightsError))
def unpin(replica: ReplicaId, json: Json = False) -> ReplicaShown:
    """Let rotation and deletion have a replica again."""
    return _pinned(replica, pinned=False)


@verb(
    replicas,
    "delete",
    "slackwater replica delete 2026-11-22-1",
    "slackwater replica delete 2026-11-22-1 --yes --json",
    fails=(BusyError, NotFoundError, RefusedError, RightsError),
)
def delete(
    replica: ReplicaId,
    preview: Preview = False,
    yes: Yes = False,
    wait: Wait = "",
    progress: Progress = "auto",
    json: Json = False,
) -> Deletion:
    """Delete a replica for good.

    The application's own data is not touched.
    """
    with listening(progress) as listener:
        found = open_cell(preview=True).catalog.replicas.find(replica)
        if preview:
            return Deletion(found, "")
        from slackwater.hosts.local import require_root
        from slackwater.sessions import rotation

        require_root()
        if not (yes or found.pinned):
            confirm(_what_goes(found.id), f"Delete replica {found.id} for good?")
        cell = open_cell(writing=True)
        session = do(partial(rotation.delete, cell, found, wait_s=wait_s(wait, cell), listener=listener))
        return Deletion(found, session)


def _what_goes(replica: str) -> list[str]:
    cell = open_cell(preview=True)
    found = cell.catalog.replicas.get(replica)
    document = found.document
    others = [each for each in cell.catalog.replicas.list(document.specification) if each.id != found.id]
    age_s = (cell.clock.now() - document.created).total_seconds()
    when = f"{words.local(document.created, seconds=True)} ({words.ago(age_s)})"
    return [
        f"Replica {found.id} of {document.specification}, {when}, {words.state(found)}.",
        f"{len(others)} other replicas of {document.specification} stay." if others else "It is the only one there is.",
    ]


def _pinned(replica: str, *, pinned: bool) -> ReplicaShown:
    from slackwater.hosts.local import require_root

    open_cell(preview=True).catalog.replicas.find(replica)  # nothing is made where there is nothing to pin
    require_root()
    kept = open_cell(writing=True).catalog.replicas
    found = kept.find(replica)
    (kept.pin if pinned else kept.unpin)(found.id)
    said = "Rotation and deletion leave it alone." if pinned else "Rotation and deletion may have it again."
    return ReplicaShown(kept.get(found.id), said)
