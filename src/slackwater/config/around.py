# SPDX-License-Identifier: Apache-2.0
"""What is run and stopped around a backup and a recovery: hooks, and the services that live on an application."""

from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr, model_validator

from slackwater.config.tables import Duration, Table
from slackwater.model.hooks import Hook, Hooks
from slackwater.model.quantities import format_duration

_LONGEST_S = 3600.0


def _command(command: tuple[str, ...]) -> tuple[str, ...]:
    if command and not command[0].startswith("/"):
        raise ValueError(f'"{command[0]}" must be an absolute path; no shell looks for it')
    return command


def _some_time(seconds: float) -> float:
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError(f"must be above 0 and at most {format_duration(_LONGEST_S)}")
    return seconds


class HookEntry(Table):
    """A command that is run around something, and killed after its time. A list alone is the command."""

    command: Annotated[tuple[StrictStr, ...], AfterValidator(_command)] = Field(min_length=1)
    timeout: Annotated[Duration, AfterValidator(_some_time)] = Field(default="60s", validate_default=True)


def _hook(value: object) -> object:
    return {"command": value} if isinstance(value, list) else value


HookCommand = Annotated[HookEntry, BeforeValidator(_hook)]


class HookOptions(Table):
    """Commands around the hold of a backup, and around the stop of a recovery."""

    pre_freeze: HookCommand | None = Field(default=None, description="right before the window of a backup")
    post_thaw: HookCommand | None = Field(default=None, description="right after it, whatever happened")
    pre_stop: HookCommand | None = Field(default=None, description="before a recovery stops the application")
    post_start: HookCommand | None = Field(default=None, description="when it is back, whatever happened")

    @property
    def around(self) -> Hooks:
        """The hooks as values."""
        given = {name: entry for name in type(self).model_fields if (entry := getattr(self, name))}
        return Hooks(**{name: Hook(entry.command, entry.timeout) for name, entry in given.items()})


class ServiceEntry(Table):
    """What stops before the application and starts after it."""

    unit: StrictStr = ""
    container: StrictStr = ""
    stop: Annotated[tuple[StrictStr, ...], AfterValidator(_command)] = ()
    start: Annotated[tuple[StrictStr, ...], AfterValidator(_command)] = ()
    timeout: Annotated[Duration, AfterValidator(_some_time)] = Field(default="60s", validate_default=True)

    @model_validator(mode="after")
    def _in_one_way(self) -> Self:
        if bool(self.stop) != bool(self.start):
            raise ValueError("stop and start belong together")
        if len([each for each in (self.unit, self.container, self.stop) if each]) != 1:
            raise ValueError("needs a unit, a container, or stop and start, and one of them only")
        if any(each.startswith("-") for each in (self.unit, self.container)):
            raise ValueError("no name begins with a dash")
        if unfit := set(self.unit + self.container) & set("*?[/"):
            # systemctl(1) takes patterns, and paths for names: what stops is one service, the one that is named.
            raise ValueError(f'"{min(unfit)}" is in no name of a unit or a container; patterns and paths are not taken')
        return self
