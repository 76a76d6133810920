# SPDX-License-Identifier: Apache-2.0
"""A call that does not come back is remembered, whatever else fails while the session puts things right after it."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from slackwater.coordinator import events
from slackwater.coordinator.calls import HungError, hangs
from slackwater.errors import SlackwaterError
from slackwater.hosts.local import LocalHost
from slackwater.model.hooks import NO_HOOKS


def failing(*, hung: bool) -> SlackwaterError:
    """What is raised when a hook's end cannot be recorded after a snapshot has failed."""
    try:
        try:
            raise HungError("The snapshot is not back.") if hung else SlackwaterError("The snapshot failed.")
        finally:
            raise SlackwaterError("The journal cannot be written.", retryable=True)
    except SlackwaterError as e:
        return e


@pytest.mark.parametrize("hung", [True, False])
def test_it_is_remembered_when_something_else_fails_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hung: bool
) -> None:
    async def take(*_: object, **__: object) -> None:
        raise failing(hung=hung)

    monkeypatch.setattr(events, "take", take)
    host = LocalHost(owner="x", journal_file=str(tmp_path / "journal.sqlite"), guard_dir=str(tmp_path))
    plan: Any = type("Plan", (), {"hooks": NO_HOOKS})

    async def work() -> None:
        story: Any = None
        await host._take("2026-11-22-1", "orders", plan, story, accept_crash=False)

    with pytest.raises(SlackwaterError, match="journal cannot be written"):
        anyio.run(work)
    assert host._hung == ({"2026-11-22-1"} if hung else set())


def test_what_came_back_does_not_hang() -> None:
    assert not hangs(None)
    assert not hangs(ValueError())
    assert hangs(HungError("x"))
