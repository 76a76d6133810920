# SPDX-License-Identifier: Apache-2.0
"""Directories on XFS or Btrfs, copied file by file by sharing extents (FICLONE), and exchanged by one rename.

Each file has an instant of its own, and the planner knows. What costs time is done before the window: everything is
cloned once, so that in the window only what changed since is cloned again. Copies lie on the same filesystem, out of
the application's sight. All but what is said here is in `_trees/provider.py`, for `plain` does the same by copying.
"""

import os
from typing import ClassVar

from slackwater.journal.effects import Effect
from slackwater.model.storage import Capabilities, CommitForm, Volume
from slackwater.providers._reflink.effects import (
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
from slackwater.providers._trees.manifest import estimate_s
from slackwater.providers._trees.provider import DIRECTORY, Kinds, TreeProvider


class ReflinkProvider(TreeProvider):
    """Copies of directories that share their extents with them."""

    name: ClassVar[str] = "reflink"
    capabilities: ClassVar[Capabilities] = Capabilities(
        commit_form=CommitForm.SYSTEM_CALL, instant_over="file", reads_through_filesystem=True, rootless=True
    )
    effects: ClassVar[tuple[type[Effect], ...]] = (
        MakePlace, Snapshot, Fill, Clone, Exchange, Seal, Delete, Bar, Unbar,
    )  # fmt: skip
    kinds: ClassVar[Kinds] = Kinds(MakePlace, Snapshot, Fill, Clone, Exchange, Seal, Delete, Bar, Unbar)
    shares: ClassVar[bool] = True

    def estimate_s(self, volume: Volume) -> float:
        """How long a commit is likely to take: by the number of files, and the extents of those written lately."""
        with self._told(f"looking at {volume.path}"):
            fd = os.open(volume.path, DIRECTORY)
            try:
                return estimate_s(fd)
            except PermissionError:  # without root: what belongs to others is refused by the check
                return 0.0
            finally:
                os.close(fd)
