# SPDX-License-Identifier: Apache-2.0
"""A model of the guard and of cgroups: freezes on order; thaws on order, at its deadline, or when its coordinator dies.

The real guard has tests of its own with real processes. Here it only has to behave as its contract says, under every
order of events.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

from slackwater.errors import DeadlineError, SlackwaterError
from slackwater.guard.client import Frozen, Released
from slackwater.model.facts import Facts
from slackwater.model.hold import Keeper
from slackwater.model.storage import Filesystem
from tests.simulation.applications import Application
from tests.simulation.world import PROCESS, now

#: How late a dead coordinator is noticed.
_NOTICED_S = 0.05


class SimGuard:
    """One hold; see `guard.client.Guard`."""

    def __init__(
        self, session: str, cgroups: Sequence[str], freeze_s: float, hold_s: float, keepers: Sequence[Keeper]
    ) -> None:
        self.session, self.cgroups = session, tuple(dict.fromkeys(cgroups))
        self.state, self.by, self.broken, self.dead = "armed", "", False, False
        self._freeze_s, self._hold_s = freeze_s, hold_s
        self._keepers = [now().applications[each.command[1]] for each in keepers]
        self._timers: list[asyncio.TimerHandle] = []
        self._asked_s = self._frozen_s = 0.0
        PROCESS.get().guards.append(self)

    @classmethod
    def arm(
        cls, session: str, cgroups: Sequence[str], *, freeze_s: float, hold_s: float, run_dir: str,
        keepers: Sequence[Keeper] = (), filesystems: Sequence[Filesystem] = (),
    ) -> "SimGuard":  # fmt: skip
        now().point("guard.arm:before", "plain")
        return cls(session, cgroups, freeze_s, hold_s, keepers)

    def freeze(self) -> Frozen:
        now().point("guard.freeze:before", "plain")
        self._asked_s = now().time_s()
        self.state = "frozen"
        self._at(self._freeze_s)
        for application in self._keepers:
            application.locked = True
        now().point("guard.freeze:locked")
        for cgroup in self.cgroups:
            now().frozen[cgroup] = self
        self._frozen_s = now().time_s()
        self._at(self._hold_s)
        now().oracle.held(self)
        now().point("guard.freeze:after", "plain")
        return Frozen(self._frozen_s, (self._frozen_s - self._asked_s) * 1000)

    def release(self) -> Released:
        now().point("guard.release:before", "plain")
        good = self.state == "frozen" and not self.dead
        if good:
            # A keeper proves that its lock was in force until now; one that ended with its application is lost.
            self.broken = self.broken or not all(each.locked for each in self._keepers)
            self.let_go("order")
        now().point("guard.release:after", "plain")
        if self.dead:
            self.let_go("coordinator")
            raise DeadlineError("The guard was killed.")
        if not good:
            raise DeadlineError("The deadline had passed." if self.by == "deadline" else "Nothing is held.")
        if self.broken:
            raise DeadlineError("The hold was broken.")
        ended_s = now().time_s()
        return Released((ended_s - self._frozen_s) * 1000, (ended_s - self._asked_s) * 1000)

    def close(self) -> None:
        if PROCESS.get().dead:
            return
        self.let_go("close")
        self.state = "closed"

    @property
    def applications(self) -> list[Application]:
        """Who is held by it."""
        frozen = [each for each in now().applications.values() if now().frozen.get(each.cgroup) is self]
        return [*self._keepers, *frozen]

    # -- what happens to it ------------------------------------------------------------------------------------------

    def let_go(self, by: str) -> None:
        """Thaw everything, and give the locks back. Idempotent."""
        if self.state != "frozen":
            return
        now().tell(f"guard of {self.session} lets go: {by}")
        self.state, self.by = "over", by
        for timer in self._timers:
            timer.cancel()
        for application in self._keepers:
            application.locked = False
        for cgroup in self.cgroups:
            if now().frozen.get(cgroup) is self:
                del now().frozen[cgroup]

    def vanish(self) -> None:
        """The machine is gone."""
        for timer in self._timers:
            timer.cancel()
        self.state, self.dead = "closed", True

    def die(self) -> None:
        """It is killed; its coordinator sees that, and releases in its place."""
        self.dead = True
        asyncio.get_running_loop().call_later(_NOTICED_S, self.let_go, "coordinator")

    def coordinator_died(self, *, killed: bool) -> None:
        """It sees that its coordinator is dead, or dies with it and leaves its record."""
        if self.state != "frozen":
            return
        if killed or self.dead:
            self.dead = True
            for timer in self._timers:
                timer.cancel()
            now().leftovers.append(self)
        else:
            asyncio.get_event_loop().call_later(_NOTICED_S, self.let_go, "death")

    def _at(self, after_s: float) -> None:
        self._timers.append(asyncio.get_event_loop().call_later(after_s, self._deadline))

    def _deadline(self) -> None:
        if not self.dead:
            self.let_go("deadline")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Gather:
    """Processes are moved into a cgroup of ours, and moved back."""

    kind: ClassVar[str] = "cgroup.gather"
    session: str
    application: str
    pid: int
    cgroup: str

    def describe(self) -> str:
        return f"move {self.application} to {self.cgroup}"

    def make(self) -> Facts:
        now().point("cgroup.gather:before", "plain")
        now().oracle.intended(self)
        self._move(self.cgroup)
        now().point("cgroup.gather:after", "plain")
        return {}

    def undo(self) -> None:
        now().point("cgroup.gather.undo:before", "plain")
        if self.cgroup in now().frozen:
            raise SlackwaterError(f"{self.cgroup} is frozen.")
        self._move(now().applications[self.application].home)
        now().point("cgroup.gather.undo:after", "plain")

    def _move(self, cgroup: str) -> None:
        app = now().applications[self.application]
        if app.running and app.pid == self.pid:
            now().cgroups.setdefault(app.cgroup, set()).discard(app.pid)
            now().cgroups.setdefault(cgroup, set()).add(app.pid)
            app.cgroup = cgroup


@dataclass(frozen=True, slots=True)
class Freeze:
    """Undone by thawing a cgroup; the guard freezes it."""

    kind: ClassVar[str] = "cgroup.freeze"
    session: str
    cgroup: str

    def describe(self) -> str:
        return f"freeze {self.cgroup}"

    def make(self) -> Facts:
        now().point("cgroup.freeze:before", "plain")
        return {}

    def undo(self) -> None:
        now().point("cgroup.freeze.undo:before", "plain")
        guard = now().frozen.get(self.cgroup)
        if guard is not None:
            guard.broken = True
            del now().frozen[self.cgroup]


def plan_gather(session: str, pids: frozenset[int]) -> tuple[str, tuple[Any, ...]]:
    """In place of `system.cgroups.plan_gather`."""
    found = [each for each in now().applications.values() if each.running and each.pid in pids]
    if not found:
        raise SlackwaterError("None of the application's processes is there any more.", code="process-gone")
    (app,) = found
    if app.alone:
        return app.home, (Freeze(session, app.home),)
    cgroup = f"{app.home}/slackwater.{session}.{app.pid}"
    return cgroup, (Gather(session, app.name, app.pid, cgroup), Freeze(session, cgroup))
