# SPDX-License-Identifier: Apache-2.0
"""The file that describes an exercise: its applications, its volumes, and what shall go wrong.

Whoever may write it decides what happens to backups, so it is read only where nobody but root and we could have.
Everything an exercise makes lies in its folder.
"""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

from slackwater.errors import RefusedError, UsageError
from slackwater.model.hold import Consistency, Hold
from slackwater.model.storage import CommitForm
from slackwater.system.hooks import written_by_others

VARIABLE = "SLACKWATER_EXERCISE"
LOG = "exercise.jsonl"
_STATE = ".exercise"
_STRICT: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Application:
    """A component of the writer `test`, and what it says of itself."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    name: str
    directory: str
    """In the folder."""
    running: bool = True
    """Whether it runs until it is stopped."""
    survives_power_cut: bool = True
    log: str = ""
    """The directory below its own that holds its log; needed for a log bridge."""
    offers: tuple[Literal[Hold.APPLICATION_LOCK, Hold.COLD, Hold.LOG_BRIDGE], ...] = ()
    best: Consistency = Consistency.APPLICATION
    pid_file: str = ""
    """With the number of its first process; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A volume of the provider `test`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    directory: str
    """In the folder."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What the provider `test` says that it can do, true or not."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    commit_form: CommitForm = CommitForm.SYSTEM_CALL
    instant_over: Literal["file", "volume", "host"] = "file"
    reads_through_filesystem: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at an event."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    at: str
    do: Literal["fail", "hang", "lie", "die", "delay"]
    component: str = ""
    """The only one concerned; empty for all."""
    volume: str = ""
    """The directory of the only one concerned; empty for all."""
    times: int = 0
    """How often; 0 for every time."""
    seconds: float = 0.0
    """How long a hang or a delay lasts; 0 for ever."""
    kind: str = ""
    """Of failures: the code of an error (`busy`), `defect` or `system`. Of lies: `invent`."""
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Exercise:
    """An exercise as its file says it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    folder: str
    component: tuple[Application, ...] = ()
    volume: tuple[Directory, ...] = ()
    provider: Claims = Claims()
    fault: tuple[Fault, ...] = ()

    def path(self, directory: str) -> str:
        """Where a directory of the exercise lies."""
        return os.path.join(self.folder, directory)

    @property
    def log(self) -> str:
        """The file in which every fault is written down before it acts."""
        return self.path(LOG)

    def state(self, name: str) -> str:
        """A file in which the writer remembers something; its folder is made."""
        os.makedirs(self.path(_STATE), mode=0o700, exist_ok=True)
        return os.path.join(self.path(_STATE), name.replace("/", "_"))


def named() -> str:
    """The file that the environment names; empty for no exercise."""
    return os.environ.get(VARIABLE, "")


def current() -> Exercise | None:
    """The exercise that is on; None without one, which is how it is everywhere but in an exercise.

    Raises:
        RefusedError: others could have written the file, or what it names lies elsewhere than in its folder.
        UsageError: it cannot be read.
    """
    path = named()
    if not path:
        return None
    try:
        status = os.stat(path)
    except OSError as e:
        raise UsageError(
            f"{VARIABLE} names {path}, which cannot be read: {e.strerror}.", hint=f"unset {VARIABLE}"
        ) from e
    return _read(os.path.abspath(path), status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=4)
def _read(path: str, _changed_ns: int, _inode: int) -> Exercise:
    from pydantic import TypeAdapter, ValidationError

    _refuse(path)
    try:
        with open(path, "rb") as f:
            found = TypeAdapter(Exercise).validate_python(tomllib.load(f))
    except (OSError, ValueError) as e:
        first = e.errors()[0] if isinstance(e, ValidationError) else None
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(e)
        raise UsageError(
            f"The exercise {path} cannot be understood: {why}.",
            data="Nothing was changed.",
            hint="docs/reference/exercise.md says what it may hold.",
        ) from e
    _refuse(found.folder)
    for reason in _outside(found):
        raise RefusedError(f"The exercise {path} is refused: {reason}.", data="Nothing was changed.", code="exercise")
    return found


def _refuse(path: str) -> None:
    if why := written_by_others(path, {0, os.geteuid()}, sticky=True):
        raise RefusedError(
            f"The exercise at {path} is refused: {why}.",
            data="Nothing was changed.",
            hint="It decides what happens to backups: let it and all folders above belong to root or to you alone.",
            code="exercise",
        )


def _outside(found: Exercise) -> Sequence[str]:
    """What names a place that is not the exercise's own."""
    folder = found.folder
    if os.path.realpath(folder) != folder or not os.path.isdir(folder):
        return [f"its folder {folder} is no directory, or is reached by a link"]
    if os.stat(folder).st_dev != os.stat(os.path.dirname(folder)).st_dev:
        return [f"its folder {folder} is the top of a filesystem, and has to lie below it"]
    directories = [each.directory for each in found.component] + [each.directory for each in found.volume]
    paths = [found.path(each) for each in directories]
    return [f"{path} does not lie in {folder}" for path in paths if not _is_in(path, folder)]


def _is_in(path: str, folder: str) -> bool:
    return os.path.realpath(path) == path and path.startswith(f"{folder}/")
