# SPDX-License-Identifier: Apache-2.0
"""What a backup is made with on a host."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from slackwater.guard.client import Guard
from slackwater.journal.effects import Effect
from slackwater.journal.journal import Journal
from slackwater.model.component import Component
from slackwater.model.hold import Keeper
from slackwater.model.plan import Limits
from slackwater.model.storage import Filesystem, Volume
from slackwater.providers.contract import Provider
from slackwater.system.clock import Clock
from slackwater.writers.contract import Writer


@dataclass(frozen=True, slots=True)
class Parts:
    """What a backup is made with on a host."""

    writers: Mapping[str, Writer]
    providers: Mapping[str, Provider]
    journal: Journal
    clock: Clock
    gather: Callable[[str, frozenset[int]], tuple[str, tuple[Effect, ...]]]
    """(session, processes) → the cgroup to freeze, and the effects that bring them into it."""
    arm: Callable[[str, Sequence[str], Sequence[Keeper], Sequence[Filesystem], Limits], Guard]
    """(session, cgroups, keepers of locks, filesystems, limits) → a guard that is ready."""
    hooked: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """What the administrator wants done right before and right after the window."""

    def writer(self, component: Component) -> Writer:
        """The writer that speaks for a component."""
        return self.writers[component.ref.writer]

    def provider(self, volume: Volume) -> Provider:
        """The provider that snapshots a volume."""
        return self.providers[volume.provider]
