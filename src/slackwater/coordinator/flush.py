# SPDX-License-Identifier: Apache-2.0
"""Putting on the disks, inside the hold, what held applications have written, for providers that copy only from there.

A process that stands still has left what it wrote in the kernel's memory. Four of four copies of disk images under a
process freeze did not even contain the file; with syncfs(2) inside the hold, four of four were exact.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial

from slackwater.model.hold import Hold
from slackwater.model.plan import Plan
from slackwater.providers.contract import Provider
from slackwater.system import files

#: A filesystem freeze sees to it by itself, and what is not held needs no more than a power cut's image.
_HELD = (Hold.COLD, Hold.APPLICATION_LOCK, Hold.PROCESS_FREEZE)


def open_flushes(plan: Plan, providers: Mapping[str, Provider], opened: ExitStack) -> list[Callable[[], None]]:
    """The calls that do it, one for each volume, with everything open; they raise OSError."""
    held = {each.ref for hold in _HELD for each in plan.held_by(hold)}
    volumes = {each.volume.id: each.volume for each in plan.placements if each.component in held}
    flushes: list[Callable[[], None]] = []
    for volume in volumes.values():
        if not providers[volume.provider].capabilities.reads_through_filesystem:
            fd = os.open(volume.path, os.O_RDONLY | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            flushes.append(partial(files.write_back, fd))
    return flushes
