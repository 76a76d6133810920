# SPDX-License-Identifier: Apache-2.0
"""A specification: what to back up, with which options. A TOML file whose stem is its name."""

import difflib
import os
import re
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, StrictInt, StrictStr, field_validator, model_validator

from slackwater.config.around import HookOptions, ServiceEntry
from slackwater.config.files import read_toml
from slackwater.config.retention import KeepRules
from slackwater.config.tables import AmountOfRoom, Duration, Table, check
from slackwater.errors import NotFoundError, RightsError, SlackwaterError, UsageError
from slackwater.model.component import ComponentRef, Credentials, Handling, Options
from slackwater.model.hold import Hold
from slackwater.model.plan import Limits, LogKeeping, PlanOptions
from slackwater.model.quantities import Amount, Bytes, format_duration
from slackwater.model.service import Service

#: VSS's limits; a specification may only lower them.
_LONGEST = Limits()
#: What is said instead of the name of a hold.
_WISHES: dict[str, Hold | None] = {"auto": None, "stop": Hold.COLD}
_LONGEST_RETRY_S = 3600.0
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
    provider: StrictStr = Field(default="", description="who takes its snapshots; empty: the best that can")
    password_file: StrictStr = Field(
        default="", description="file or systemd credential with the password; empty: none"
    )
    consistency: Literal["", "application", "crash"] = Field(
        default="", description="what a replica shall promise; empty: what its writer can"
    )
    unit: StrictStr = Field(default="", description="systemd unit that runs the application; empty: none")
    cgroup: StrictStr = Field(default="", description="cgroup folder with its processes alone; empty: none")
    pid_file: StrictStr = Field(default="", description="file with the pid of its first process; empty: none")
    stop: StrictStr = Field(default="", description="command that stops the application; empty: none")
    start: StrictStr = Field(default="", description="command that starts it again; empty: none")
    lock: StrictStr = Field(default="", description="command that keeps everybody from writing; empty: none")
    unlock: StrictStr = Field(default="", description="command that lets them write again; may run twice")

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        for one, other in (("stop", "start"), ("lock", "unlock")):
            if bool(getattr(self, one)) != bool(getattr(self, other)):
                raise ValueError(f"{one} and {other} belong together")
        return self

    @property
    def ref(self) -> ComponentRef:
        """Its name."""
        return ComponentRef(self.writer, self.instance)

    @property
    def handling(self) -> Handling:
        """What it says to its writer."""
        return Handling(
            Credentials(self.user, self.service, self.password_file), self.consistency,
            self.unit, self.cgroup, self.pid_file, self.stop, self.start, self.lock, self.unlock,
        )  # fmt: skip


class ReplicaOptions(Table):
    """What is kept."""

    keep: KeepRules = Field(
        default=6, validate_default=True, description='good ones that rotation keeps: 6, or "24h 14d 8w 12m"'
    )
    min_redundancy: StrictInt = Field(default=1, ge=1, description="never fewer good ones than that")
    type: Literal["snapshot", "full"] = Field(
        default="snapshot", description='"snapshot", or "full": whole copies on another filesystem'
    )
    to: StrictStr = Field(default="", description="where full copies go: mount point of another filesystem")
    verify: Literal["never", "always", "daily"] = Field(
        default="never", description='"always" each new one, "daily" the first of a day'
    )
    min_free: AmountOfRoom = Field(
        default="10%", validate_default=True, description='refuse when less is free: "10%", "20GiB"'
    )

    @model_validator(mode="after")
    def _where_to(self) -> Self:
        if self.type == "full" and not self.to.startswith("/"):
            raise ValueError('type = "full" needs to = "/MOUNT/POINT", where the copies go')
        if self.type == "snapshot" and self.to:
            raise ValueError('to is for type = "full"; a snapshot lies beside its volume')
        return self


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
    hold: Literal[
        "auto",
        "cold",
        "stop",
        "atomic",
        "still",
        "log-bridge",
        "application-lock",
        "filesystem-freeze",
        "process-freeze",
    ] = Field(default="auto", description='"auto": the cheapest argued for; "stop": stopped meanwhile')
    on_writer_failure: Literal["fail", "crash"] = Field(
        default="fail", description='"fail", or "crash" to accept a crash-consistent replica'
    )
    retries: StrictInt = Field(
        default=0, ge=0, le=100, description="how often a backup is begun anew that failed by what may pass"
    )
    retry_after: Duration = Field(
        default="10s", validate_default=True, description="how long it waits before; others wait with it"
    )

    @field_validator("freeze_timeout")
    @classmethod
    def _short_freeze(cls, seconds: float) -> float:
        return _only_lowered(seconds, _LONGEST.freeze_s)

    @field_validator("hold_timeout")
    @classmethod
    def _short_hold(cls, seconds: float) -> float:
        return _only_lowered(seconds, _LONGEST.hold_s)

    @field_validator("retry_after")
    @classmethod
    def _some_patience(cls, seconds: float) -> float:
        if not 0 < seconds <= _LONGEST_RETRY_S:
            raise ValueError(f"must be above 0 and at most {format_duration(_LONGEST_RETRY_S)}")
        return seconds


class RecoveryOptions(Table):
    """How far a recovery can go, and for how long it can be undone."""

    logs: Literal["none", "slot", "archive"] = Field(
        default="none",
        description='"slot" keeps the log on the server, "archive" asks an archive',
    )
    archive: StrictStr = Field(
        default="",
        description="command with %f and %p, or a directory; empty: restore_command",
    )
    logs_max: AmountOfRoom = Field(
        default="20GiB", validate_default=True, description="a slot never keeps more; then it lets go of the oldest"
    )
    undo_keep: Duration = Field(
        default="7d", validate_default=True, description="how long what a recovery set aside is kept"
    )

    service: tuple[ServiceEntry, ...] = Field(default=(), description="what stops before it and starts after it")

    @property
    def services(self) -> tuple[Service, ...]:
        """The services as values."""
        return tuple(Service(each.unit, each.container, each.stop, each.start, each.timeout) for each in self.service)

    @field_validator("service")
    @classmethod
    def _each_once(cls, entries: tuple[ServiceEntry, ...]) -> tuple[ServiceEntry, ...]:
        if len(set(entries)) < len(entries):
            raise ValueError("one is named twice")
        return entries

    @field_validator("archive")
    @classmethod
    def _can_be_asked(cls, archive: str) -> str:
        command = "%f" in archive and "%p" in archive
        if archive and not command and (not archive.startswith("/") or "%" in archive or not archive.isprintable()):
            raise ValueError(f'"{archive}" is neither an absolute directory nor a command with %f and %p')
        return archive

    @model_validator(mode="after")
    def _is_asked(self) -> Self:
        if self.archive and self.logs != "archive":
            raise ValueError('archive is only asked with logs = "archive"')
        return self

    @field_validator("logs_max")
    @classmethod
    def _a_number(cls, most: Amount) -> Amount:
        if not isinstance(most, Bytes) or most.count <= 0:
            raise ValueError('must be a number of bytes, as "20GiB"')
        return most

    @property
    def asked(self) -> str | None:
        """How an archive of the log is asked, see `LogSource`; None for none."""
        return self.archive if self.logs == "archive" else None


class VerifyOptions(Table):
    """What a recovered clone is asked when a replica is verified."""

    query: StrictStr = Field(default="", description="a question to the recovered application; empty: none")
    expect: StrictStr = Field(default="", description="the answer it must give, as text")
    component: StrictStr = Field(default="", description="which is asked, WRITER:COMPONENT; empty: the first that can")
    database: StrictStr = Field(default="", description="where it is asked; empty: the engine's default")

    @model_validator(mode="after")
    def _in_pairs(self) -> Self:
        if bool(self.query) != bool(self.expect):
            raise ValueError("query and expect belong together")
        return self


class Specification(Table):
    """What to back up, with which options."""

    name: StrictStr
    component: tuple[ComponentEntry, ...] = Field(min_length=1)
    replica: ReplicaOptions = ReplicaOptions()
    options: BackupOptions = BackupOptions()
    hooks: HookOptions = HookOptions()
    verify: VerifyOptions = VerifyOptions()
    recovery: RecoveryOptions = RecoveryOptions()

    @field_validator("component")
    @classmethod
    def _each_once(cls, entries: tuple[ComponentEntry, ...]) -> tuple[ComponentEntry, ...]:
        refs = [entry.ref for entry in entries]
        if twice := next((ref for ref in refs if refs.count(ref) > 1), None):
            raise ValueError(f"{twice} is named twice")
        return entries

    @model_validator(mode="after")
    def _one_of_them_is_asked(self) -> Self:
        if self.verify.component and self.verify.component not in map(str, self.components):
            raise ValueError(f"component of [verify], {self.verify.component}, is none of this specification")
        return self

    @property
    def components(self) -> tuple[ComponentRef, ...]:
        """The names of what is backed up, in the file's order."""
        return tuple(entry.ref for entry in self.component)

    @property
    def handling(self) -> Options:
        """What it says to the writers."""
        return {entry.ref: entry.handling for entry in self.component}

    @property
    def plan_options(self) -> PlanOptions:
        """What it says about the plan."""
        return PlanOptions(
            configuration_check=self.options.configuration_check,
            limits=Limits(freeze_s=self.options.freeze_timeout, hold_s=self.options.hold_timeout),
            hold=_WISHES[self.options.hold] if self.options.hold in _WISHES else Hold(self.options.hold),
            stop=self.options.hold == "stop",
            providers={entry.ref: entry.provider for entry in self.component if entry.provider},
            hooks=self.hooks.around,
            to=self.replica.to,
            log=self._log,
        )

    @property
    def _log(self) -> LogKeeping | None:
        if self.recovery.logs == "none":
            return None
        return LogKeeping(self.name, self.recovery.logs_max.of(0), archive=self.recovery.asked)


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


def check_name(name: str, what: str = "specification") -> None:
    """Refuse what cannot name a specification, or what else bears names of that form.

    Raises:
        UsageError: not 1 to 64 letters, digits, dots, dashes and underscores, or `latest`, which means a replica.
    """
    if name == "latest" or not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a {what}.",
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
