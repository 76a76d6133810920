# SPDX-License-Identifier: Apache-2.0
"""What commands return where no session has a result of its own for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from slackwater.errors import SlackwaterError
from slackwater.model.clone import Clone
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Finding, Severity
from slackwater.model.replica import Replica
from slackwater.model.session import Session
from slackwater.policy.retention import Decision
from slackwater.system.timers import Timer

if TYPE_CHECKING:
    from slackwater.sessions.clone import CloneShown


@dataclass(frozen=True, slots=True)
class Replicas:
    """`replica list`."""

    replicas: tuple[Replica, ...]
    retention: Mapping[str, Decision] | None = None
    """By id: what rotation would decide today, where it was asked for."""


@dataclass(frozen=True, slots=True)
class ReplicaShown:
    """`replica show`, `pin` and `unpin`."""

    replica: Replica
    said: str = ""
    """What was done to it."""
    not_noted: str = ""
    """Why a pin could not be noted beside it; empty when it was."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """`replica delete`, done or previewed."""

    replica: Replica
    session: str
    """Empty for a preview."""


@dataclass(frozen=True, slots=True)
class ExaminedProvider:
    """`provider test`."""

    provider: str
    on: tuple[str, ...]
    verdicts: tuple[tuple[str, str], ...]
    """What is demanded, and how the provider falls short of it; empty when it does not."""


@dataclass(frozen=True, slots=True)
class Examined:
    """`writer test`."""

    component: ComponentRef
    verdicts: tuple[tuple[str, str], ...]
    """What is demanded, and how the writer falls short of it; empty when it does not."""


@dataclass(frozen=True, slots=True)
class Clones:
    """`clone list`."""

    clones: "tuple[CloneShown, ...]"


@dataclass(frozen=True, slots=True)
class CloneDeleted:
    """`clone delete`."""

    clone: Clone


@dataclass(frozen=True, slots=True)
class SessionShown:
    """A session, and whether its process is gone although it has not ended."""

    session: Session
    interrupted: bool


@dataclass(frozen=True, slots=True)
class Sessions:
    """`session list`."""

    sessions: tuple[SessionShown, ...]


@dataclass(frozen=True, slots=True)
class SpecificationSummary:
    """A file in the folder of specifications."""

    name: str
    path: str
    components: tuple[ComponentRef, ...] = ()
    options: dict[str, Any] | None = None
    """Its tables as they apply, the defaults filled in."""
    text: str = ""
    error: SlackwaterError | None = None
    """Why it cannot be read."""


@dataclass(frozen=True, slots=True)
class Specifications:
    """`spec list`."""

    specifications: tuple[SpecificationSummary, ...]


@dataclass(frozen=True, slots=True)
class SpecificationCreated:
    """`spec create`."""

    specification: SpecificationSummary
    findings: tuple[Finding, ...]
    """What stands against recovering its components today."""


@dataclass(frozen=True, slots=True)
class SpecificationCheck:
    """Whether one specification can be read, and whether its backup and recovery would start today."""

    name: str
    path: str
    findings: tuple[Finding, ...] = ()
    error: SlackwaterError | None = None

    @property
    def refused(self) -> bool:
        """True when a backup or a recovery would be refused."""
        return any(each.severity is Severity.REFUSAL for each in self.findings)


@dataclass(frozen=True, slots=True)
class SpecificationChecks:
    """`spec check`."""

    checks: tuple[SpecificationCheck, ...]


@dataclass(frozen=True, slots=True)
class ScheduleChanged:
    """`schedule enable` and `disable`."""

    timer: Timer
    enabled: bool


@dataclass(frozen=True, slots=True)
class Schedules:
    """`schedule list`."""

    timers: tuple[Timer, ...]


@dataclass(frozen=True, slots=True)
class CatalogCheck:
    """`catalog check`."""

    differences: tuple[Any, ...]
    """`sessions.check.Difference`, whose import is heavy."""
    damage: tuple[str, ...]
    """What is wrong with the catalog's own file."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """`doctor --bundle`."""

    path: str
    parts: tuple[str, ...]
    """The files in it."""
    failed: tuple[str, ...]
    """What could not be read; the file in its place says why."""
    bytes: int


@dataclass(frozen=True, slots=True)
class Nagios:
    """`status --nagios`: one line, and the status that a monitor reads."""

    line: str
    status: int


class Health(StrEnum):
    """How a check of the doctor ended."""

    OK = "ok"
    NOTE = "note"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the doctor looked at."""

    name: str
    health: Health
    sentence: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`doctor`."""

    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class DemoEnded:
    """`demo`."""

    status: int
