# SPDX-License-Identifier: Apache-2.0
"""Behind which replicas the log is read for lost rows, and behind which one an archive is asked for it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from slackwater.model.target import LogSource, Loss, Losses, RecoveryTarget
from slackwater.recovery import naming

LOSS = Loss(datetime(2026, 11, 22, tzinfo=UTC), RecoveryTarget.parse("before:1"), ("dropped t",))
NAMES = ("oldest", "middle", "newest")


class Writer:
    """Finds one loss behind each, and notes what it was given."""

    def __init__(self, each: int = 1, loss: Loss = LOSS) -> None:
        self._loss = loss
        self.asked: dict[str, list[str]] = {}
        self.until: dict[str, str] = {}
        self._each = each

    def losses(self, record: Any, sources: Sequence[LogSource], until: str) -> Losses:
        self.asked[record] = [each.caption for each in sources]
        self.until[record] = until
        return Losses(f"since {record}", (self._loss,) * self._each)


def look(
    monkeypatch: pytest.MonkeyPatch, writer: Writer, *, asking: str, most: int | None = None, away: str = ""
) -> dict[str, Losses]:
    documents: Any = [SimpleNamespace(session=each) for each in NAMES]
    seen = [(each, "its disk is away" if each.session == away else LogSource(each.session, {})) for each in documents]
    monkeypatch.setattr(naming, "sources_of", lambda *_: seen)
    monkeypatch.setattr(naming, "rolling", lambda document, _: (document.session, writer))
    monkeypatch.setattr(naming, "live_source", lambda _: LogSource("live", {}, live=True))
    hands: Any = None
    return naming.losses(documents, set(NAMES), most, "/archive", asking, hands)


@pytest.mark.parametrize("asking", NAMES)
def test_an_archive_is_asked_behind_one_alone(monkeypatch: pytest.MonkeyPatch, asking: str) -> None:
    writer = Writer()
    look(monkeypatch, writer, asking=asking)
    assert {name for name, sources in writer.asked.items() if "the archive" in sources} == {asking}
    assert writer.asked[asking][-2:] == ["the archive", "live"], "the live one is the last word"
    assert writer.asked["middle"][:2] == ["middle", "newest"]


def test_each_is_read_up_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer()
    look(monkeypatch, writer, asking="newest")
    assert writer.until == {"newest": "", "middle": "since newest", "oldest": "since middle"}


def test_enough_is_enough_but_for_the_one_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for asking, expected in {"newest": {"newest"}, "middle": {"newest", "middle"}, "oldest": set(NAMES)}.items():
        writer = Writer(each=20)
        assert set(look(monkeypatch, writer, asking=asking, most=20)) == expected


def test_lost_rows_hide_no_lost_table(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(each=20, loss=replace(LOSS, what=("deleted 1001 rows of t", "changed 2000 rows of t")))
    assert set(look(monkeypatch, writer, asking="newest", most=20)) == set(NAMES)


def test_one_that_cannot_be_looked_at_is_said_and_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer()
    found = look(monkeypatch, writer, asking="newest", most=1, away="newest")
    assert "its disk is away" in found["newest"].against
    assert set(writer.asked) == {"middle"}
    assert writer.until == {"middle": ""}, "so the log behind it is read, too"
