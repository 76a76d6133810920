# SPDX-License-Identifier: Apache-2.0
"""The smallest writer there can be: a process that sleeps, a folder, and a lock on a file in it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import SlackwaterError
from slackwater.journal.effects import Effect
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet, Handling
from slackwater.model.facts import Facts
from slackwater.model.hold import Hold, Keeper
from slackwater.system.processes import alive, identity, pid_of
from slackwater.writers.contract import Bridge, Clone, Probe, Question

KEEPER = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
print("ready", flush=True)
for line in sys.stdin:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if line == "hold\\n" else fcntl.LOCK_UN)
        print("held" if line == "hold\\n" else "released", flush=True)
    except OSError as e:
        print("busy", e, flush=True)
"""


def process_of(folder: str) -> int | None:
    """The sleeper of a folder."""
    try:
        with open(f"{folder}/process", encoding="ascii") as f:
            found = f.read()
    except OSError:
        return None
    return pid_of(found) if alive(found) else None


def start(folder: str) -> None:
    """Start it, if it does not run."""
    if process_of(folder) is None:
        child = subprocess.Popen(["setsid", "--fork", "sh", "-c", "echo $$ > pid; exec sleep 1000"], cwd=folder)
        child.wait()
        ends_s = time.monotonic() + 10
        while time.monotonic() < ends_s:
            with suppress(OSError, ValueError, ProcessLookupError), open(f"{folder}/pid", encoding="ascii") as f:
                found = identity(int(f.read()))
                os.unlink(f"{folder}/pid")
                with open(f"{folder}/process", "w", encoding="ascii") as out:
                    out.write(found)
                return
            time.sleep(0.01)


def stop(folder: str) -> None:
    """Stop it, if it runs."""
    while (pid := process_of(folder)) is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class StopSample:
    kind: ClassVar[str] = "sample.stop"
    folder: str
    ran: bool

    def describe(self) -> str:
        return f"stop {self.folder}"

    def make(self) -> Facts:
        stop(self.folder)
        return {}

    def undo(self) -> None:
        if self.ran:
            start(self.folder)


@dataclass(frozen=True, slots=True)
class StartSample:
    kind: ClassVar[str] = "sample.start"
    folder: str

    def describe(self) -> str:
        return f"start {self.folder}"

    def make(self) -> Facts:
        start(self.folder)
        return {}

    def undo(self) -> None:
        stop(self.folder)


class SampleWriter:
    name: ClassVar[str] = "sample"
    effects: ClassVar[tuple[type[Effect], ...]] = (StopSample, StartSample)
    answers: ClassVar[bool] = False

    def __init__(self, handling: Mapping[str, Handling] | None = None) -> None:
        pass

    def identify(self) -> Sequence[Component]:
        return []

    def find(self, name: str) -> Component | None:
        if not os.path.exists(f"{name}/process"):
            return None
        pid = process_of(name)
        return Component(
            ComponentRef(self.name, name), "a sleeper", running=pid is not None, files=(FileSet(FileRole.DATA, name),),
            survives_power_cut=True, offers=(Hold.APPLICATION_LOCK,), main_pid=pid, facts={"folder": name},
        )  # fmt: skip

    def processes(self, component: Component) -> frozenset[int]:
        pid = process_of(component.ref.name)
        return frozenset() if pid is None else frozenset({pid})

    def prepare(self, component: Component) -> Facts:
        return {"position": 1}

    def freeze(self, component: Component) -> None:
        pass

    def thaw(self, component: Component) -> None:
        pass

    def keeper(self, component: Component) -> Keeper:
        return Keeper((sys.executable, "-I", "-S", "-c", KEEPER, f"{component.ref.name}/lock"))

    def bridge(self, component: Component, session: str) -> AbstractContextManager[Bridge]:
        raise NotImplementedError

    def complete(self, component: Component, *, good: bool) -> None:
        pass

    def rewrite(
        self, component: Component, trees: Mapping[str, str], expected: Facts, known: Sequence[Facts], session: str
    ) -> Facts:
        return {}

    def stop_effect(self, component: Component) -> Effect | None:
        return StopSample(component.ref.name, component.running)

    def start_effect(self, component: Component) -> Effect | None:
        return StartSample(component.ref.name)

    def confirm(self, component: Component, expected: Facts, *, timeout_s: float) -> Facts:
        if process_of(component.ref.name) is None:
            raise SlackwaterError("It does not run.")
        return {"position": 1}

    def settle_effect(self, component: Component) -> Effect | None:
        return None

    def probe(self, component: Component) -> AbstractContextManager[Probe]:
        raise SlackwaterError(f"{component.ref} answers no client.", code="no-client")

    def start_clone(self, clone: Clone, expected: Facts, *, timeout_s: float) -> Facts:
        return {}

    def check_clone(self, clone: Clone, question: Question | None) -> Facts:
        return {}

    def stop_clone(self, clone: Clone) -> None:
        pass
