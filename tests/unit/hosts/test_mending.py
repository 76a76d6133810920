# SPDX-License-Identifier: Apache-2.0
"""What becomes of a recovery that failed or was cut off, by what its storage shows and its journal says."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from slackwater.hosts.mending import Mender
from slackwater.journal.effects import EffectKinds
from slackwater.journal.journal import Decision, Journal, OpenSession
from slackwater.model.facts import Facts
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Window
from slackwater.model.replica import BackupComponents, ReplicaKind
from slackwater.model.session import SessionKind
from slackwater.model.storage import ShadowCopy, Volume
from slackwater.recovery.order import Hands
from slackwater.system.clock import SYSTEM_CLOCK


@dataclass(frozen=True, slots=True)
class Mark:
    """A file that is there when the effect is made."""

    kind: ClassVar[str] = "test.mark"
    path: str

    def describe(self) -> str:
        return f"mark {self.path}"

    def make(self) -> Facts:
        Path(self.path).touch()
        return {}

    def undo(self) -> None:
        Path(self.path).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Turn(Mark):
    """The same in place of an exchange."""

    kind: ClassVar[str] = "test.turn"

    def exchanged(self) -> bool:
        return Path(self.path).exists()


@dataclass(frozen=True, slots=True)
class Lift(Mark):
    """In place of the end of a bar: the file is the bar."""

    kind: ClassVar[str] = "test.lift"

    def make(self) -> Facts:
        Path(self.path).unlink(missing_ok=True)
        return {}

    def undo(self) -> None:
        Path(self.path).touch()


@dataclass(frozen=True, slots=True)
class Beside(Mark):
    """The same in place of a clone."""

    kind: ClassVar[str] = "test.beside"

    def keep(self) -> Facts:
        Path(self.path).rename(f"{self.path}-kept")
        return {}


@dataclass(frozen=True, slots=True)
class Start(Mark):
    """The same in place of a start: the file is the running application."""

    kind: ClassVar[str] = "test.start"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(str(tmp_path / "journal.sqlite"), EffectKinds([Mark, Beside, Turn, Lift, Start]))
    journal.begin("s1", SessionKind.RECOVERY, "1:2:3")
    yield journal
    journal.close()


def document() -> BackupComponents:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    copy = ShadowCopy(Volume("test", "id", "v", "/v", "s", {}), "s1/v", {})
    return BackupComponents(
        schema_version=1, owner="o", session="s1", kind=ReplicaKind.BACKUP, specification="shop", created=now,
        hold=Hold.COLD, reason="", consistency=Consistency.CRASH, window=Window(), components=(), copies=(copy,),
        replica="earlier",
    )  # fmt: skip


def mender(journal: Journal, *found: BackupComponents) -> Mender:
    provider: Any = SimpleNamespace(
        effects=(Beside, Turn, Lift), write_document=lambda document: None,
        find=lambda: [SimpleNamespace(session=each.session, document=each) for each in found],
    )  # fmt: skip
    return Mender(journal, Hands({}, {"test": provider}, SYSTEM_CLOCK))


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.suffix == "")


def cut_off(journal: Journal) -> OpenSession:
    (opened,) = journal.open_sessions()
    return opened


@pytest.mark.parametrize("recorded", [True, False])
def test_a_bar_that_an_undecided_undo_put_back_is_lifted_again(
    journal: Journal, tmp_path: Path, *, recorded: bool
) -> None:
    clone, turn, bar, start = (str(tmp_path / name) for name in ("clone", "turn", "bar", "start"))
    for effect in (Mark(clone), Turn(turn), Lift(bar)):
        journal.run("s1", effect)
    journal.intend("s1", [Mark(start)])
    # A full disk: no decision could be written, and of what was undone perhaps nothing. Then the process was killed.
    Lift(bar).undo()
    if recorded:
        journal.revert("s1", Lift(bar), undo=False)
    assert mender(journal, document()).mend(cut_off(journal)).whole
    assert names(tmp_path) == ["clone", "start", "turn"]
    assert journal.open_sessions() == []


def test_what_was_not_switched_is_undone(journal: Journal, tmp_path: Path) -> None:
    clone, turn, bar = (str(tmp_path / name) for name in ("clone", "turn", "bar"))
    for effect in (Mark(clone), Turn(turn), Lift(bar)):
        journal.run("s1", effect)
    Turn(turn).undo()
    assert mender(journal, document()).mend(cut_off(journal)).whole
    assert names(tmp_path) == ["bar"]
    assert journal.open_sessions() == []


@pytest.mark.parametrize("switched", [True, False])
def test_what_an_undo_that_was_cut_off_finds_switched_may_have_run_and_is_kept(
    journal: Journal, tmp_path: Path, *, switched: bool
) -> None:
    clone, turn = (str(tmp_path / name) for name in ("clone", "turn"))
    journal.run("s1", Beside(clone))
    journal.run("s1", Turn(turn))
    journal.decide("s1", Decision.UNDO)
    if not switched:
        Turn(turn).undo()
    assert mender(journal, document()).mend(cut_off(journal)).whole
    assert names(tmp_path) == (["clone-kept"] if switched else [])
    assert journal.open_sessions() == []


def test_what_failed_when_all_was_switched_may_have_run_and_is_kept(journal: Journal, tmp_path: Path) -> None:
    clone, turn = (str(tmp_path / name) for name in ("clone", "turn"))
    journal.run("s1", Beside(clone))
    journal.run("s1", Turn(turn))
    assert mender(journal, document()).undo("s1").document is not None
    assert names(tmp_path) == ["clone-kept"]


@pytest.mark.parametrize("switched", [True, False])
def test_who_runs_on_what_was_there_before_is_not_stopped(journal: Journal, tmp_path: Path, *, switched: bool) -> None:
    """Its start had been undone without a record of that, or was never made, and the application started by others."""
    clone, turn, running = (str(tmp_path / name) for name in ("clone", "turn", "running"))
    journal.run("s1", Beside(clone))
    journal.run("s1", Turn(turn))
    journal.intend("s1", [Start(running)])
    journal.decide("s1", Decision.KEEP)
    if not switched:
        Turn(turn).undo()
    Path(running).touch()
    assert mender(journal, document()).mend(cut_off(journal)).whole
    assert names(tmp_path) == (["clone-kept"] if switched else ["clone-kept", "running"])


@pytest.mark.parametrize("decision", [Decision.FINISH, Decision.KEEP])
def test_a_recovery_whose_document_is_not_seen_is_not_settled(
    journal: Journal, tmp_path: Path, decision: Decision
) -> None:
    clone, turn = (str(tmp_path / name) for name in ("clone", "turn"))
    journal.run("s1", Beside(clone))
    journal.run("s1", Turn(turn))
    journal.decide("s1", decision)
    told = mender(journal).mend(cut_off(journal))
    assert not told.whole
    assert "document" in told.mended[-1].error
    assert mender(journal, document()).mend(cut_off(journal)).whole
    assert names(tmp_path) == (["clone", "turn"] if decision is Decision.FINISH else ["clone-kept"])
    assert journal.open_sessions() == []
