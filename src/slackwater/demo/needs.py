# SPDX-License-Identifier: Apache-2.0
"""What the demonstration needs of a machine, and what to say when it is not there."""

import glob
import importlib.util
import os
import pwd
import shutil
from collections.abc import Sequence

from slackwater.demo.inventory import cgroup_root
from slackwater.demo.screen import Screen
from slackwater.errors import RefusedError, RightsError

OLDEST, NEWEST = 15, 18
"""The versions of PostgreSQL that the writer speaks for."""


def version() -> str:
    """The newest PostgreSQL of the distribution that can be used here; empty for none."""
    found = [path.split("/")[4] for path in glob.glob("/usr/lib/postgresql/*/bin/initdb")]
    return max((each for each in found if each.isdigit() and OLDEST <= int(each) <= NEWEST), key=int, default="")


def lacking() -> list[str]:
    """What is missing besides root, one item each."""
    packages = {
        f"a PostgreSQL server, {OLDEST} to {NEWEST} (package postgresql)": bool(version()) and _is_user("postgres"),
        "pg_createcluster (package postgresql-common)": shutil.which("pg_createcluster"),
        "mkfs.btrfs (package btrfs-progs)": shutil.which("mkfs.btrfs"),
        "losetup (package util-linux)": shutil.which("losetup"),
        "psycopg (pip install 'slackwater[postgresql]')": importlib.util.find_spec("psycopg"),
        "loop devices (/dev/loop-control)": os.path.exists("/dev/loop-control"),
        "a mounted cgroup hierarchy of version 2": cgroup_root(),
    }
    return [what for what, there in packages.items() if not there]


def explain(screen: Screen, commands: Sequence[str]) -> int:
    """Say what is missing and what can be shown without it; returns the exit status, 0 when nothing is missing."""
    missing = lacking()
    root = os.geteuid() == 0
    if root and not missing:
        return 0
    screen.bad("The demonstration cannot be played here. Nothing was changed.")
    if not root:
        screen.say(
            "It needs root: it makes a loop device, mounts a Btrfs on it and starts a PostgreSQL. Try: sudo make demo"
        )
    for each in missing:
        screen.say(f"It needs {each}.")
    if missing:
        screen.say("`make demo` installs the packages that it needs.")
    screen.say("")
    screen.say("What it would do, on a scratch volume of its own that is gone afterwards:")
    for each in commands:
        screen.say(f"  {each}")
    screen.say("")
    screen.say(
        "What can be shown here: `slackwater --help`, the help of each command, and docs/tutorial.md, which has the"
    )
    screen.say("same story with the real output of every command.")
    return RightsError.exit_status if not root else RefusedError.exit_status


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
