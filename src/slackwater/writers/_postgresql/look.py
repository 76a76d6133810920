# SPDX-License-Identifier: Apache-2.0
"""What a look at the log leaves for the next one, so that the look with the server stopped costs only what is new.

A segment in front of which the log has gone on is never written again, and what was laid of it beside the clone is
ours. The segment with the last record may be half full, and the record before its end half written: from that record
on everything is walked, read and laid again.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from slackwater.writers._postgresql.history import Branch
from slackwater.writers._postgresql.waldump import Commit

#: The fact in which it is handed on.
FACT = "look"


@dataclass(frozen=True, slots=True)
class Look:
    """How far the log of a clone was walked, read and laid."""

    taken: int
    """Everything up to this position is in the replica itself."""
    branches: tuple[Branch, ...]
    """The way through the timelines that was followed; on another one nothing of this counts."""
    read: int
    """Where the last record begins that was read. Every segment before its own is laid, whole and synced."""
    last: Commit | None
    """The last transaction that was seen up to there."""
    found: bool = False
    """Whether the target was seen, so that what is written after it changes nothing."""

    def told(self) -> str:
        """As a fact."""
        return json.dumps(asdict(self), default=datetime.isoformat)

    @classmethod
    def of(cls, fact: object) -> "Look | None":
        """What `told` has told; None where there is nothing, or nothing that can be read."""
        try:
            known = json.loads(str(fact))
            last = known.pop("last")
            commit = None
            if last is not None:
                at = datetime.fromisoformat(last["at"])
                commit = Commit(int(last["xid"]), int(last["position"]), at, bool(last["database"]))
            branches = tuple(Branch(**each) for each in known.pop("branches"))
            return cls(**known, branches=branches, last=commit)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
