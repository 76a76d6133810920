# SPDX-License-Identifier: Apache-2.0
"""`slackwater replica`: list, show, pin, unpin, delete."""

from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated

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
from slackwater.cli.waiting import NOTING, waiting
from slackwater.errors import BusyError, NotFoundError, PartialError, RefusedError, RightsError, SlackwaterError

if TYPE_CHECKING:
    from slackwater.sessions.cell import Cell

_OlderThan = Annotated[str, typer.Option("--older-than", metavar="DURATION", help="Only older ones, as 7d.")]
_Retention = Annotated[
    bool, typer.Option("--retention", help="Say of each whether rotation would keep it today, and why.")
]
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
    "slackwater replica list orders --retention",
    fails=(NotFoundError, RightsError),
)
def list_replicas(
    spec: MaybeSpec = "",
    older_than: _OlderThan = "",
    unverified: _Unverified = False,
    retention: _Retention = False,
    json: Json = False,
) -> Replicas:
    """List what is kept, the newest first."""
    age_s = duration_s(older_than, "--older-than") if older_than else None
    cell = open_cell()
    before = cell.clock.now() - timedelta(seconds=age_s) if age_s is not None else None
    found = cell.catalog.replicas.list(spec or None, before=before, unverified=unverified)
    if spec and not found:
        named(cell, spec)
    from slackwater.sessions.mount import with_presented

    found = with_presented(cell, found)
    if not retention:
        return Replicas(found)
    from slackwater.sessions.rotation import outlook

    return Replicas(found, outlook(cell, found))


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
    cell = open_cell()
    found = cell.catalog.replicas.find(replica)
    from slackwater.sessions.mount import with_presented

    (shown,) = with_presented(cell, (found,))
    return ReplicaShown(shown)


@verb(
    replicas,
    "pin",
    "slackwater replica pin 2026-11-22-1",
    fails=(NotFoundError, RefusedError, RightsError, PartialError),
)
def pin(replica: ReplicaId, json: Json = False) -> ReplicaShown:
    """Keep a replica from rotation and deletion."""
    return _pinned(replica, pinned=True, json=json)


@verb(replicas, "unpin", "slackwater replica unpin 2026-11-22-1", fails=(NotFoundError, RightsError, PartialError))
def unpin(replica: ReplicaId, json: Json = False) -> ReplicaShown:
    """Let rotation and deletion have a replica again."""
    return _pinned(replica, pinned=False, json=json)


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
        looking = open_cell(preview=True)
        found = looking.catalog.replicas.find(replica)
        if preview:
            return Deletion(found, "")
        from slackwater.hosts.rights import require_rights
        from slackwater.sessions import rotation

        require_rights(looking.places.state_dir)
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
        *_moments_lost(cell, found.id, document.specification),
    ]


def _moments_lost(cell: "Cell", replica: str, specification: str) -> list[str]:
    """To which moments no recovery leads any more; none where that cannot be told."""
    from slackwater.sessions import target, windows

    with suppress(SlackwaterError):
        found = target.resolve(cell, specification)
        return [windows.in_words(span) for span in do(partial(windows.cut_by, cell, found, [replica]))]
    return []


def _pinned(replica: str, *, pinned: bool, json: bool) -> ReplicaShown:
    from slackwater.sessions import pinning

    open_cell(preview=True).catalog.replicas.find(replica)  # nothing is made where there is nothing to pin
    with waiting(NOTING, unless=json):
        found, not_noted = do(partial(pinning.pin, open_cell(writing=True), replica, pinned=pinned))
    said = "Rotation and deletion leave it alone." if pinned else "Rotation and deletion may have it again."
    return ReplicaShown(found, said, not_noted)
