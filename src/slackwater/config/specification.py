# SPDX-License-Identifier: Apache-2.0
"""A specification: what to back up, with which options. A TOML file whose stem is its name."""

import difflib
import os
import re
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, StrictInt, StrictStr, field_validator

from slackwater.config.files import read_toml
from slackwater.config.tables import AmountOfRoom, Duration, Table, check
from slackwater.errors import NotFoundError, RightsError, SlackwaterError, UsageError
from slackwater.model.component import ComponentRef, Credentials, Options
from slackwater.model.plan import Limits
from slackwater.model.quantities import format_duration

#: VSS's limits; a specification may only lower them.
_LONGEST = Limits()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _only_lowered(seconds: float, longest_s: float) -> float:
    if not 0 < seconds <= longest_s:
        raise ValueError(
            f"must be above 0 and at most {format_duration(longest_s)}; an application is not kept waiting longer"
        )
    return seconds


class ComponentEntry(Table):
    """One component, and how its writer may log in."""

    writer: StrictStr = Field(min_length=1, description="who speaks for the application")
    instance: StrictStr = Field(min_length=1, description="which one, as `slackwater discover` names it")
    user: StrictStr = Field(default="", description="role to log in as; empty: as the owner of the files, by peer")
    service: StrictStr = Field(default="", description="section of the service file to log in by; empty: none")
    password_file: StrictStr = Field(
        default="", description="file or systemd credential with the password; empty: none"
    )

    @property
    def ref(self) -> ComponentRef:
        """Its name."""
        return ComponentRef(self.writer, self.instance)

    @property
    def credentials(self) -> Credentials:
        """How its writer may log in."""
        return Credentials(self.user, self.service, self.password_file)


class ReplicaOptions(Table):
    """What is kept."""

    keep: StrictInt = Field(default=6, ge=1, description="good replicas that rotation keeps, pinned ones not counted")
    type: Literal["snapshot"] = Field(
        default="snapshot", description='the only type of this version ("full" is to come)'
    )
    min_free: AmountOfRoom = Field(
        default="10%", validate_default=True, description='refuse when less is free: "10%", "20GiB"'
    )

    @field_validator("type", mode="before")
    @classmethod
    def _not_yet(cls, value: object) -> object:
        if value == "full":
            raise ValueError('"full" replicas (copies on other storage) are not made by this version; use "snapshot"')
        return value


class BackupOptions(Table):
    """How it is backed up and recovered."""

    configuration_check: Literal["strict", "non-strict", "disabled"] = Field(
        default="strict", description='"strict", "non-strict" (differences are warnings), "disabled"'
    )
    freeze_timeout: Duration = Field(
        default="60s", validate_default=True, description="longest time from freeze to thaw; may be lowered"
    )
    hold_timeout: Duration = Field(
        default="10s", validate_default=True, description="longest time that writes are held; may be lowered"
    )
    on_writer_failure: Literal["fail", "crash"] = Field(
        default="fail", description='"fail", or "crash" to accept a crash-consistent replica'
    )

    @field_validator("freeze_timeout")
    @classmethod
    def _short_freeze(cls, seconds: float) -> float:
        return _only_lowered(seconds, _LONGEST.freeze_s)

    @field_validator("hold_timeout")
    @classmethod
    def _short_hold(cls, seconds: float) -> float:
        return _only_lowered(seconds, _LONGEST.hold_s)


class Specification(Table):
    """What to back up, with which options."""

    name: StrictStr
    component: tuple[ComponentEntry, ...] = Field(min_length=1)
    replica: ReplicaOptions = ReplicaOptions()
    options: BackupOptions = BackupOptions()

    @field_validator("component")
    @classmethod
    def _each_once(cls, entries: tuple[ComponentEntry, ...]) -> tuple[ComponentEntry, ...]:
        refs = [entry.ref for entry in entries]
        if twice := next((ref for ref in refs if refs.count(ref) > 1), None):
            raise ValueError(f"{twice} is named twice")
        return entries

    @property
    def components(self) -> tuple[ComponentRef, ...]:
        """The names of what is backed up, in the file's order."""
        return tuple(entry.ref for entry in self.component)

    @property
    def credentials(self) -> Options:
        """How the writers may log in."""
        return {entry.ref: entry.credentials for entry in self.component}

    @property
    def limits(self) -> Limits:
        """How long the applications may be kept waiting."""
        return Limits(freeze_s=self.options.freeze_timeout, hold_s=self.options.hold_timeout)


@dataclass(frozen=True, slots=True)
class Broken:
    """A file in the folder of specifications that is none, and why."""

    name: str
    path: str
    error: SlackwaterError


def load(path: str) -> Specification:
    """Read one specification.

    Raises:
        NotFoundError: no such file.
        UsageError: not TOML, an unknown key, a value that is not accepted, or a name that is not the file's stem.
        RightsError: it may not be read, or we are root and others may write it.
    """
    found = check(Specification, read_toml(path), path)
    stem = _stem(path)
    if found.name != stem:
        raise UsageError(
            f'{path}: name is "{found.name}", but the file\'s stem is "{stem}".',
            data="Nothing was changed.",
            hint=f'Write name = "{stem}", or rename the file to {found.name}.toml.',
        )
    check_name(stem)
    return found


def load_all(specs_dir: str) -> tuple[list[Specification], list[Broken]]:
    """Read every specification of a folder, by name; what cannot be read is returned beside them, not raised.

    Raises:
        RightsError: the folder itself may not be listed.
    """
    good: list[Specification] = []
    broken: list[Broken] = []
    for name in _names(specs_dir):
        path = _path(specs_dir, name)
        try:
            good.append(load(path))
        except SlackwaterError as e:
            broken.append(Broken(name, path, e))
    return good, broken


def find(specs_dir: str, name: str) -> Specification:
    """Read the specification of that name.

    Raises:
        NotFoundError: there is none; the hint has the names that come close.
        UsageError, RightsError: as `load`.
    """
    names = _names(specs_dir)
    if name in names:
        return load(_path(specs_dir, name))
    if close := difflib.get_close_matches(name, names, n=3):
        hint = f"Did you mean {' or '.join(close)}?"
    elif names:
        hint = "`slackwater spec list` shows those there are."
    else:
        hint = f"Make one: slackwater spec create {name or 'NAME'} WRITER:COMPONENT"
    raise NotFoundError(f"There is no specification {name!r} in {specs_dir}.", data="Nothing was changed.", hint=hint)


def implicit(ref: ComponentRef) -> Specification:
    """The specification of a backup without one: one component, the defaults, named as the component."""
    return Specification(name=str(ref), component=(ComponentEntry(writer=ref.writer, instance=ref.name),))


def check_name(name: str) -> None:
    """Refuse what cannot name a specification.

    Raises:
        UsageError: not 1 to 64 letters, digits, dots, dashes and underscores, or `latest`, which means a replica.
    """
    if name == "latest" or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a specification.",
            data="Nothing was changed.",
            hint="Use 1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first; not `latest`.",
        )


def _names(specs_dir: str) -> list[str]:
    try:
        entries = os.listdir(specs_dir)
    except FileNotFoundError:
        return []
    except PermissionError as e:
        raise RightsError(f"{specs_dir} may not be read.", data="Nothing was changed.", hint="Run this as root.") from e
    except OSError as e:
        raise SlackwaterError(f"{specs_dir} cannot be read: {e.strerror}.", data="Nothing was changed.") from e
    return sorted(_stem(entry) for entry in entries if entry.endswith(".toml") and not entry.startswith("."))


def _path(specs_dir: str, name: str) -> str:
    return os.path.join(specs_dir, f"{name}.toml")


def _stem(path: str) -> str:
    return os.path.basename(path).removesuffix(".toml")
