# SPDX-License-Identifier: Apache-2.0
"""Services that stop before an application and start after it: units, containers, or commands of the administrator's.

Whether a unit or a container runs is asked; of a pair of commands nobody but they can tell, so they always run.
"""

import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from slackwater.errors import SlackwaterError
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.service import Service
from slackwater.system import cgroups, hooks, processes, services
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.command import run

_ASKED_S = 10.0
#: Both keep the same commands: `inspect --type container`, `stop`, `start` (docker(1), podman(1)).
_RUNTIMES = ("docker", "podman")
#: How long both wait for a container before they kill it, where it does not say (docker-stop(1), podman-stop(1)).
_GRACE_S = 10.0
#: How much longer than its grace a container that is being stopped may take to be gone.
_LATE_S = 5.0
_LOOK_S = 0.5
_AT_REST = frozenset({"inactive", "failed"})


class ServiceError(SlackwaterError):
    """A service could not be asked, stopped or started."""

    code = "service"


@dataclass(frozen=True, slots=True)
class StopService:
    """Stop a service that runs. Undone by starting it again; one that did not run is left alone both times.

    What its commands did nobody but they can see, so after a crash the second may run twice, or after a first that
    never began.
    """

    kind: ClassVar[str] = "service.stop"
    caption: str
    session: str
    specification: str
    stop: tuple[str, ...]
    start: tuple[str, ...]
    timeout_s: float
    running: bool
    unit: str = ""
    container: str = ""
    grace_s: float = 0.0
    """Of a container that runs: how long its runtime waits before it kills it."""

    def describe(self) -> str:
        """Say what making it does."""
        if not self.running:
            return f"leave {self.caption} alone, which does not run"
        what = f"stop {self.caption}" if self._named else f"run {' '.join(self.stop)}"
        return f"{what}, within {self.timeout_s:g} s"

    def describe_start(self) -> str:
        """Say what undoing it does."""
        return f"start {self.caption}" if self._named else f"run {' '.join(self.start)}"

    @property
    def _named(self) -> bool:
        """Whether it is a unit or a container, and not a pair of commands."""
        return bool(self.unit or self.container)

    def make(self) -> Facts:
        """Stop it.

        Raises:
            ServiceError: it did not stop, or not in time.
        """
        if self.running:
            self._run("stop", self.stop)
            if self._runs():
                raise self._failed("stop", "runs still")
        return {}

    def undo(self) -> None:
        """Start it. What a killed session left running of its stop is ended first, and a start that did not end.

        What a start left running is the service itself, and goes on.

        Raises:
            ServiceError: it did not start, or not in time.
        """
        hooks.kill_left(self._told("stop"))
        hooks.kill_left(self._told("start"), own=True)
        if not self.running:
            return
        ran = False
        with suppress(SlackwaterError):  # who cannot be asked says why at the start
            ran = bool(self.container) and self._runs()
        if not ran or self._ends():
            self.start_again()

    def start_again(self) -> None:
        """Start it, where its stop has come to its end.

        Raises:
            ServiceError: as `undo`.
        """
        if not self.running:
            return
        if self.unit:
            # Earlier failures must not forbid this start (systemd.unit(5), StartLimitIntervalSec).
            run("systemctl", "reset-failed", "--", self.unit, timeout_s=_ASKED_S, check=False)
        self._run("start", self.start)
        if self._named and not self._runs():
            raise self._failed("start", "has said that it is started, and it does not run", self.start[0])

    def _ends(self) -> bool:
        """Watch whether a container that runs, and is to be started, ends now: for as long as its stop may take.

        Whoever asked for its stop is gone, but its runtime goes on with that, and takes no start until it is at rest.
        """
        until_s = SYSTEM_CLOCK.boot_s() + self.grace_s + _LATE_S
        while self._runs():
            if SYSTEM_CLOCK.boot_s() >= until_s:
                return False
            time.sleep(_LOOK_S)
        return True

    def _run(self, verb: str, command: tuple[str, ...]) -> None:
        if why := hooks.distrust(command[0]):
            raise self._failed(verb, f"was not run: {why}", command[0])
        words = command
        if verb == "start":
            # What a command starts outlives us, and must not end with a unit of ours.
            scope = () if self._named else services.own_scope()
            words = hooks.marked((_program(scope[0]), *scope[1:], *command) if scope else command)
        ran = hooks.run(words, self.timeout_s, self._told(verb))
        if ran.failure:
            raise self._failed(verb, f"{ran.failure}{f' and said: {ran.said}' if ran.said else ''}", command[0])

    def _runs(self) -> bool:
        if self.unit:
            return _unit_state(self.unit).running
        found = _container(self.container, self.stop[:1]) if self.container else None
        return found is not None and found.running

    def _told(self, verb: str) -> dict[str, str]:
        """The environment of its commands, by which they are known again."""
        told = {"SESSION": self.session, "SPEC": self.specification, "PHASE": verb}
        told["SERVICE"] = self.unit or self.container or " ".join(self.stop)  # no other service is called so
        return {f"SLACKWATER_{key}": value for key, value in told.items()}

    def _failed(self, verb: str, how: str, program: str = "") -> ServiceError:
        said = f"{program} {how}" if program else how
        hint = "See why, and run the recovery again." if verb == "stop" else f"Start it by hand: {' '.join(self.start)}"
        return ServiceError(
            f"{self.caption[0].upper()}{self.caption[1:]} did not {verb}: {said.rstrip('.')}.", hint=hint
        )


def plan(wanted: Sequence[Service], session: str, specification: str) -> list[StopService]:
    """One effect for each service, in order; each says whether it runs now. Reads only.

    Raises:
        ServiceError: one is not there.
    """
    return [_plan(each, session, specification) for each in wanted]


def _plan(service: Service, session: str, specification: str) -> StopService:
    def effect(
        caption: str, stop: tuple[str, ...], start: tuple[str, ...], *, running: bool, grace_s: float = 0.0
    ) -> StopService:
        return StopService(
            caption, session, specification, stop, start, service.timeout_s, running, service.unit, service.container,
            grace_s,
        )  # fmt: skip

    if service.unit:
        unit = _unit_state(service.unit)
        unit.must_come_back(service.unit)
        program = _program("systemctl")
        stop, start = (program, "stop", "--", service.unit), (program, "start", "--", service.unit)
        return effect(f"the unit {service.unit}", stop, start, running=unit.running)
    if service.container:
        found = _container(service.container, _runtimes())
        if found is None:
            raise ServiceError(
                f"There is no container {service.container} here.",
                hint="See: docker ps -a, or podman ps -a. Those of other users than root are not seen.",
            )
        found.must_come_back(service.container, service.timeout_s)
        halt, resume = (found.runtime, "stop", service.container), (found.runtime, "start", service.container)
        grace_s = found.grace_s if found.running else 0.0
        return effect(f"the container {service.container}", halt, resume, running=found.running, grace_s=grace_s)
    return effect(f"the service of {service.stop[0]}", service.stop, service.start, running=True)


def findings(wanted: Sequence[Service]) -> list[Finding]:
    """Refuse services that are not here, and commands that others than root could have written. Reads only."""
    found = []
    for each in wanted:
        try:
            planned = _plan(each, "SESSION", "")
        except SlackwaterError as e:
            found.append(Finding("service", Severity.REFUSAL, e.sentence, e.hint))
            continue
        found += [
            Finding(
                "service",
                Severity.REFUSAL,
                f"{command[0]} would be run as root for a service, but {why}.",
                "It and all folders above it have to belong to root, and nobody else may write them.",
            )
            for command in (planned.stop, planned.start)
            if (why := hooks.distrust(command[0]))
        ]
    return found


def pids(wanted: Sequence[Service]) -> frozenset[int]:
    """Every process of the units and containers that run now; of what commands stop nobody knows. Reads only."""
    found: frozenset[int] = frozenset()
    for each in wanted:
        with suppress(SlackwaterError):
            if each.unit and (path := services.cgroup_of(each.unit).rstrip("/")):
                found |= cgroups.members(cgroups.root() + path)
            elif each.container and (there := _container(each.container, _runtimes())) and there.pid:
                found |= processes.descendants(there.pid)
    return found


@dataclass(frozen=True, slots=True)
class _Unit:
    """What systemd says of a unit."""

    load: str
    """How its definition was loaded, as `loaded`, `masked`, `not-found`."""
    running: bool
    """Also while it starts, or is about to start again."""
    transient: bool
    """Its definition goes when it stops (systemd-run(1))."""

    def must_come_back(self, name: str) -> None:
        """Raise for a unit that is not here, and for one that runs and could not be started again."""
        if self.load == "not-found":
            raise ServiceError(f"There is no unit {name} here.", hint="See: systemctl list-unit-files")
        if self.running and self.transient:
            raise ServiceError(
                f"The unit {name} is transient: it is gone when it stops.",
                hint="Name what made it, or say how: stop and start.",
            )
        if self.running and self.load != "loaded":
            raise ServiceError(
                f"The unit {name} is {self.load}: it could not be started again.",
                hint=f"Put that right (systemctl unmask {name})." if self.load == "masked" else "See: systemctl status",
            )


def _unit_state(unit: str) -> _Unit:
    if not services.booted():
        raise ServiceError(
            f"The unit {unit} cannot be stopped and started: systemd does not run here.",
            hint='Say how: stop = ["…"] and start = ["…"].',
        )
    asked = ("--property=LoadState", "--property=ActiveState", "--property=Transient")
    answer = run("systemctl", "show", *asked, "--", unit, timeout_s=_ASKED_S).output
    said = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
    running = said.get("ActiveState") not in _AT_REST
    return _Unit(said.get("LoadState", ""), running, said.get("Transient") == "yes")


def _runtimes() -> tuple[str, ...]:
    found = tuple(path for name in _RUNTIMES if (path := shutil.which(name)))
    if not found:
        raise ServiceError("Neither docker nor podman is here, so no container can be stopped.", hint="Install one.")
    return found


@dataclass(frozen=True, slots=True)
class _Container:
    """What a runtime says of a container."""

    runtime: str
    running: bool
    """Also while it is about to start again: docker and podman start it until it is stopped."""
    pid: int
    """Of its first process; 0 where there is none now."""
    removed: bool
    """Whether it is removed when it stops, with its layer and its anonymous volumes (docker-run(1), --rm)."""
    grace_s: float
    """How long its runtime waits when it is stopped, before it kills it; endless where it waits for ever."""

    def must_come_back(self, name: str, timeout_s: float) -> None:
        """Raise for one that runs and could not be stopped whole, or started again."""
        if self.running and self.removed:
            raise ServiceError(
                f"The container {name} cannot be stopped and started: it is removed when it stops, with what it wrote.",
                hint="Name the unit that runs it instead, or make it without --rm.",
            )
        if self.running and self.grace_s >= timeout_s:
            raise ServiceError(
                f"The container {name} may take {self.grace_s:g} s to stop, and its timeout is {timeout_s:g} s.",
                hint="Give it a timeout that is longer.",
            )


def _container(name: str, runtimes: Sequence[str]) -> _Container | None:
    """What is known of a container by whoever runs it; None where nobody knows it."""
    for program in runtimes:
        answer = run(program, "inspect", "--type", "container", name, timeout_s=_ASKED_S, check=False)
        if answer.status == 0:
            try:
                (said,) = json.loads(answer.output)
                return _inspected(program, said)
            except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as e:
                raise ServiceError(
                    f"What {program} says of the container {name} cannot be understood: {e!r}.",
                    hint=f"See: {program} inspect {name}",
                ) from e
    return None


def _inspected(runtime: str, said: dict[str, Any]) -> _Container:
    state, grace = said["State"], said.get("Config", {}).get("StopTimeout")
    grace_s = _GRACE_S if grace is None else float(grace)
    return _Container(
        runtime,
        running=bool(state["Running"] or state.get("Restarting")),
        pid=int(state.get("Pid") or 0) if state["Running"] else 0,
        removed=bool(said["HostConfig"].get("AutoRemove")),
        grace_s=grace_s if grace_s >= 0 else math.inf,
    )


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ServiceError(f"The program {name} is not there.", hint=f"Install {name}.")
    return os.path.abspath(found)
