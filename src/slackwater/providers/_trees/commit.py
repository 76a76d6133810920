# SPDX-License-Identifier: Apache-2.0
"""The instant of a copy of directories, of several volumes or of a volume in several parts."""

import os
import threading
import time
from dataclasses import dataclass, field

from slackwater.model.storage import Volume
from slackwater.providers._places import tag
from slackwater.providers._trees.mirror import TICK_S, Mirror


@dataclass(slots=True)
class Commit:
    """The order for one copy, everything that could be done before being done."""

    volume: Volume
    mirror: Mirror
    session: "Session"
    patient: bool = False
    """Nobody is held for it."""
    done: bool = False

    def __call__(self) -> None:
        """Copy what changed since; the last commit of a session sees what changed from its first copy to its last."""
        self.mirror.copy()
        if (self.patient or not self.mirror.shares) and not self.mirror.settled:
            time.sleep(TICK_S)  # nobody is held for data that is copied, either; what was written right before is again
            self.mirror.copy()
        self.session.finished(self)


@dataclass(slots=True)
class Session:
    """The commits of a session that are open: several volumes, and a volume in several parts."""

    commits: list[Commit] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def finished(self, commit: Commit) -> None:
        """Once all are done, note on each copy what is no more as it was copied, so that all show one moment or not."""
        with self._lock:
            commit.done = True
            if not all(each.done for each in self.commits):
                return
            changed: dict[int, list[str]] = {}
            for each in self.commits:
                names = changed.setdefault(os.fstat(each.mirror.target).st_ino, [])
                names += [os.path.normpath(os.path.join(each.volume.path, path)) for path in each.mirror.changed()]
            for each in self.commits:
                names = changed[os.fstat(each.mirror.target).st_ino]
                os.setxattr(each.mirror.target, tag("changed"), os.fsencode(", ".join(names)))
