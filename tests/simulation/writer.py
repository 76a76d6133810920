# SPDX-License-Identifier: Apache-2.0
"""The writer of the simulated applications."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import SlackwaterError, VerificationError
from slackwater.journal.effects import Effect
from slackwater.model.component import Component, Handling
from slackwater.model.facts import Facts
from slackwater.model.hold import Keeper
from slackwater.writers.contract import Bridge, Clone, Probe, Question
from tests.simulation.applications import Application
from tests.simulation.world import PROCESS, now


def app_of(name: str) -> Application:
    """The application of that name."""
    return now().applications[name]


@dataclass(frozen=True, slots=True)
class Stop:
    """The application comes to its end."""

    kind: ClassVar[str] = "app.stop"
    application: str
    ran: bool
    session: str = ""

    def describe(self) -> str:
        return f"stop {self.application}"

    def make(self) -> Facts:
        now().point("app.stop:before", "plain")
        now().oracle.intended(self)
        app_of(self.application).stop()
        now().point("app.stop:after", "plain")
        return {}

    def undo(self) -> None:
        now().point("app.stop.undo:before", "plain")
        if self.ran and not app_of(self.application).start():
            raise SlackwaterError(f"{self.application} does not start: its volumes are barred.")
        now().point("app.stop.undo:after", "plain")


@dataclass(frozen=True, slots=True)
class Start:
    """The application begins on whatever lies there."""

    kind: ClassVar[str] = "app.start"
    application: str
    session: str = ""

    def describe(self) -> str:
        return f"start {self.application}"

    def make(self) -> Facts:
        now().point("app.start:before", "plain")
        now().oracle.intended(self)
        if not app_of(self.application).start():
            raise SlackwaterError(f"{self.application} does not start: its volumes are barred.")
        now().point("app.start:after", "plain")
        return {}

    def undo(self) -> None:
        now().point("app.start.undo:before", "plain")
        app_of(self.application).stop()
        now().point("app.start.undo:after", "plain")


class SimWriter:
    """Speaks for the simulated applications."""

    name: ClassVar[str] = "app"
    effects: ClassVar[tuple[type[Effect], ...]] = (Stop, Start)
    answers: ClassVar[bool] = False

    def __init__(self, handling: Mapping[str, Handling] | None = None) -> None:
        del handling

    def identify(self) -> Sequence[Component]:
        now().point("writer.identify:before", "any")
        return [each.component() for each in now().applications.values()]

    def find(self, name: str) -> Component | None:
        return None

    def processes(self, component: Component) -> frozenset[int]:
        app = app_of(component.ref.name)
        return frozenset({app.pid}) if app.running else frozenset()

    # -- backup ------------------------------------------------------------------------------------------------------

    def prepare(self, component: Component) -> Facts:
        PROCESS.get().failed.discard(component.ref.name)  # what failed in another attempt is forgotten
        with _failing(component):
            now().point("writer.prepare:before", "any")
            facts = {"last": str(_mark(component))}
            now().point("writer.prepare:after", "any")
        return facts

    def freeze(self, component: Component) -> None:
        app, process = app_of(component.ref.name), PROCESS.get()
        process.asked[app.name] += 1
        with _failing(component):
            now().point("writer.freeze:before", "any")
            _mark(component)
            app.rested_by.add(process.identity)
            now().point("writer.freeze:after", "any")

    def thaw(self, component: Component) -> None:
        app, process = app_of(component.ref.name), PROCESS.get()
        process.asked[app.name] = 0
        now().point("writer.thaw:before", "any")
        app.rested_by.discard(process.identity)
        now().point("writer.thaw:after", "any")

    def keeper(self, component: Component) -> Keeper:
        return Keeper(("keeper", component.ref.name))

    def bridge(self, component: Component, session: str) -> AbstractContextManager[Bridge]:
        raise NotImplementedError

    def complete(self, component: Component, *, good: bool) -> None:
        """Nothing to learn."""

    # -- recovery ----------------------------------------------------------------------------------------------------

    def rewrite(
        self, component: Component, trees: Mapping[str, str], expected: Facts, known: Sequence[Facts], session: str
    ) -> Facts:
        now().point("writer.rewrite:before", "plain")
        return {"timeline": str(max((int(str(each.get("timeline", 0))) for each in known), default=0) + 1)}

    def stop_effect(self, component: Component) -> Effect | None:
        return Stop(component.ref.name, component.running)

    def start_effect(self, component: Component) -> Effect | None:
        return Start(component.ref.name)

    def confirm(self, component: Component, expected: Facts, *, timeout_s: float) -> Facts:
        app = app_of(component.ref.name)
        now().point("writer.confirm:before", "any")
        if not app.running:
            raise SlackwaterError(f"{app.name} is gone again.")
        reached = max(app.lineage, default=0)
        if reached < int(str(expected.get("last", 0))):
            raise SlackwaterError(f"{app.name} reached {reached}, short of {expected['last']}.")
        now().point("writer.confirm:after", "any")
        return {"last": str(reached)}

    def settle_effect(self, component: Component) -> Effect | None:
        return None

    def probe(self, component: Component) -> AbstractContextManager[Probe]:
        raise SlackwaterError("Nobody can be its client.")

    # -- proof -------------------------------------------------------------------------------------------------------

    def start_clone(self, clone: Clone, expected: Facts, *, timeout_s: float) -> Facts:
        now().point("writer.start_clone:before", "plain")
        reached = max(_content(clone), default=0)
        if reached < int(str(expected.get("last", 0))):
            raise VerificationError(f"The clone reached {reached}, short of {expected['last']}.")
        now().point("writer.start_clone:after", "plain")
        return {"last": str(reached)}

    def check_clone(self, clone: Clone, question: Question | None) -> Facts:
        now().point("writer.check_clone:before", "plain")
        return {"read": f"{len(_content(clone))} writes"}

    def stop_clone(self, clone: Clone) -> None:
        """It has no process."""


def _content(clone: Clone) -> list[int]:
    found: list[int] = []
    for root in clone.trees.values():
        _, _, filesystem, session, name = root.split("/")[:5]
        found += now().storage.required(filesystem, session).trees[name].content
    return sorted(found)


def _mark(component: Component) -> int:
    """Remember, for the oracle, what had been acknowledged by now."""
    app = app_of(component.ref.name)
    # One that is stopped has not seen what a recovery has put there since.
    there = app.lineage if app.running or app.image not in app.states else app.image
    found = PROCESS.get().marks[app.name] = max(there, default=0)
    return found


class _failing:  # noqa: N801  # used as a context
    """Remember, for the oracle, that a writer failed."""

    def __init__(self, component: Component) -> None:
        self._name = component.ref.name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            PROCESS.get().failed.add(self._name)
