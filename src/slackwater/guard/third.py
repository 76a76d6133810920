# SPDX-License-Identifier: Apache-2.0
"""Starting the understudy: as a transient unit of systemd where that runs the host, else as a child of its own session.

Under systemd the same program stands in the unit's ExecStopPost=: when the understudy is killed too, process 1 starts
it again, and it releases from the record what coordinator, guard and understudy have left (systemd.service(5)).
"""

import os
import select
import subprocess
import sys
from contextlib import suppress

from slackwater.errors import SlackwaterError
from slackwater.guard import understudy
from slackwater.guard.leftovers import HOME
from slackwater.system import cgroups, services
from slackwater.system.command import CommandError, run

PROGRAM = os.path.abspath(understudy.__file__)
_READY_S = 5.0
#: How long systemd waits for one that is stopped before the hold is over.
_STOP_S = 180
_END_S = 1.0


class Third:
    """An understudy: it releases when coordinator and guard are both gone, and ends by itself."""

    def __init__(self, session: str, record: str, coordinator: str, guard: str) -> None:
        """Start it.

        Args:
            session: the session's id.
            record: where the guard writes what is held.
            coordinator: our identity.
            guard: the guard's identity.

        Raises:
            SlackwaterError: it did not start.
        """
        words = (sys.executable, "-I", "-S", "-B", PROGRAM, record, coordinator, guard)
        self._process: subprocess.Popen[bytes] | None = None
        if not (os.geteuid() == 0 and services.booted() and _as_unit(session, words)):
            self._process = _as_child(session, words)

    def await_ready(self) -> None:
        """Wait until it watches.

        Raises:
            SlackwaterError: it does not, in time.
        """
        pipe = self._process and self._process.stdout
        if pipe and not (select.select([pipe], [], [], _READY_S)[0] and os.read(pipe.fileno(), 64)):
            raise SlackwaterError(
                f"The guard's understudy did not start within {_READY_S:g} s.", data="Nothing was frozen.", code="guard"
            )

    def close(self) -> None:
        """Wait for its end, which follows the guard's; one that has something to release is left to it. Idempotent."""
        if self._process:
            if self._process.stdout:
                self._process.stdout.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)


def _as_child(session: str, words: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    home = ""
    with suppress(SlackwaterError):
        home = f"{cgroups.root()}/{HOME}third-{session}.{os.getpid()}"
    return subprocess.Popen(
        [*words, home], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True, cwd="/",
        env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
    )  # fmt: skip


def _as_unit(session: str, words: tuple[str, ...]) -> bool:
    """Whether systemd has started it; it is in a cgroup of systemd's then, and has no need of one of its own."""
    unit = f"slackwater-guard-{session}-{os.getpid()}.service"
    properties = {
        "Type": "exec",
        "Description": f"Slackwater: releases what session {session} holds, should nobody else",
        "ExecStopPost": " ".join(_quoted(word) for word in (*words, "")),
        "OOMScoreAdjust": "-1000",
        "TimeoutStopSec": str(_STOP_S),
    }
    settings = [f"--property={name}={value}" for name, value in properties.items()]
    try:
        run("systemd-run", "--quiet", "--collect", f"--unit={unit}", *settings, "--", *words, "", timeout_s=10)
    except CommandError:
        return False
    return True


def _quoted(word: str) -> str:
    r"""A word of a command line in a unit file: quoted, with `%`, `$`, `\` and `"` doubled or escaped."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'
