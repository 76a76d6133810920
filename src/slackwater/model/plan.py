# SPDX-License-Identifier: Apache-2.0
"""The plan of a backup: which hold makes this set consistent, and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from slackwater.model.component import Component, ComponentRef, FileSet
from slackwater.model.facts import Finding, Severity
from slackwater.model.hold import Consistency, Hold
from slackwater.model.hooks import NO_HOOKS, Hooks
from slackwater.model.storage import Filesystem, Take, Volume


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an application may be kept waiting."""

    freeze_s: float = 60.0
    """From the first freeze to the last thaw."""
    hold_s: float = 10.0
    """Writes held."""


@dataclass(frozen=True, slots=True)
class LogKeeping:
    """A log that is kept from the newest replica of a specification on."""

    specification: str
    max_bytes: int
    """The application never keeps more for it."""
    owner: str = ""
    """The installation's id."""
    archive: str | None = None
    """An archive keeps it that is asked in this way (see `LogSource`); None where the application does."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What a specification says about the plan."""

    configuration_check: str = "strict"
    """`strict` (nothing foreign on the volumes), `non-strict` (foreign files are tolerated, folders are not) or
    `disabled` (foreign things are named)."""
    limits: Limits = Limits()
    hold: Hold | None = None
    """The only hold that is wanted; None for the cheapest."""
    stop: bool = False
    """With `hold` cold: who runs is stopped for the copies."""
    providers: Mapping[ComponentRef, str] = field(default_factory=dict)
    """The provider that is wanted for a component; without one the best that can."""
    hooks: Hooks = NO_HOOKS
    """Commands to run around the hold."""
    to: str = ""
    """Where the set is copied to after the thaw: the mount point of another filesystem; empty to keep snapshots."""
    log: LogKeeping | None = None
    """How the application's log is kept for a later recovery; None for not at all."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One group of files: where it lies, who makes its instant, and what that guarantees."""

    component: ComponentRef
    files: FileSet
    volume: Volume
    stage: int
    guarantee: str


@dataclass(frozen=True, slots=True)
class Holding:
    """How one component is kept still, what its replica promises, and why."""

    component: ComponentRef
    hold: Hold
    consistency: Consistency
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a backup is about to do, with the argument for it. Made without a lock and without a write."""

    components: tuple[Component, ...]
    volumes: tuple[Volume, ...]
    """Those of one provider follow each other."""
    placements: tuple[Placement, ...]
    holdings: tuple[Holding, ...]
    """One for each component, in their order."""
    stages: tuple[tuple[Take, ...], ...]
    """What is committed together, in order; between two of them a bridged log is closed."""
    hold: Hold
    """What costs the application most, of all holdings."""
    reason: str
    consistency: Consistency
    limits: Limits
    findings: tuple[Finding, ...] = ()
    hooks: Hooks = NO_HOOKS
    """Commands to run around the hold."""
    to: str = ""
    """Where the set is copied to after the thaw; empty to keep snapshots."""
    filesystems: tuple[Filesystem, ...] = ()
    """What is frozen itself, in this order."""
    log: LogKeeping | None = None
    """How the application's log is kept; None for not at all."""

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """Why it must not be carried out; empty when it may."""
        return tuple(f for f in self.findings if f.severity is Severity.REFUSAL)

    def held_by(self, hold: Hold) -> tuple[Component, ...]:
        """The components that are kept still in this way."""
        refs = {each.component for each in self.holdings if each.hold is hold}
        return tuple(each for each in self.components if each.ref in refs)

    @property
    def survives_alone(self) -> bool:
        """Whether the copies are the image of a power cut at least, also when no writer does its part.

        What only a writer holds together (a lock, a log that is kept) is without it the image of no moment at all.
        """
        held_by_writer = (Hold.LOG_BRIDGE, Hold.APPLICATION_LOCK)
        return not any(each.hold in held_by_writer for each in self.holdings)


@dataclass(frozen=True, slots=True)
class Window:
    """How long the application was kept waiting, as the guard measured it."""

    frozen_ms: float = 0.0
    """From the order to freeze to the answer that everything moves again."""
    held_ms: float = 0.0
    """From the moment the last process stood still to the order to release."""
