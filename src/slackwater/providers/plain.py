# SPDX-License-Identifier: Apache-2.0
"""Directories on a filesystem that can snapshot nothing and share nothing (ext4, XFS without reflink): copied whole.

A copy takes the time and the room of the data, so nothing is locked or frozen for it: the planner takes it only where
the application is stopped, or where nobody writes and nothing changed, which is proven afterwards. What can be is
copied before the application is stopped, and after that only what somebody had open for writing, or changed since.
Copies lie on the same filesystem, out of the application's sight, and change places with a directory by one rename. All
but what is said here is in `_trees/provider.py`.

What it is not for: filesystems in memory or on a network, which have no UUID or cannot tell the generation of an inode,
by which a directory is known again.
"""

import os
from collections.abc import Sequence
from typing import ClassVar

from slackwater.journal.effects import Effect
from slackwater.model.facts import Finding, refusal
from slackwater.model.quantities import format_bytes
from slackwater.model.storage import Capabilities, CommitForm, Volume
from slackwater.providers._copying import size_of
from slackwater.providers._plain.effects import (
    Bar,
    Clone,
    Delete,
    Exchange,
    Fill,
    MakePlace,
    Seal,
    Snapshot,
    Unbar,
)
from slackwater.providers._trees.provider import DIRECTORY, Kinds, TreeProvider
from slackwater.system import filesystems

#: What a disk of our days copies on itself at the least; most do better.
_BYTES_PER_S = 100 << 20


class PlainProvider(TreeProvider):
    """Whole copies of directories."""

    name: ClassVar[str] = "plain"
    capabilities: ClassVar[Capabilities] = Capabilities(
        commit_form=CommitForm.SYSTEM_CALL, instant_over="nothing", reads_through_filesystem=True, rootless=True
    )
    effects: ClassVar[tuple[type[Effect], ...]] = (
        MakePlace, Snapshot, Fill, Clone, Exchange, Seal, Delete, Bar, Unbar,
    )  # fmt: skip
    kinds: ClassVar[Kinds] = Kinds(MakePlace, Snapshot, Fill, Clone, Exchange, Seal, Delete, Bar, Unbar)
    shares: ClassVar[bool] = False

    def estimate_s(self, volume: Volume) -> float:
        """How long copying all of it is likely to take."""
        with self._told(f"looking at {volume.path}"):
            return size_of(volume.path) / _BYTES_PER_S

    def check_backup(self, volume: Volume, trees: Sequence[str], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        """As for every directory; and that there is room for a whole copy."""
        return [*super().check_backup(volume, trees, beside), *self._room_for(volume), *self._encrypted(volume)]

    def _room_for(self, volume: Volume) -> list[Finding]:
        size, free = size_of(volume.path), self.room(volume).free_bytes
        if size <= free:
            return []
        return [refusal(
            "no-room",
            f"A copy of {volume.path} takes {format_bytes(size)}, and its filesystem has {format_bytes(free)} free.",
            "Delete replicas (slackwater replica list shows them), or make the filesystem larger.",
        )]  # fmt: skip

    def _encrypted(self, volume: Volume) -> list[Finding]:
        """A copy beside would not be encrypted, and could not be exchanged with it."""
        fd = os.open(volume.path, DIRECTORY)
        try:
            found = filesystems.encrypted(fd)
        finally:
            os.close(fd)
        if not found:
            return []
        return [refusal(
            "encrypted",
            f"{volume.path} is encrypted by its filesystem (fscrypt): a copy beside it would not be.",
            "Encrypt the disk below the filesystem instead (LUKS).",
        )]  # fmt: skip
