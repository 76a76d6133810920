# SPDX-License-Identifier: Apache-2.0
"""The writer `files`: a directory of files, `files:/srv/uploads`, of an application that nobody speaks for.

What an image must satisfy is known to the application alone. So the best that a replica promises is `crash`: the files
as a power cut would have left them, and that is a plain success. A specification that knows more can say so:

- `lock` and `unlock`: commands that keep everybody from writing for the moment of the snapshot,
- `unit`, `cgroup` or `pid_file`: the processes that write it, which are frozen for that moment,
- `stop` and `start`: commands (or a unit) by which the application is stopped, for a recovery anyway, and with
  `consistency = "application"` and none of the others also for the moment of the snapshot.

With a lock, or with `consistency = "application"`, the replica promises `application`, on the specification's word.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import SlackwaterError, VerificationError
from slackwater.journal.effects import Effect
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet, Handling
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.hold import Consistency, Hold, Keeper
from slackwater.writers._handling import (
    StartApplication,
    StopApplication,
    application_fields,
    facts_of,
    members,
    way_in,
)
from slackwater.writers.contract import Bridge, Clone, Probe, Question

_KEEPER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_files", "keeper.py")
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StopFiles(StopApplication):
    """Stop whoever writes a directory."""

    kind: ClassVar[str] = "files.stop"


@dataclass(frozen=True, slots=True)
class StartFiles(StartApplication):
    """Start whoever writes a directory."""

    kind: ClassVar[str] = "files.start"


class FilesWriter:
    """Speaks for directories."""

    name: ClassVar[str] = "files"
    effects: ClassVar[tuple[type[Effect], ...]] = (StopFiles, StartFiles)
    answers: ClassVar[bool] = False

    def __init__(self, handling: Mapping[str, Handling] | None = None) -> None:
        self._handling = dict(handling or {})

    def identify(self) -> Sequence[Component]:
        """The directories of which a specification says something; any other has to be named."""
        return [found for name in sorted(self._handling) if (found := self.find(name))]

    def find(self, name: str) -> Component | None:
        """Describe the directory of this path; links in it are followed."""
        path = os.path.realpath(name)
        if not name.startswith("/") or not os.path.isdir(path):
            return None
        said = self._handling.get(name, Handling())
        promised = said.consistency == Consistency.APPLICATION or bool(said.lock and said.consistency == "")
        return Component(
            ref=ComponentRef(self.name, name),
            caption=f"directory {path}",
            running=True,
            files=(FileSet(FileRole.DATA, path),),
            survives_power_cut=not promised,
            offers=_offers(said) if promised else (),
            can_stop=bool(said.stop or said.unit),
            best=Consistency.APPLICATION if promised else Consistency.CRASH,
            facts=facts_of(said) | {"lock": said.lock, "unlock": said.unlock},
            findings=_findings(name, said) if promised else (),
        )

    def processes(self, component: Component) -> frozenset[int]:
        """All of the unit, cgroup or pid file that the specification names; of others nothing is known."""
        return members(component)

    def prepare(self, component: Component) -> Facts:
        """Nothing."""
        return {}

    def freeze(self, component: Component) -> None:
        """Nothing: a lock has its keeper."""

    def thaw(self, component: Component) -> None:
        """Nothing."""

    def keeper(self, component: Component) -> Keeper:
        """The program that runs the specification's commands; `unlock` is also run when it was killed."""
        lock, unlock = str(component.facts["lock"]), str(component.facts["unlock"])
        words = shlex.split(unlock)
        program = shutil.which(words[0])
        if program is None:
            raise SlackwaterError(
                f"{words[0]}, which is to unlock {component.ref}, is not there.", data="Nothing was changed."
            )
        return Keeper((sys.executable, "-I", "-S", "-B", _KEEPER, lock, unlock), after=(program, *words[1:]))

    def bridge(self, component: Component, session: str) -> AbstractContextManager[Bridge]:
        """Never asked for: there is no log."""
        raise NotImplementedError

    def complete(self, component: Component, *, good: bool) -> None:
        """Nothing."""

    def rewrite(
        self, component: Component, trees: Mapping[str, str], expected: Facts, known: Sequence[Facts], session: str
    ) -> Facts:
        """Nothing: files are what they are."""
        return {}

    def stop_effect(self, component: Component) -> StopFiles | None:
        """Plan to stop the application; None where nobody said how."""
        planned = StopFiles(**application_fields(component))
        return planned if planned.controlled else None

    def start_effect(self, component: Component) -> StartFiles | None:
        """Plan to start it; None where nobody said how."""
        planned = StartFiles(**application_fields(component))
        return planned if planned.controlled else None

    def settle_effect(self, component: Component) -> None:
        """None: nothing was put into the files."""

    def confirm(self, component: Component, expected: Facts, *, timeout_s: float) -> Facts:
        """The directory is there and can be listed; nobody else knows more."""
        try:
            return {"entries": len(os.listdir(component.files[0].path))}
        except OSError as e:
            raise SlackwaterError(f"{component.ref} cannot be listed after the recovery: {e.strerror}.") from e

    def probe(self, component: Component) -> AbstractContextManager[Probe]:
        """Nobody is a client of files: who reads them does not wait.

        Raises:
            SlackwaterError: always.
        """
        raise SlackwaterError(f"{component.ref} answers no client.", data="Nothing was changed.", code="no-client")

    def start_clone(self, clone: Clone, expected: Facts, *, timeout_s: float) -> Facts:
        """There is nothing to be started."""
        return way_in(clone, "ls", clone.component.files[0].path)

    def check_clone(self, clone: Clone, question: Question | None) -> Facts:
        """Read every file from its beginning to its end; a directory is never asked a question."""
        files, size_bytes = 0, 0
        for tree in clone.trees.values():
            for folder, _, names in os.walk(tree, onerror=_unreadable):
                for name in names:
                    path = os.path.join(folder, name)
                    if os.path.isfile(path) and not os.path.islink(path):
                        files, size_bytes = files + 1, size_bytes + _read(path)
        return {"readable": f"{files} {'file' if files == 1 else 'files'}, {size_bytes} bytes"}

    def stop_clone(self, clone: Clone) -> None:
        """Nothing runs."""


def _offers(said: Handling) -> tuple[Hold, ...]:
    lock = (Hold.APPLICATION_LOCK,) if said.lock else ()
    return (*lock, Hold.COLD) if said.stop or said.unit else lock


def _findings(name: str, said: Handling) -> tuple[Finding, ...]:
    if said.lock or said.stop or said.unit or said.cgroup or said.pid_file:
        return ()
    return (
        Finding(
            "no-way",
            Severity.REFUSAL,
            f'The specification wants consistency = "application" of files:{name} and does not say how.',
            'Add lock and unlock, unit, cgroup, pid_file, or stop and start; or write consistency = "crash".',
        ),
    )


def _read(path: str) -> int:
    """Read a file; its size in bytes."""
    size_bytes = 0
    try:
        with open(path, "rb", buffering=0) as f:
            while text := f.read(_READ_BYTES):
                size_bytes += len(text)
    except OSError as e:
        _unreadable(e)
    return size_bytes


def _unreadable(error: OSError) -> None:
    raise VerificationError(
        f"{error.filename} of the copy cannot be read: {error.strerror}.", code="unreadable"
    ) from error
