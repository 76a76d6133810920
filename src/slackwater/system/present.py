# SPDX-License-Identifier: Apache-2.0
"""Showing a copy or a clone at a path of this host, as an effect, and taking it away."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.model.storage import MountOrder
from slackwater.system import mounts, processes

#: How a replica is shown: what lies in it shall not be run, nor give anybody rights.
CAREFUL = ("nosuid", "nodev", "noexec")


@dataclass(frozen=True, slots=True)
class Present:
    """A copy or clone is mounted at a path."""

    kind: ClassVar[str] = "mount.present"
    fstype: str
    source: str
    root: str
    options: tuple[str, ...]
    target: str
    folders: tuple[str, ...]
    """Folders that were not there, innermost first; they are removed again."""

    def describe(self) -> str:
        """Say what it does."""
        return f"mount {self.root} at {self.target} ({', '.join(self.options)})"

    def make(self) -> Facts:
        """Make the folders and mount it, unless it is mounted there.

        Raises:
            RefusedError: something else is there.
            CommandError: mount(8) refused.
        """
        if not self._shown():
            refuse_occupied(self.target)
            os.makedirs(self.target, mode=0o755, exist_ok=True)
            mounts.mount(self.fstype, self.source, self.target, self.options)
        return {"target": self.target}

    def undo(self) -> None:
        """Unmount it, if it is what is mounted there, and remove the folders that were made for it.

        Raises:
            RefusedError: somebody holds it; they are named.
        """
        if self._shown():
            unmount(self.target)
        remove_folders(self.folders)

    def _shown(self) -> bool:
        mount = mounts.at(self.target)
        return mount is not None and mount.root == self.root


def present(order: MountOrder, target: str, options: Sequence[str]) -> Present:
    """Plan to show what an order leads to, with further options of the mount (`ro`)."""
    return Present(
        order.fstype, order.source, order.root, (*order.options, *options), target, tuple(_missing(target))
    )  # fmt: skip


def refuse_occupied(target: str) -> None:
    """See to it that a target is free: not there, or an empty folder on which nothing is mounted.

    Raises:
        RefusedError: it is not.
    """
    why = ""
    if os.path.realpath(target) != target:
        why = f"leads to {os.path.realpath(target)}"
    elif mounts.at(target) is not None:
        why = "is a mount point already"
    elif os.path.lexists(target) and not os.path.isdir(target):
        why = "is not a folder"
    elif os.path.isdir(target) and os.listdir(target):
        why = "is not empty"
    if why:
        raise RefusedError(
            f"Nothing can be mounted at {target}: it {why}.",
            data="Nothing was changed.",
            hint="Name an empty folder, or one that is not there.",
            code="occupied",
        )


def unmount(target: str) -> None:
    """Take the topmost mount off a target.

    Raises:
        RefusedError: somebody holds it; they are named.
    """
    device = os.stat(target).st_dev
    try:
        mounts.unmount(target)
    except OSError as e:
        held = [f"{h.command} (pid {h.pid}, {h.how} {h.path})" for h in processes.holders(device)]
        raise RefusedError(
            f"{target} cannot be unmounted: {', '.join(held[:5]) or 'something in the kernel'} holds it.",
            data="It is still mounted as it was.",
            hint=f"End what holds it: fuser -vm {target}",
            code="busy-mount",
        ) from e


def remove_folders(paths: Sequence[str]) -> None:
    """Remove those of the folders that are empty and on which nothing is mounted, in this order."""
    for path in paths:
        with suppress(OSError):
            os.rmdir(path)


def _missing(path: str) -> list[str]:
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing
