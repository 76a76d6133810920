# SPDX-License-Identifier: Apache-2.0
"""The plan of a backup: which hold makes this set consistent, and why."""

from dataclasses import dataclass
from enum import StrEnum

from slackwater.model.component import Component, ComponentRef, FileSet
from slackwater.model.facts import Finding, Severity
from slackwater.model.storage import Volume


class Consistency(StrEnum):
    """What a replica promises."""

    APPLICATION = "application"
    """The writer's stated need is met by the plan's argument, and every event succeeded."""
    CRASH = "crash"
    """The image is that of a power cut, and the writer did not say that this is enough, or failed."""


class Hold(StrEnum):
    """What keeps the application from writing while the instant is made."""

    ATOMIC = "atomic"
    """Nothing: one commit covers all files, and the application survives a power cut."""
    COLD = "cold"
    """Nothing: the application is stopped."""
    PROCESS_FREEZE = "process-freeze"
    """Every process of the application stands still in a frozen cgroup."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an application may be kept waiting."""

    freeze_s: float = 60.0
    """From the first freeze to the last thaw."""
    hold_s: float = 10.0
    """Writes held."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One group of files: where it lies, who makes its instant, and what that guarantees."""

    component: ComponentRef
    files: FileSet
    volume: Volume
    stage: int
    guarantee: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a backup is about to do, with the argument for it. Made without a lock and without a write."""

    components: tuple[Component, ...]
    volumes: tuple[Volume, ...]
    placements: tuple[Placement, ...]
    hold: Hold
    reason: str
    consistency: Consistency
    limits: Limits
    findings: tuple[Finding, ...] = ()

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """Why it must not be carried out; empty when it may."""
        return tuple(f for f in self.findings if f.severity is Severity.REFUSAL)


@dataclass(frozen=True, slots=True)
class Window:
    """How long the application was kept waiting, as the guard measured it."""

    frozen_ms: float = 0.0
    """From the order to freeze to the answer that everything moves again."""
    held_ms: float = 0.0
    """From the moment the last process stood still to the order to release."""
