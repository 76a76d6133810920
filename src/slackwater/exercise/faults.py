# SPDX-License-Identifier: Apache-2.0
"""Bringing a fault about: written down first, so that it is counted over the end of this process, then done."""

import errno
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import NoReturn

from slackwater import errors
from slackwater.errors import SlackwaterError
from slackwater.exercise.file import Exercise, Fault
from slackwater.system.clock import SYSTEM_CLOCK

_LOG = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_LONG_S = 3600.0


def _codes() -> Mapping[str, type[SlackwaterError]]:
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SlackwaterError)]
    return {each.code: each for each in found}


#: What a fault of the kind `fail` may raise, by the code of the error.
ERRORS = _codes()
DEFECT, SYSTEM = "defect", "system"


class Defect(Exception):  # noqa: N818  # it stands for any exception that a plug-in did not mean to raise
    """What a plug-in raises that has a defect."""


def strike(exercise: Exercise, event: str, names: frozenset[str]) -> Fault | None:
    """Do what the exercise wants at an event; a fault that is returned is a lie, for the caller to tell.

    Args:
        exercise: the one that is on.
        event: as `writer.freeze`.
        names: whom it concerns: the names and paths of the components and volumes.

    Raises:
        SlackwaterError: a failure that is wanted.
        Defect, OSError: the same, as a plug-in with a defect or a kernel that refuses would.
    """
    for number, fault in enumerate(exercise.fault):
        if fault.at == event and _concerns(exercise, fault, names) and _counted(exercise, number, fault):
            if fault.do == "lie":
                return fault
            _act(fault)
    return None


def names_in(values: Iterator[object] | tuple[object, ...]) -> Iterator[str]:
    """Every text in some values, dataclasses and sequences gone through: names and paths are among them."""
    for each in values:
        if isinstance(each, str):
            yield each
        elif is_dataclass(each):
            yield from names_in(tuple(getattr(each, field.name) for field in fields(each)))
        elif isinstance(each, tuple | list):
            yield from names_in(tuple(each))


def _concerns(exercise: Exercise, fault: Fault, names: frozenset[str]) -> bool:
    if fault.component:
        return fault.component in names
    return not fault.volume or bool({exercise.path(fault.volume), fault.volume} & names)


def _counted(exercise: Exercise, number: int, fault: Fault) -> bool:
    """Write down that a fault acts; False when it has acted as often as it should, whoever it was in."""
    mark = {"fault": number, "at": fault.at, "do": fault.do}
    with open(os.open(exercise.log, _LOG, 0o600), "r+", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        log.seek(0)
        used = sum(mark.items() <= json.loads(line).items() for line in log if line.endswith("\n"))
        if fault.times and used >= fault.times:
            return False
        told = {"time": SYSTEM_CLOCK.now().isoformat(timespec="milliseconds"), **mark, "pid": os.getpid()}
        log.write(json.dumps(told | {"component": fault.component, "volume": fault.volume}) + "\n")
    return True


def _act(fault: Fault) -> None:
    if fault.do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault.do in ("hang", "delay"):
        _wait(fault.seconds)
    if fault.do != "delay":
        _fail(fault)


def _wait(seconds: float) -> None:
    """For ever with 0: only the end of the process ends it."""
    while True:
        time.sleep(seconds or _LONG_S)
        if seconds:
            return


def _fail(fault: Fault) -> NoReturn:
    sentence = f"The exercise lets {fault.at} fail."
    if fault.kind == DEFECT:
        raise Defect(sentence)
    if fault.kind == SYSTEM:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    kind = ERRORS[fault.kind] if fault.kind else SlackwaterError
    raise kind(
        sentence, hint="Look into its log, exercise.jsonl.", code=kind.code if fault.kind else "exercise",
        retryable=fault.retryable,
    )  # fmt: skip
