# SPDX-License-Identifier: Apache-2.0
"""Clones: thin, writable copies of a replica, with or without an engine on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from slackwater.model.component import Component
from slackwater.model.facts import Facts
from slackwater.model.storage import ShadowCopy


class CloneKind(StrEnum):
    """What a clone is for."""

    ENGINE = "engine"
    """An engine was started on it, apart from the original."""
    MOUNT = "mount"
    """It is what a replica mounted read-write shows."""


class CloneState(StrEnum):
    """What can be done with a clone."""

    KEPT = "kept"
    DELETING = "deleting"
    """Its deletion was decided and not yet finished."""


@dataclass(frozen=True, slots=True)
class CloneDocument:
    """Everything that is needed to find a clone and to take it away."""

    session: str
    """That made it; its place on the storage bears this name."""
    folder: str
    """Sockets and logs; empty without an engine."""
    enclosure: str
    """The mark of its namespaces, see `system/namespaces`; empty without an engine."""
    components: tuple[Component, ...]
    copies: tuple[ShadowCopy, ...]
    places: tuple[str, ...] = ()
    """Without namespaces: the directory of each copy's clone, in their order, where the engine works."""
    reached: Mapping[str, Facts] = field(default_factory=dict)
    """By component, what its writer found when it had recovered: how to get in, above all."""


@dataclass(frozen=True, slots=True)
class Clone:
    """A clone that the catalog keeps."""

    id: str
    """Of the session that made it."""
    name: str
    kind: CloneKind
    replica: str
    specification: str
    created: datetime
    expires: datetime | None
    """None: kept until it is deleted."""
    document: CloneDocument
    state: CloneState = CloneState.KEPT
