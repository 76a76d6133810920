# SPDX-License-Identifier: Apache-2.0
"""Running a program: as a list of arguments, with a deadline, in the C locale, never through a shell."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from slackwater.errors import SlackwaterError


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that has ended."""

    arguments: tuple[str, ...]
    status: int
    output: str
    complaint: str
    """What it wrote to standard error, trimmed."""


class CommandError(SlackwaterError):
    """A program failed, was missing, or did not end in time."""

    code = "command"


def run(
    *arguments: str,
    timeout_s: float = 60.0,
    check: bool = True,
    user: str | int | None = None,
    group: str | int | None = None,
    environment: Mapping[str, str] | None = None,
    fold_output: bool = False,
) -> Finished:
    """Run a program to its end and return what it said.

    With `fold_output` its output goes to a temporary file and not to a pipe: for programs that leave a daemon behind,
    which would hold a pipe open for ever.

    Raises:
        CommandError: it could not be started, ran longer than `timeout_s` (it is then killed), or, with `check`, ended
            with a status other than 0.
    """
    environ = {**os.environ, "LC_ALL": "C", **(environment or {})}
    try:
        status, output, complaint = _run(arguments, timeout_s, user, group, environ, fold_output)
    except FileNotFoundError as e:
        raise CommandError(f"The program {arguments[0]} is not there.", hint=f"Install {arguments[0]}.") from e
    except PermissionError as e:
        raise CommandError(f"{arguments[0]} may not be run: {e.strerror}.") from e
    except subprocess.TimeoutExpired as e:
        raise CommandError(f"{' '.join(arguments)} did not end within {timeout_s:g} s and was killed.") from e
    finished = Finished(arguments, status, output, complaint.strip())
    if check and status != 0:
        said = finished.complaint or output.strip() or "nothing"
        raise CommandError(f"{' '.join(arguments)} failed with status {status} and said: {said[-600:]}")
    return finished


def _run(
    arguments: Sequence[str],
    timeout_s: float,
    user: str | int | None,
    group: str | int | None,
    environ: Mapping[str, str],
    fold_output: bool,
) -> tuple[int, str, str]:
    as_other = {"user": user, "group": group, "extra_groups": ()} if user is not None else {}
    if not fold_output:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=timeout_s, env=environ, cwd="/", check=False, **as_other,  # type: ignore[call-overload]
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr
    with open(os.memfd_create("output"), "w+b", buffering=0) as sink:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
            timeout=timeout_s, env=environ, cwd="/", check=False, **as_other,  # type: ignore[call-overload]
        )  # fmt: skip
        sink.seek(0)
        return done.returncode, "", sink.read().decode(errors="replace")
