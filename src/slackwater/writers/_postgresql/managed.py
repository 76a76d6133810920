# SPDX-License-Identifier: Apache-2.0
"""Cluster managers: programs that start, stop and promote a PostgreSQL by their own judgement.

Such a manager takes a stopped server for a failed one, and a server on a new timeline for a stranger: what it manages
must not be recovered behind its back.
"""

import contextlib
import json
import os
import re

from slackwater.system.processes import ancestors, command_of

_PACEMAKER_CIB = "/var/lib/pacemaker/cib/cib.xml"
#: What Patroni keeps of its cluster's settings in the data directory; `patronictl pause` sets one of them.
_PATRONI_CACHE = "patroni.dynamic.json"
_MAINTENANCE = re.compile(r'<nvpair [^>]*name="maintenance-mode"[^>]*>')

#: What to do around a recovery, for each manager.
HOW = {
    "Patroni": "patronictl pause --wait; afterwards patronictl reinit each standby, then patronictl resume. Where"
    f" Patroni is not used any more, remove {_PATRONI_CACHE} from the data directory.",
    "repmgr": "Stop repmgrd on every node; afterwards repmgr standby clone --force each standby, then start repmgrd.",
    "Pacemaker": "pcs property set maintenance-mode=true; afterwards make each standby anew, pcs resource cleanup, then"
    " maintenance-mode=false.",
}


def manager_of(data_directory: str, pid: int | None) -> str:
    """Name the program that manages the server on this data directory; empty when none is seen.

    Args:
        data_directory: as the kernel names it.
        pid: the postmaster, or None when it is stopped.
    """
    parents = ancestors(pid) - {pid} if pid else frozenset()
    if any(_is_patroni(each) for each in parents) or os.path.exists(f"{data_directory}/{_PATRONI_CACHE}"):
        return "Patroni"
    if any(_mentions(path, data_directory) for path in _repmgr_files()):
        return "repmgr"
    if _named("pacemakerd") and _mentions(_PACEMAKER_CIB, "pgsql"):
        return "Pacemaker"
    return ""


def paused(manager: str, data_directory: str) -> bool:
    """Whether a manager says that it starts, stops and promotes nothing now. A pause of repmgr's cannot be seen."""
    if manager == "Patroni":
        with (
            contextlib.suppress(OSError, ValueError, RecursionError),
            open(f"{data_directory}/{_PATRONI_CACHE}", encoding="utf-8") as f,
        ):
            found = json.load(f)
            return isinstance(found, dict) and found.get("pause") is True
    if manager == "Pacemaker":
        with contextlib.suppress(OSError), open(_PACEMAKER_CIB, encoding="utf-8", errors="replace") as f:
            return any('value="true"' in pair for pair in _MAINTENANCE.findall(f.read()))
    return False


def _is_patroni(pid: int) -> bool:
    """Patroni is a Python program: its name is the first or the second word of the command line."""
    return any(os.path.basename(word) in {"patroni", "patroni.py"} for word in _command_line(pid).split()[:2])


def _repmgr_files() -> list[str]:
    """The configuration files of all running repmgrd."""
    words = (word for pid in _named("repmgrd") for word in _command_line(pid).split())
    return [word.removeprefix("--config-file=") for word in words if word.endswith(".conf")]


def _named(name: str) -> list[int]:
    """Processes by their short name: a command line can be read only as long as the process's memory is not stuck."""
    return [int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and command_of(int(pid)) == name]


def _mentions(path: str, word: str) -> bool:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as f:
        return word in f.read()
    return False


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f:
        return f.read().replace(b"\0", b" ").decode(errors="replace")
    return ""
