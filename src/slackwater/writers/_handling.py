# SPDX-License-Identifier: Apache-2.0
"""Stopping and starting an application that has no engine to ask: by its systemd unit, or by a user's commands."""

import contextlib
import shlex
from dataclasses import dataclass, fields
from typing import Any

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component, Handling
from slackwater.model.facts import Fact, Facts
from slackwater.system import cgroups, hooks, namespaces, services
from slackwater.system.command import CommandError, run
from slackwater.system.processes import descendants
from slackwater.writers.contract import Clone

_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Application:
    """All that is needed to stop and start an application, with nothing in memory."""

    caption: str
    """The component's name."""
    unit: str = ""
    stop_command: str = ""
    start_command: str = ""

    @property
    def controlled(self) -> bool:
        """Whether anybody said how."""
        return bool(self.unit or self.stop_command)


@dataclass(frozen=True, slots=True)
class StopApplication(Application):
    """Stop an application. Undone by starting it."""

    def describe(self) -> str:
        """Say what making it does."""
        return f"stop who writes {self.caption} ({self.stop_command or f'systemctl stop {self.unit}'})"

    def make(self) -> Facts:
        """Stop it."""
        stop(self)
        return {}

    def undo(self) -> None:
        """Start it again on whatever lies in its place.

        What a killed session left running of its stop command ends first: its application may be about to go, and a
        start command would find that it runs already. systemd itself starts what is being stopped when that has ended.

        Raises:
            SlackwaterError: it did not start, or is still being stopped.
        """
        if not hooks.wait_left(_mark(self), _PATIENCE_S):
            raise SlackwaterError(
                f"{self.stop_command} still runs after {_PATIENCE_S:g} s, so {self.caption} was not started again.",
                data="Its files are as they were before the session.",
                hint="See what it waits for, or end it; then run slackwater reconcile.",
                code="still-stopping",
            )
        start(self)


@dataclass(frozen=True, slots=True)
class StartApplication(Application):
    """Start an application. Undone by stopping it."""

    def describe(self) -> str:
        """Say what making it does."""
        return f"start who writes {self.caption} ({self.start_command or f'systemctl start {self.unit}'})"

    def make(self) -> Facts:
        """Start it."""
        start(self)
        return {}

    def undo(self) -> None:
        """Stop it."""
        stop(self)


def facts_of(handling: Handling, unit: str = "") -> dict[str, Fact]:
    """What a component has to carry so that it can be stopped, started and frozen; `unit` is the one that was found."""
    return {
        "unit": handling.unit or ("" if handling.stop else unit),
        "cgroup": handling.cgroup,
        "pid_file": handling.pid_file,
        "stop_command": handling.stop,
        "start_command": handling.start,
    }


def application_fields(component: Component) -> dict[str, Any]:
    """The fields of an Application, from the facts of a component."""
    names = [each.name for each in fields(Application)]
    return {name: component.facts[name] for name in names if name in component.facts} | {"caption": str(component.ref)}


def stop(application: Application) -> None:
    """Stop it, by its own commands where there are some. Stopped already: fine, by their word.

    Raises:
        SlackwaterError: it could not be stopped.
    """
    if application.stop_command:
        # A shell in between would be named in the complaint.
        done = run(
            *hooks.marked(shlex.split(application.stop_command)),
            timeout_s=_PATIENCE_S, check=False, fold_output=True, own_session=True, environment=_mark(application),
        )  # fmt: skip
        if done.status:
            said = f" and said: {done.complaint[-600:]}" if done.complaint else ""
            raise CommandError(f"{application.stop_command} failed with status {done.status}{said}")
    elif application.unit:
        services.stop(application.unit, timeout_s=_PATIENCE_S)


def start(application: Application) -> None:
    """Start it. Runs already: fine, by the word of its commands.

    Raises:
        SlackwaterError: it did not start.
    """
    if application.start_command:
        # What it starts outlives us, and must not end with a unit of ours.
        words = (*services.own_scope(), *shlex.split(application.start_command))
        run(*words, timeout_s=_PATIENCE_S, fold_output=True, own_session=True)
    elif application.unit:
        services.start(application.unit, timeout_s=_PATIENCE_S)


def _mark(application: Application) -> dict[str, str]:
    """The environment of its stop command, by which that is known again."""
    return {"SLACKWATER_STOPS": f"{application.caption}: {application.stop_command}"}


def way_in(clone: Clone, *words: str) -> dict[str, str]:
    """How people reach a clone that no engine runs on: a command where it is enclosed, else its path.

    Never a path through /proc: SQLite, for one, follows the links of a path by itself and would open the original.
    """
    if clone.enclosure:
        return {"command": shlex.join((*namespaces.inside(clone.enclosure), *words))}
    return {"path": next(iter(clone.trees.values()))}


def members(component: Component) -> frozenset[int]:
    """Every process of the unit, cgroup or pid file that the specification names; empty where it names none."""
    folders = [str(component.facts.get("cgroup") or "")]
    if unit := str(component.facts.get("unit") or ""):
        with contextlib.suppress(SlackwaterError):
            path = services.cgroup_of(unit).rstrip("/")  # a unit that does not run has none
            folders.append(cgroups.root() + path if path else "")
    found = frozenset().union(*(cgroups.members(each) for each in folders if each))
    return found | _family(str(component.facts.get("pid_file") or ""))


def _family(pid_file: str) -> frozenset[int]:
    """The process that a file names, and all that stem from it."""
    with contextlib.suppress(OSError, ValueError), open(pid_file, encoding="ascii") as f:
        return descendants(int(f.read()))
    return frozenset()
