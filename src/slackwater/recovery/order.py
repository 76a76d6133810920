# SPDX-License-Identifier: Apache-2.0
"""What a recovery is asked to do, what it does it with, and where the files of its clones can be reached."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Facts
from slackwater.model.hooks import NO_HOOKS, Hooks
from slackwater.model.replica import BackupComponents
from slackwater.model.service import Service
from slackwater.model.storage import ShadowCopy, Volume
from slackwater.model.target import TO_REPLICA, RecoveryTarget
from slackwater.providers.contract import Provider
from slackwater.system import mounts
from slackwater.system.clock import Clock
from slackwater.writers.contract import Writer

Trees = Mapping[ComponentRef, Mapping[str, str]]
"""By component: where each of its file sets can be reached, by the path that was recorded."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What a recovery is made with on a host."""

    writers: Mapping[str, Writer]
    providers: Mapping[str, Provider]
    clock: Clock


@dataclass(frozen=True, slots=True)
class RecoveryOrder:
    """Which replica takes the place of what."""

    source: BackupComponents
    now: tuple[Component, ...]
    """The components as they are now (as recorded, where they cannot be asked any more), in the document's order."""
    live: tuple[Volume, ...]
    """The volumes as they are now, in the order of the document's copies."""
    known: Mapping[ComponentRef, Sequence[Facts]]
    """What earlier recoveries returned, so that no timeline is used twice."""
    target: RecoveryTarget = TO_REPLICA
    """Where it goes from the replica."""
    logs: tuple[BackupComponents, ...] = ()
    """Other replicas, the oldest first, that may hold what the log needs on the way there."""
    archive: str | None = None
    """How an archive of the log is asked, see `LogSource`; None for none."""
    hooks: Hooks = NO_HOOKS
    """Commands to run around the stop and the start."""
    services: tuple[Service, ...] = ()
    """What is stopped before the application, in this order, and started after it."""
    configuration: Mapping[ComponentRef, Mapping[str, str]] | None = None
    """For a recovery that puts the replica's configuration files back: the texts that they have now, by path, where
    they can be read. None for one that leaves them."""
    stays: bool = False
    """Whether it stays where it is when it fails after its switch, in place of going back by itself."""
    timeout_s: float = 3600.0
    """How long the application may take to recover."""


def trees_of(
    components: Iterable[Component], clones: Iterable[tuple[str, ShadowCopy]], hands: Hands, reached: ExitStack
) -> Trees:
    """For each component: where the clone of each of its file sets can be reached while `reached` is open.

    Args:
        components: as the replica's document recorded them.
        clones: each with the path that its volume had then.
        hands: of the host.
        reached: holds them open.
    """
    reach = [(path, hands.providers[clone.provider].reach(clone)) for path, clone in clones]
    return trees_at(components, [(path, reached.enter_context(opened)) for path, opened in reach])


def trees_in(order: RecoveryOrder, clones: Sequence[ShadowCopy], hands: Hands, reached: ExitStack) -> Trees:
    """The same for the clones of an order's copies, in their order."""
    components = [record.component for record in order.source.components]
    paths = [copy.volume.path for copy in order.source.copies]
    return trees_of(components, zip(paths, clones, strict=True), hands, reached)


def trees_at(components: Iterable[Component], roots: Sequence[tuple[str, str]]) -> Trees:
    """The same, where for each volume's path the root of its clone is known."""
    return {each.ref: {files.path: _within(files.path, roots) for files in each.files} for each in components}


def _within(path: str, roots: Sequence[tuple[str, str]]) -> str:
    """Where a recorded path lies below the clone of the innermost volume that carried it."""
    if found := mounts.innermost(path, roots, lambda root: root[0]):
        volume_path, clone = found
        return clone + path[len(volume_path.rstrip("/")) :]
    raise SlackwaterError(
        f"The replica's document names {path}, which lies on none of its volumes.",
        data="Nothing was changed.",
        code="document",
    )
