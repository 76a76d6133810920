# SPDX-License-Identifier: Apache-2.0
"""Pins: decided in the catalog, and noted beside the replica, where they outlive it."""

from slackwater.errors import SlackwaterError
from slackwater.hosts.rights import require_rights
from slackwater.model.replica import Replica
from slackwater.sessions.cell import Cell


async def pin(cell: Cell, text: str, *, pinned: bool) -> tuple[Replica, str]:
    """Keep a replica from rotation and deletion, or let them have it again. Idempotent.

    Returns: the replica as it is now, and why that could not be noted beside it (its storage is not mounted), which
        makes a difference only when the catalog is lost; empty when it was.

    Raises:
        NotFoundError: there is no such replica.
        RefusedError: it is too late to pin it.
    """
    require_rights(cell.places.state_dir)
    replicas = cell.catalog.replicas
    found = replicas.find(text)
    (replicas.pin if pinned else replicas.unpin)(found.id)
    try:
        await cell.host.pin(found.document, pinned=pinned)
    except SlackwaterError as e:
        return replicas.get(found.id), e.sentence
    return replicas.get(found.id), ""
