# SPDX-License-Identifier: Apache-2.0
"""Running a program: as a list of arguments, with a deadline, in the C locale, never through a shell."""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from slackwater.errors import SlackwaterError

#: So much of what was folded is returned.
_END_BYTES = 1 << 16


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
    own_session: bool = False,
) -> Finished:
    """Run a program to its end and return what it said.

    With `fold_output` its output goes to a temporary file and not to a pipe: for programs that leave a daemon behind,
    which would hold a pipe open for ever. Only the end of it is returned.

    With `own_session` it has no terminal, and a Ctrl-C at ours is not for it. So is what starts or stops a daemon run:
    cut short it would leave that half started or stopped, and we wait for its end, and undo it. A program that becomes
    somebody else has no terminal either: on root's it could type.

    Raises:
        CommandError: it could not be started, ran longer than `timeout_s` (it is then killed, in a session of its own
            with all that it started), or, with `check`, ended with a status other than 0.
    """
    environ = {**os.environ, "LC_ALL": "C", **(environment or {})}
    try:
        status, output, complaint = _run(arguments, timeout_s, user, group, environ, fold_output, own_session)
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
    own_session: bool,
) -> tuple[int, str, str]:
    as_other: dict[str, Any] = {"user": user, "group": group, "extra_groups": ()} if user is not None else {}
    alone = own_session or user is not None or arguments[0] == "setpriv"
    with ExitStack() as opened:
        sink = opened.enter_context(open(os.memfd_create("output"), "w+b", buffering=0)) if fold_output else None
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=sink or subprocess.PIPE, stderr=sink or subprocess.PIPE,
            text=True, errors="replace", env=environ, cwd="/", start_new_session=alone, **as_other,
        )  # fmt: skip
        try:
            output, complaint = process.communicate(timeout=timeout_s)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if alone else process.kill()
            process.wait()
            for pipe in filter(None, (process.stdout, process.stderr)):  # what it left running may hold the other end
                pipe.close()
            raise
        if sink is None:
            return process.returncode, output, complaint
        end = os.pread(sink.fileno(), _END_BYTES, max(0, os.fstat(sink.fileno()).st_size - _END_BYTES))
        return process.returncode, "", end.decode(errors="replace")
