# SPDX-License-Identifier: Apache-2.0
"""What stands against a snapshot or an exchange of a volume, in the words that all providers have for it."""

import os
from collections.abc import Callable, Iterable, Iterator

from slackwater.model.facts import Finding, refusal
from slackwater.system import loops, mounts
from slackwater.system.processes import Holder


def swap_files(on: Callable[[str], bool], why: str, hint: str) -> Iterator[Finding]:
    """Active swap files on a volume.

    Args:
        on: whether a file lies on it.
        why: what that forbids, as the end of a sentence.
        hint: where to put it.
    """
    for file in mounts.swap_files():
        if on(file):
            yield refusal("swap-file", f"{file} is an active swap file: {why}.", f"swapoff {file}, and {hint}.")


def loop_devices(on: Callable[[str], bool]) -> Iterator[Finding]:
    """Loop devices that are attached to a file on a volume."""
    for name, file in loops.backing_files().items():
        if on(file):
            yield refusal(
                "held", f"/dev/{name} is attached to {file}, which lies on the volume.", f"losetup -d /dev/{name}"
            )


def ourselves(on: Callable[[str], bool]) -> Iterator[Finding]:
    """Our own working directory."""
    if on(os.path.realpath("/proc/self/cwd")):
        yield refusal("held", "This command was started in a directory of the volume.", "cd /")


def held(holders: Iterable[Holder]) -> Iterator[Finding]:
    """Processes that hold something on a volume, each once."""
    named: set[int] = set()
    for holder in holders:
        if holder.pid not in named:
            named.add(holder.pid)
            yield refusal(
                "held",
                f"Process {holder.pid} ({holder.command}) holds {holder.path} ({holder.how}), and would go on using "
                "the old volume.",
                f"Stop it: kill {holder.pid}",
            )


def read_only(path: str, options: Iterable[str], what: str) -> Iterator[Finding]:
    """A filesystem on which nothing can be made."""
    if "ro" in options:
        yield refusal(
            "read-only",
            f"The filesystem of {path} is read-only: no {what} can be written.",
            "See the kernel's log for why, and mount it writable.",
        )
