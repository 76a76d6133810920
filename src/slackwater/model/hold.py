# SPDX-License-Identifier: Apache-2.0
"""What keeps an application still at the instant of a snapshot, and what its replica may promise for it."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Consistency(StrEnum):
    """What a replica promises."""

    APPLICATION = "application"
    """The writer's stated need is met by the plan's argument, and every event succeeded."""
    CRASH = "crash"
    """The image is that of a power cut, and the writer did not say that this is enough, or failed."""


def lowest(promises: Collection[Consistency]) -> Consistency:
    """What a set promises whose parts promise this."""
    return Consistency.CRASH if Consistency.CRASH in promises else Consistency.APPLICATION


class Hold(StrEnum):
    """What keeps the application from writing while the instant is made."""

    ATOMIC = "atomic"
    """Nothing: one commit covers all files, and the application survives a power cut."""
    COLD = "cold"
    """Nothing: the application is stopped."""
    STILL = "still"
    """Nothing: no file changed from the first copy to the last, which is proven afterwards."""
    LOG_BRIDGE = "log-bridge"
    """Nothing: the application's log, copied last, closes the gap between the copies."""
    APPLICATION_LOCK = "application-lock"
    """The application's own lock, kept by a process that the guard ends at the deadline."""
    FILESYSTEM_FREEZE = "filesystem-freeze"
    """Nothing is written to the filesystems of its files."""
    PROCESS_FREEZE = "process-freeze"
    """Every process of the application stands still in a frozen cgroup."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """The program that keeps one application's lock; it speaks as `writers.contract.Writer.keeper` says."""

    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    """The command, by its absolute path, that frees the application when the keeper was killed; empty for a lock that
    ends with the process which holds it. It may run more than once.
    """
