# SPDX-License-Identifier: Apache-2.0
"""The writer `test`: applications of an exercise, each a directory of files, that fail, hang, lie or die as it says.

Without an exercise it is silent: it finds nothing, and refuses to touch what one has made.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import SlackwaterError, VerificationError
from slackwater.exercise.file import Application, Exercise, current
from slackwater.exercise.lies import INVENTED
from slackwater.exercise.weave import Room
from slackwater.journal.effects import Effect
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet, Handling
from slackwater.model.facts import Facts
from slackwater.model.hold import Keeper
from slackwater.writers._handling import members, way_in
from slackwater.writers.contract import Bridge, Clone, Probe, Question, Writer

ROOM = Room(
    "writer", [Writer], within={"bridge": ("writer.bridge", Bridge), "probe": ("writer.probe.ask", Probe)},
    silent={"identify": (), "find": None},
    own_lies={"writer.stop": lambda _: dict(INVENTED), "writer.start": lambda _: dict(INVENTED)},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop an application: note that it does not run."""

    kind: ClassVar[str] = "exercise.stop"
    name: str
    ran: bool

    def describe(self) -> str:
        """Say what making it does."""
        return f"stop the application {self.name} of the exercise"

    def make(self) -> Facts:
        """Note it."""
        _note(self.name, running=False)
        return {}

    def undo(self) -> None:
        """Let it run again, if it ran."""
        if self.ran:
            _note(self.name, running=True)


@dataclass(frozen=True, slots=True)
class Start:
    """Start an application."""

    kind: ClassVar[str] = "exercise.start"
    name: str

    def describe(self) -> str:
        """Say what making it does."""
        return f"start the application {self.name} of the exercise"

    def make(self) -> Facts:
        """Note that it runs."""
        _note(self.name, running=True)
        return {}

    def undo(self) -> None:
        """Note that it does not."""
        _note(self.name, running=False)


class _Applications:
    """Speaks for the applications of the exercise that is on."""

    def identify(self) -> Sequence[Component]:
        """Those of the file."""
        exercise = current()
        return [_component(exercise, each) for each in exercise.component] if exercise else []

    def find(self, name: str) -> Component | None:
        """None: `identify` finds all there are."""
        return None

    def processes(self, component: Component) -> frozenset[int]:
        """Those of the pid file."""
        return members(component) if component.facts.get("pid_file") else frozenset()

    def prepare(self, component: Component) -> Facts:
        """Say that it stands at the first position."""
        return {"position": 1}

    def freeze(self, component: Component) -> None:
        """Nothing."""

    def thaw(self, component: Component) -> None:
        """Nothing."""

    def keeper(self, component: Component) -> Keeper:
        """The program that keeps its lock, which is that of a file."""
        module = "slackwater.writers._test.keeper"
        return Keeper((sys.executable, "-I", "-B", "-m", module, component.ref.name))

    @contextmanager
    def bridge(self, component: Component, session: str) -> Iterator[Bridge]:
        """A log that is the directory it is."""
        yield _Log(component)

    def complete(self, component: Component, *, good: bool) -> None:
        """Nothing."""

    def rewrite(
        self, component: Component, trees: Mapping[str, str], expected: Facts, known: Sequence[Facts], session: str
    ) -> Facts:
        """Nothing: files are what they are."""
        return {}

    def stop_effect(self, component: Component) -> Effect | None:
        """Plan to stop it."""
        return Stop(component.ref.name, component.running)

    def start_effect(self, component: Component) -> Effect | None:
        """Plan to start it."""
        return Start(component.ref.name)

    def settle_effect(self, component: Component) -> Effect | None:
        """None: nothing was put into the files."""
        return None

    def confirm(self, component: Component, expected: Facts, *, timeout_s: float) -> Facts:
        """It runs, and its directory can be listed."""
        with _listed(component.files[0].path, SlackwaterError):
            entries = len(os.listdir(component.files[0].path))
        if not _running(component.ref.name):
            raise SlackwaterError(f"{component.ref} does not run.", code="exercise")
        return {"entries": entries, "position": expected.get("position", 1)}

    def probe(self, component: Component) -> AbstractContextManager[Probe]:
        """Be a client, who is always answered."""
        return nullcontext(_answered)

    def start_clone(self, clone: Clone, expected: Facts, *, timeout_s: float) -> Facts:
        """There is nothing to be started."""
        return way_in(clone, "ls", clone.component.files[0].path)

    def check_clone(self, clone: Clone, question: Question | None) -> Facts:
        """Every directory of it can be listed."""
        for tree in clone.trees.values():
            with _listed(tree, VerificationError):
                os.listdir(tree)
        return {"listed": f"{len(clone.trees)} directories"}

    def stop_clone(self, clone: Clone) -> None:
        """Nothing runs."""


@ROOM.plug_in
class ExerciseWriter:
    """Speaks for the applications of an exercise, with its faults."""

    name: ClassVar[str] = "test"
    effects: ClassVar[tuple[type[Effect], ...]] = ROOM.effects((Stop, Start))
    answers: ClassVar[bool] = False

    def __init__(self, handling: Mapping[str, Handling] | None = None) -> None:
        self._inner = _Applications()


class _Log:
    """A bridged log."""

    def __init__(self, component: Component) -> None:
        self._component = component

    def close(self) -> Facts:
        """Mark the end: there is one position only."""
        return {"lsn": "0/1"}

    def prove(self, trees: Mapping[str, str]) -> None:
        """The log is in the copy."""
        for files in self._component.files:
            with _listed(os.path.join(trees[files.path], files.log), SlackwaterError):
                os.listdir(os.path.join(trees[files.path], files.log))


def _component(exercise: Exercise, said: Application) -> Component:
    path = exercise.path(said.directory)
    running = said.running and _running(said.name)
    return Component(
        ref=ComponentRef(ExerciseWriter.name, said.name),
        caption=f"an application of the exercise, in {path}",
        running=running,
        files=(FileSet(FileRole.DATA, path, log=said.log),),
        survives_power_cut=said.survives_power_cut,
        offers=said.offers,
        best=said.best,
        facts={"pid_file": said.pid_file},
    )


def _mark(name: str) -> str:
    exercise = current()
    if exercise is None:
        raise SlackwaterError(
            f"No exercise is on, so there is no application {name}.", data="Nothing was changed.", code="exercise-off"
        )
    return exercise.state(f"{name}.stopped")


def _running(name: str) -> bool:
    return not os.path.exists(_mark(name))


def _note(name: str, *, running: bool) -> None:
    """Remember whether an application runs. Idempotent."""
    if running:
        with suppress(FileNotFoundError):
            os.unlink(_mark(name))
    else:
        os.close(os.open(_mark(name), os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _answered() -> None:
    """Answer."""


@contextmanager
def _listed(path: str, kind: type[SlackwaterError]) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise kind(f"{path} cannot be listed: {e.strerror}.") from e
