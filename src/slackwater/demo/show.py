# SPDX-License-Identifier: Apache-2.0
"""The demonstration: the main job on a real server and a real filesystem, by the commands that a user would type.

Here: the scratch world, its end, and what is said when something was not as it has to be. What happens in between is
`scenes.Show.play`.
"""

import glob
import os
import sys
import time
from collections import Counter
from contextlib import ExitStack

from slackwater.demo import inventory, needs
from slackwater.demo.cluster import DebianCluster
from slackwater.demo.inventory import Inventory
from slackwater.demo.lab import Lab
from slackwater.demo.load import Load
from slackwater.demo.scenes import NAME, STORY, Show
from slackwater.demo.screen import Screen
from slackwater.errors import AbortedError, SlackwaterError

_SETTLE_S = 5.0
"""How long what has ended may still be seen."""


def run(*, keep: bool = False) -> int:
    """Play the demonstration. Takes everything away that it made, also when it fails and at Ctrl-C.

    Args:
        keep: leave the scratch world for the reader, and say how to use and how to remove it.

    Returns: an exit status: 0, 1 when something was not as it has to be, 5 when a package is missing, 6 without root.
    """
    screen = Screen()
    if status := needs.explain(screen, STORY):
        return status
    lab = Lab()
    before, memory = everything_of(lab), set[str]()
    error: SlackwaterError | None = None
    try:
        _play(lab, screen, memory, keep=keep)
    except KeyboardInterrupt:
        error = AbortedError("Stopped on request.")
    except SlackwaterError as e:
        error = e
    if keep and error is None:
        return 0
    return _end(screen, error, _came(lab, before, memory))


def _play(lab: Lab, screen: Screen, memory: set[str], *, keep: bool) -> None:
    with ExitStack() as world:
        world.enter_context(lab)
        screen.title("A scratch world")
        cluster = _build(lab, screen)
        with Load(cluster, f"{lab.folder}/load") as load, screen.counting(load.count):
            Show(screen, lab, cluster, load, memory).play()
        if keep:
            world.pop_all()
            _tell_how_to_go_on(screen, lab)
        else:
            screen.title("Taking everything away")
            _count(screen, lab)


def _build(lab: Lab, screen: Screen) -> DebianCluster:
    """A Btrfs on a loop device; data and log of a Debian cluster on a subvolume each, mounted as a host would."""
    disk = lab.btrfs()
    places = []
    for each in (f"{NAME}-data", f"{NAME}-wal"):
        disk.subvolume(each)
        places.append(disk.mount_subvolume(each, f"{lab.folder}/{each}"))
    data, wal = places
    cluster = lab.cluster(data, f"{wal}/pg_wal", needs.version())
    cluster.start()
    screen.say(f"Btrfs on {disk.device} (a sparse file of 2 GiB), two subvolumes, mounted at {data} and {wal}")
    screen.say(
        f"PostgreSQL {needs.version()}, the Debian cluster {cluster.name}: its data on the one, its log on the other"
    )
    screen.say(
        "A load that never stops: two clients that transfer money, and write down every commit that was acknowledged"
    )
    return cluster


def _count(screen: Screen, lab: Lab) -> None:
    """Say what there is to be taken away."""
    kinds = Counter(line.partition(" ")[0] for line in lab.inventory().lines)
    screen.say("What there is: " + ", ".join(f"{kind} {number}" for kind, number in sorted(kinds.items())))


def _tell_how_to_go_on(screen: Screen, lab: Lab) -> None:
    screen.title("The scratch world is left to you")
    for name, value in {**lab.environment(), "PATH": f"{os.path.dirname(sys.executable)}:$PATH"}.items():
        screen.say(f"  export {name}={value}")
    for command in ("status", f"backup {NAME}", f"recover {NAME} --undo"):
        screen.say(f"  slackwater {command}")
    screen.say("To take it away again:")
    screen.say(f"  {sys.executable} -c 'from slackwater.demo.lab import Lab; print(Lab.sweep(\"{lab.name}\"))'")


def everything_of(lab: Lab) -> Inventory:
    """Everything on this machine that belongs to the lab, whether the lab knows of it or not."""
    places = ("/etc/postgresql/*/", "/var/lib/postgresql/*/", "/var/log/postgresql/", "/var/run/postgresql/", "/run/",
              "/dev/shm/", "/tmp/")  # noqa: S108  # fmt: skip
    files = {f"file {path}" for place in places for path in glob.glob(f"{place}*{lab.name}*")}
    return Inventory(inventory.take(lab.name).lines | files)


def _came(lab: Lab, before: Inventory, memory: set[str]) -> tuple[str, ...]:
    """What is there and was not before; what is just ending is given a moment.

    Args:
        lab: whose things are looked for.
        before: what there was.
        memory: files of shared memory that its servers made; their names do not tell whose they are.
    """
    deadline_s = time.monotonic() + _SETTLE_S
    while True:
        came = tuple(line for line in before.diff(everything_of(lab)) if line.startswith("+"))
        came += tuple(f"+ memory {path}" for path in sorted(memory) if os.path.exists(path))
        if not came or time.monotonic() > deadline_s:
            return came
        time.sleep(0.1)


def _end(screen: Screen, error: SlackwaterError | None, left: tuple[str, ...]) -> int:
    """Say how it ended."""
    if left:
        screen.bad(f"{len(left)} things were left behind:")
        for line in left:
            screen.output(line)
    else:
        screen.good("nothing is left: loop devices, mounts, processes, cgroups, files, shared memory are as before")
    if error is not None:
        screen.bad(error.sentence)
        for note in getattr(error, "__notes__", ()):
            screen.say(note)
    return 1 if left or error is not None else 0
