# SPDX-License-Identifier: Apache-2.0
"""A request to stop in the middle of a deletion: it is finished, since it would have to be waited for anyway."""

from typing import Any

import anyio
import pytest

from slackwater.model.replica import ReplicaState
from slackwater.sessions.expiry import forget


class Replica:
    """One replica, its catalog, its host and its cell: all that a deletion touches, with what was done to it."""

    id = "2026-11-22-1"
    document = "document"

    def __init__(self, stop_at: str, scope: anyio.CancelScope) -> None:
        self.done: list[str] = []
        self._stop_at, self._scope = stop_at, scope
        self.catalog = self.replicas = self.host = self

    def _do(self, step: str) -> None:
        self.done.append(step)
        if step == self._stop_at:
            self._scope.cancel()

    def set_state(self, _: str, state: ReplicaState) -> None:
        self._do(state.value)

    async def delete(self, _: Any) -> None:
        self._do("deleted")
        await anyio.lowlevel.checkpoint()

    def remove(self, _: str) -> None:
        self._do("removed")


@pytest.mark.parametrize("stop_at", ["deleting", "deleted", "removed"])
def test_what_was_decided_is_done(stop_at: str) -> None:
    async def work() -> list[str]:
        with anyio.CancelScope() as scope:
            replica: Any = Replica(stop_at, scope)
            await forget(replica, replica)
            await forget(replica, replica)
        assert scope.cancelled_caught
        return list(replica.done)

    assert anyio.run(work) == ["deleting", "deleted", "removed"], "and the next one is not begun"
