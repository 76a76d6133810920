# SPDX-License-Identifier: Apache-2.0
"""What stands against a copy of a directory, or against putting a clone in its place. Reads only."""

import os
from collections.abc import Callable, Iterator, Sequence

from slackwater.model.facts import Finding, Severity, refusal
from slackwater.model.storage import Volume
from slackwater.providers import _findings
from slackwater.providers._places import documents
from slackwater.providers._trees.places import bound, holders
from slackwater.system import btrfs, filesystems, mounts, processes

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def backup(volume: Volume, trees: Sequence[str], beside: Sequence[Volume], owner: str) -> list[Finding]:
    """Look for what would be missing in a copy, or would make it fail."""
    return [
        *_top(volume), *_nested(volume, beside), *_read_only(volume),
        *_findings.swap_files(_inside(volume), "it cannot be copied", "put it elsewhere"),
        *_mounts_in_trees(trees or (volume.path,)), *_not_ours(volume), *_replicated_whole(volume, beside, owner),
    ]  # fmt: skip


def recovery(volume: Volume, pids: frozenset[int]) -> list[Finding]:
    """Look for what would not follow the exchange."""
    if found := [*_top(volume), *_replaced(volume)]:
        return found
    inside = _inside(volume)
    fd = os.open(volume.path, _DIRECTORY)
    try:
        return [
            *_mounts(volume, pids), *_findings.loop_devices(inside), *_findings.ourselves(inside),
            *_findings.held(holders(fd, pids)), *_unseen(volume),
        ]  # fmt: skip
    finally:
        os.close(fd)


def _inside(volume: Volume) -> Callable[[str], bool]:
    """Tells whether a path lies in the directory."""
    return lambda path: mounts.inside(path, volume.path)


def _top(volume: Volume) -> Iterator[Finding]:
    """A clone can take a directory's place only where its parent lies on the same filesystem."""
    if not volume.facts["live"]:
        inside = f"{volume.path}/{os.path.basename(volume.path)}"
        yield refusal(
            "top-level",
            f"{volume.path} is the top of its filesystem and not a directory on it: nothing can be exchanged with it.",
            f"With the application stopped, move its files into a directory below, as {inside}, owned and closed as"
            f" {volume.path} is now, and let the application use that one.",
        )


def _replaced(volume: Volume) -> Iterator[Finding]:
    fd = os.open(volume.path, _DIRECTORY)
    try:
        same = filesystems.identity(fd) == volume.facts["identity"]
    finally:
        os.close(fd)
    if not same:
        yield refusal("replaced", f"{volume.path} is not the directory that it was a moment ago.", "Run it again.")


def _nested(volume: Volume, beside: Sequence[Volume]) -> Iterator[Finding]:
    for other in beside:
        if other.provider == volume.provider and mounts.inside(other.path, volume.path):
            yield refusal(
                "nested-volume",
                f"{other.path} lies inside of {volume.path}, and is to be turned back by itself.",
                "Keep one outside of the other.",
            )


def _read_only(volume: Volume) -> Iterator[Finding]:
    mount = mounts.mount_of(volume.path)
    options = (*mount.super_options, *mount.options) if mount is not None else ()
    yield from _findings.read_only(volume.path, options, "copy")


def _mounts_in_trees(trees: Sequence[str]) -> Iterator[Finding]:
    for mount in mounts.read():
        if any(mounts.inside(mount.target, tree) and mount.target != tree for tree in trees):
            yield refusal(
                "mount-inside",
                f"{mount.target} is mounted inside the application's files: in the replica it would be an empty"
                " directory.",
                f"Mount it elsewhere, and let the application reach it by a link: umount {mount.target}",
            )


def _not_ours(volume: Volume) -> Iterator[Finding]:
    """Without root only what one owns can be made anew as it was."""
    if os.geteuid() == 0:
        return
    for folder, folders, files in os.walk(volume.path):
        for path in (os.path.join(folder, name) for name in ("", *folders, *files)):
            if os.lstat(path).st_uid != os.geteuid():
                yield refusal("not-ours", f"{path} belongs to another user.", "Run it with sudo.")
                return


def _replicated_whole(volume: Volume, beside: Sequence[Volume], owner: str) -> Iterator[Finding]:
    """The copies lie in the subvolume: a recovery of the whole sets them aside, and they are deleted with that."""
    if volume.facts["fstype"] != "btrfs" or os.geteuid() != 0:  # without root there are none of whole subvolumes
        return
    if any(_whole(volume, other) for other in beside):
        yield refusal(
            "replicated-whole",
            f"The subvolume that holds {volume.path} is a volume of this same backup, and the copy would lie in it.",
            "Take the one or the other into the specification, or give the directory a subvolume of its own.",
        )
    filesystem, source = str(volume.facts["filesystem"]), str(volume.facts["source"])
    with btrfs.top_level(filesystem, source, read_only=True) as top:
        found = [d.session for d in documents(top, owner) if any(_whole(volume, copy.volume) for copy in d.copies)]
    if found:
        yield refusal(
            "replicated-whole",
            f"Replicas of the whole subvolume that holds {volume.path} exist ({', '.join(found)}), and the copy would "
            "lie in it: a recovery of the whole would set it aside.",
            "Delete those (slackwater replica delete ID), or give the directory a subvolume of its own.",
        )


def _whole(volume: Volume, other: Volume) -> bool:
    """Whether another volume is the subvolume in which the copies of this one lie."""
    here = (volume.facts["filesystem"], volume.facts["base"])
    return other.provider != volume.provider and (other.facts.get("filesystem"), other.facts.get("subvolume")) == here


def _mounts(volume: Volume, pids: frozenset[int]) -> Iterator[Finding]:
    """Mounts do not follow a rename: who has them would go on using the old directory.

    A namespace in which only the application lives ends with it.
    """
    for each in bound(volume.superblock, f"/{volume.facts['inner']}"):
        strangers = each.pids - pids
        if each.own and each.shows:
            yield refusal(
                "bind-mount",
                f"{each.target} is a mount of {volume.path} or of a part of it, and would go on showing the old one.",
                f"umount {each.target}, and let the application use the directory itself.",
            )
        elif each.own:
            yield refusal(
                "mount-inside", f"{each.target} is mounted on a directory of the volume.", f"umount {each.target}"
            )
        elif strangers:
            pid = min(strangers)
            yield refusal(
                "other-namespace",
                f"Process {pid} ({processes.command_of(pid)}) lives in a mount namespace of its own, in which"
                f" {each.target} {'shows' if each.shows else 'covers'} a part of {volume.path}, and would go on using"
                " the old one.",
                f"Stop it, or: nsenter -t {pid} -m umount {each.target}",
            )


def _unseen(volume: Volume) -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding(
            "unseen-holders",
            Severity.WARNING,
            f"Without root nobody can see whether another user's process holds a file in {volume.path}.",
            "One that does would go on using the old volume: run it with sudo to be sure.",
        )
