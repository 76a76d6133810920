# SPDX-License-Identifier: Apache-2.0
"""The journal on a real file, with effects that make real files."""

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from slackwater.errors import SlackwaterError
from slackwater.journal.effects import EffectKinds
from slackwater.journal.journal import SCHEMA_VERSION, Decision, EffectState, Journal
from slackwater.model.facts import Facts


@dataclass(frozen=True)
class Touch:
    """Makes an empty file; the simplest thing outside the process."""

    kind: ClassVar[str] = "test.touch"
    path: str
    tags: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"touch {self.path}"

    def make(self) -> Facts:
        Path(self.path).touch()
        return {"inode": os.stat(self.path).st_ino}

    def undo(self) -> None:
        Path(self.path).unlink(missing_ok=True)


@dataclass(frozen=True)
class Stubborn:
    """Cannot be undone."""

    kind: ClassVar[str] = "test.stubborn"
    path: str

    def describe(self) -> str:
        return "be stubborn"

    def make(self) -> Facts:
        return {}

    def undo(self) -> None:
        raise SlackwaterError("No.")


KINDS = EffectKinds([Touch, Stubborn])


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(str(tmp_path / "journal.sqlite"), KINDS)
    journal.begin("s1", "backup", "1:2:3")
    return journal


def test_an_effect_is_intended_before_and_done_after(journal: Journal, tmp_path: Path) -> None:
    seen: list[EffectState] = []

    class Spy(Touch):
        def make(self) -> Facts:
            seen.append(journal.entries("s1")[0].state)
            return super().make()

    facts = journal.run("s1", Spy(str(tmp_path / "a")))
    assert seen == [EffectState.INTENT]
    (entry,) = journal.entries("s1")
    assert entry.state is EffectState.DONE
    assert entry.facts == facts


def test_undo_goes_backwards_and_one_failure_stops_nothing(journal: Journal, tmp_path: Path) -> None:
    journal.run("s1", Touch(str(tmp_path / "a")))
    journal.run("s1", Stubborn("x"))
    journal.run("s1", Touch(str(tmp_path / "b"), ("tag",)))
    mended = journal.undo("s1")
    assert [each.effect for each in mended] == [f"touch {tmp_path}/b", "be stubborn", f"touch {tmp_path}/a"]
    assert [bool(each.error) for each in mended] == [False, True, False]
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()
    assert [each.effect for each in journal.undo("s1")] == ["be stubborn"]


def test_what_was_decided_is_finished_in_order(journal: Journal, tmp_path: Path) -> None:
    journal.run("s1", Touch(str(tmp_path / "a")))
    journal.intend("s1", [Touch(str(tmp_path / "b")), Touch(str(tmp_path / "c"))])
    journal.decide("s1", Decision.FINISH)
    (cut_off,) = journal.open_sessions()
    assert cut_off.decision is Decision.FINISH
    assert [(each.effect, each.action) for each in journal.finish("s1")] == [
        (f"touch {tmp_path}/b", Decision.FINISH),
        (f"touch {tmp_path}/c", Decision.FINISH),
    ]
    assert (tmp_path / "c").exists()
    assert journal.finish("s1") == []
    journal.settle("s1")
    assert journal.open_sessions() == []
    assert journal.entries("s1") == []


def test_a_strict_undo_stops_at_a_failure_and_goes_on_from_there(journal: Journal, tmp_path: Path) -> None:
    """One volume is back and the other is not: what was stopped before must not be started now."""
    journal.run("s1", Touch(str(tmp_path / "stopped")))
    journal.run("s1", Stubborn("held"))
    journal.run("s1", Touch(str(tmp_path / "last")))
    for again in range(2):
        mended = journal.undo("s1", strictly=True)
        assert [each.done for each in mended] == ([True, False] if not again else [False])
        assert (tmp_path / "stopped").exists()
        assert not (tmp_path / "last").exists()
    assert [each.done for each in journal.undo("s1")] == [False, True]
    assert not (tmp_path / "stopped").exists()


def test_an_effect_that_nobody_knows_is_kept_and_named(tmp_path: Path) -> None:
    path = str(tmp_path / "journal.sqlite")
    journal = Journal(path, KINDS)
    journal.begin("s1", "backup", "1:2:3")
    journal.run("s1", Touch(str(tmp_path / "a")))
    journal.close()
    stranger = Journal(path, EffectKinds([]))
    (mended,) = stranger.undo("s1")
    assert "test.touch" in mended.error
    assert (tmp_path / "a").exists()
    assert stranger.entries("s1")[0].state is EffectState.DONE


def test_one_effect_can_be_reverted_out_of_turn(journal: Journal, tmp_path: Path) -> None:
    first = Touch(str(tmp_path / "a"), ("x", "y"))
    journal.run("s1", first)
    journal.run("s1", Touch(str(tmp_path / "b")))
    journal.revert("s1", first)
    assert not (tmp_path / "a").exists()
    assert [each.state for each in journal.entries("s1")] == [EffectState.UNDONE, EffectState.DONE]


def test_a_newer_journal_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    Journal(str(path), KINDS).close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    raw.close()
    before = path.read_bytes()
    with pytest.raises(SlackwaterError) as refused:
        Journal(str(path), KINDS)
    assert refused.value.reason == "journal-newer"
    assert path.read_bytes() == before


def test_a_damaged_journal_is_a_plain_error(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(SlackwaterError) as refused:
        Journal(str(path), KINDS)
    assert refused.value.reason == "journal"


def test_it_is_for_its_owner_only_and_what_is_deleted_in_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.touch(mode=0o644)
    journal = Journal(str(path), KINDS)
    journal.begin("s1", "recovery", "1:1:x")
    journal.intend("s1", [Touch("a secret of theirs")])
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}
    journal.settle("s1")
    journal.close()
    assert b"a secret of theirs" not in path.read_bytes()


def test_two_kinds_of_one_name_are_refused() -> None:
    class Other(Touch):
        pass

    with pytest.raises(ValueError, match=r"test\.touch"):
        EffectKinds([Touch, Other])


_VICTIM = """
import sys; sys.path.insert(0, {tests!r})
from tests.unit.journal.test_journal import KINDS, Touch
from slackwater.journal.journal import Journal
journal = Journal({path!r}, KINDS)
journal.begin("victim", "backup", "1:2:3")
print("ready", flush=True)
for number in range(100000):
    journal.run("victim", Touch({folder!r} + f"/f{{number}}"))
"""


def test_killed_at_any_moment_everything_that_was_made_is_known(tmp_path: Path) -> None:
    """Intent before effect: whatever lies on the disk after a kill is in the journal, and undo leaves nothing."""
    path, folder = str(tmp_path / "journal.sqlite"), tmp_path / "made"
    folder.mkdir()
    script = _VICTIM.format(tests=str(Path.cwd()), path=path, folder=str(folder))
    for pause_s in (0.01, 0.03, 0.1):
        victim = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert victim.stdout is not None
        victim.stdout.readline()
        while not any(folder.iterdir()):
            assert victim.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            victim.wait(pause_s)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        victim.stdout.close()
        journal = Journal(path, KINDS)
        made = {each.name for each in folder.iterdir()}
        known = {Path(each.fields["path"]).name for each in journal.entries("victim")}
        assert made
        assert made <= known
        journal.take("victim")
        journal.undo("victim")
        journal.settle("victim")
        assert list(folder.iterdir()) == []
        journal.close()


@dataclass(frozen=True)
class Halt(Stubborn):
    """An application that does not start again."""

    kind: ClassVar[str] = "test.stop"


def test_an_application_that_does_not_start_again_keeps_no_other_down(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal.sqlite"), EffectKinds([Touch, Halt]))
    journal.begin("s1", "recovery", "1:2:3")
    journal.run("s1", Touch(str(tmp_path / "stopped")))
    journal.run("s1", Halt("destroyed"))
    mended = journal.undo("s1", strictly=True)
    assert [(each.done, each.unstarted) for each in mended] == [(False, True), (True, False)]
    assert not (tmp_path / "stopped").exists()


def test_some_entries_can_be_spared(journal: Journal, tmp_path: Path) -> None:
    for name in "abc":
        journal.run("s1", Touch(str(tmp_path / name)))
    kept = journal.entries("s1")[:2]
    assert len(journal.undo("s1", sparing={each.id for each in kept})) == 1
    assert sorted(each.name for each in tmp_path.iterdir() if each.name in "abc") == ["a", "b"]
    assert [each.state for each in journal.entries("s1")] == ["done", "done", "undone"]
