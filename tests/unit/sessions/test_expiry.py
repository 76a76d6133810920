# SPDX-License-Identifier: Apache-2.0
"""An undo replica that goes by its age: what goes with it of the recovery window is said before it is gone."""

from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from slackwater.errors import SlackwaterError
from slackwater.sessions import expiry

HOUR = datetime(2026, 11, 15, 10, tzinfo=UTC), datetime(2026, 11, 15, 11, tzinfo=UTC)


class Aside:
    """One undo replica with all that its expiry touches."""

    id = "2026-11-15-1"

    def __init__(self, fails: str = "") -> None:
        self.done: list[str] = []
        self._fails = fails
        self.document = self.catalog = self.replicas = self.host = self.recovery = self
        self.specification, self.copies, self.undo_keep = "orders", (), 1.0

    def list(self, **_: object) -> list["Aside"]:
        return [self]

    def presented(self, _: object) -> tuple[str, ...]:
        return ()

    def set_state(self, *_: object) -> None:
        self.done.append("decided")

    async def delete(self, _: object) -> None:
        if self._fails:
            raise SlackwaterError(self._fails)
        self.done.append("deleted")

    def remove(self, _: str) -> None:
        self.done.append("forgotten")


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would go with it; how far it had come when that was asked is added to it."""
    asked: list[Any] = []

    async def cut_if_known(cell: Any, *_: object) -> tuple[Any, ...]:
        asked.append(list(cell.done))
        return (HOUR,)

    monkeypatch.setattr(expiry, "cut_if_known", cut_if_known)
    monkeypatch.setattr(expiry, "undo_expires", lambda *_: True)
    monkeypatch.setattr(expiry, "resolve", lambda cell, _: cell)
    return asked


def test_what_goes_with_it_is_looked_for_before_and_said(cut: list[Any]) -> None:
    aside: Any = Aside()
    gone, lost, left = anyio.run(expiry.expire_undo, aside)
    assert (gone, left) == ((aside.id,), ())
    assert lost == ("No moment between 2026-11-15 10:00:00 and 2026-11-15 11:00:00 UTC can be recovered to any more.",)
    assert cut == [[]], "before anything of it was done"
    assert aside.done == ["decided", "deleted", "forgotten"]


def test_where_it_does_not_go_nothing_is_said_to_be_lost(cut: list[Any]) -> None:
    aside: Any = Aside("The disk is away.")
    assert anyio.run(expiry.expire_undo, aside) == ((), (), ("delete replica 2026-11-15-1: The disk is away.",))
    assert cut
