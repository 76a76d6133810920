# SPDX-License-Identifier: Apache-2.0
"""systemd's units: whether it runs this host, whose unit a process is, starting and stopping one.

Everything here is empty or refuses on a host that systemd did not boot; the callers have other ways there.
"""

import os

from slackwater.errors import SlackwaterError
from slackwater.system.command import run


def booted() -> bool:
    """Say whether systemd is the init of this host, as sd_booted(3) does."""
    return os.path.isdir("/run/systemd/system")


def unit_of(pid: int) -> str:
    """Name the service whose main process this is; empty when it is nobody's, or systemd does not run.

    A process that was only started from inside a service (a shell under ssh.service, a job under cron.service) is not
    that service: stopping it would stop a stranger.
    """
    if not booted():
        return ""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as f:
            unit = unit_in(f.read())
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return unit if unit and main_pid(unit) == pid else ""


def unit_in(cgroups: str) -> str:
    """Find the service in the text of /proc/PID/cgroup, see cgroups(7) and systemd's control group layout."""
    for line in cgroups.splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" or controllers == "name=systemd":
            services = [part for part in path.split("/") if part.endswith(".service")]
            if services:
                return services[-1]
    return ""


def main_pid(unit: str) -> int:
    """Ask for the process whose end is the unit's end; 0 when there is none."""
    answer = run("systemctl", "show", "--property=MainPID", "--value", "--", unit, timeout_s=10, check=False).output
    return int(answer) if answer.strip().isdecimal() else 0


def cgroup_of(unit: str) -> str:
    """The path of a unit's cgroup, below the root of the hierarchy; empty when it has none now, or has never been."""
    if not booted():
        return ""
    return run("systemctl", "show", "--property=ControlGroup", "--value", "--", unit, timeout_s=10).output.strip()


def start(unit: str, *, timeout_s: float) -> None:
    """Start a unit and wait until systemd calls it started. Runs already: nothing happens.

    The count of failed starts is reset first, so that earlier failures do not forbid this one (systemd.unit(5),
    StartLimitIntervalSec).

    Raises:
        SlackwaterError: systemd does not run here, or the unit did not start in time.
    """
    _need_systemd(unit)
    run("systemctl", "reset-failed", "--", unit, timeout_s=10, check=False)
    run("systemctl", "start", "--", unit, timeout_s=timeout_s, own_session=True)


def stop(unit: str, *, timeout_s: float) -> None:
    """Stop a unit, so that systemd does not start it again by itself. Stopped already: nothing happens.

    Raises:
        SlackwaterError: systemd does not run here, or the unit did not stop in time.
    """
    _need_systemd(unit)
    run("systemctl", "stop", "--", unit, timeout_s=timeout_s, own_session=True)


def own_scope() -> tuple[str, ...]:
    """The words before a command that keep what it starts out of our own unit, which would take it along when it ends.

    Empty where systemd does not run: there is nothing to be kept out of.
    """
    return ("systemd-run", "--scope", "--quiet", "--collect") if booted() else ()


def _need_systemd(unit: str) -> None:
    if not booted():
        raise SlackwaterError(
            f"{unit} cannot be started or stopped: systemd does not run here.",
            data="Nothing was changed.",
            hint="Start or stop the application by hand.",
        )
