# SPDX-License-Identifier: Apache-2.0
"""Killing a backup inside its window, and seeing from outside what becomes of the application it had frozen.

Only what anybody can see is looked at: the guard's record on tmpfs, and the state of the cgroups that it names.
"""

import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from glob import escape, glob
from typing import Any

from slackwater.system.clock import SYSTEM_CLOCK

_LOOK_S = 0.0002


@dataclass(frozen=True, slots=True)
class Struck:
    """A coordinator that was killed while the application stood still."""

    record: str
    """The guard's record that told what was being frozen."""
    cgroups: tuple[str, ...]
    at_s: float
    """Seconds since boot."""
    thawed_ms: float
    """From the kill until the kernel said that everything moves again."""


def kill_in_window(backup: "subprocess.Popen[str]", guard_dir: str, *, thaw_s: float) -> Struck | None:
    """Wait until the application stands still, and kill the coordinator in that moment.

    Args:
        backup: the command that has just been started.
        guard_dir: where guards keep their records.
        thaw_s: how long to wait afterwards for the thaw.

    Returns: None when the window was over before it was seen, or never came: the backup then ended by itself.

    Raises:
        TimeoutError: the application was not thawed within `thaw_s`.
    """
    while backup.poll() is None:
        for record, cgroups in _records(guard_dir):
            if all(map(_frozen, cgroups)):
                os.kill(backup.pid, signal.SIGKILL)
                at_s = SYSTEM_CLOCK.boot_s()
                _wait_thawed(cgroups, thaw_s)
                thawed_ms = (SYSTEM_CLOCK.boot_s() - at_s) * 1000
                status = backup.wait()
                return Struck(record, cgroups, at_s, thawed_ms) if status == -signal.SIGKILL else None
        time.sleep(_LOOK_S)
    return None


def _records(guard_dir: str) -> list[tuple[str, tuple[str, ...]]]:
    """The guards that are there, each with the cgroups it holds or is about to."""
    found = []
    for path in glob(f"{escape(guard_dir)}/guard.*.json"):
        with suppress(OSError, ValueError), open(path, encoding="utf-8") as f:
            record: dict[str, Any] = json.load(f)
            if cgroups := tuple(record.get("cgroups", ())):
                found.append((path, cgroups))
    return found


def _frozen(cgroup: str) -> bool:
    """The kernel's word, see "Control Group v2", `cgroup.events`; a cgroup that is gone holds nobody."""
    with suppress(OSError), open(f"{cgroup}/cgroup.events", encoding="ascii") as f:
        return "frozen 1" in f.read()
    return False


def _wait_thawed(cgroups: tuple[str, ...], timeout_s: float) -> None:
    deadline_s = SYSTEM_CLOCK.boot_s() + timeout_s
    while any(map(_frozen, cgroups)):
        if SYSTEM_CLOCK.boot_s() > deadline_s:
            raise TimeoutError(f"{', '.join(cgroups)} still frozen after {timeout_s:g} s")
        time.sleep(_LOOK_S)
