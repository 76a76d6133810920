# SPDX-License-Identifier: Apache-2.0
"""Configuration files that are put back, in a process that dies before each of its steps: undone, or finished.

With the rights of the engine's user, whatever he lays in the way; and nobody else's writing is lost.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from slackwater.errors import SlackwaterError
from slackwater.system.configuration import (
    ABSENT,
    Change,
    PutConfiguration,
    RemoveConfiguration,
    forget,
    plan,
    read_text,
)
from slackwater.system.owned import Folder, Owner, against, digest

pytestmark = [pytest.mark.root]
OLD, NEW, EDITED = "work_mem = '8MB'\n", "work_mem = '4MB'  # ü\r\n", "work_mem = '9MB'\n"
SESSION, NAME = "2026-11-22-1", "postgresql.conf"
KEPT = f"{NAME}.slackwater-{SESSION}"
ENGINE = Owner(65534, 65534)
_MOST = 80


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the engine's user, beside one of root's."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        made = Path(home, "engine")
        made.mkdir()
        os.chown(made, ENGINE.uid, ENGINE.gid)
        Path(home, "root").mkdir()
        yield made


@dataclass(frozen=True)
class Unwilling(PutConfiguration):
    """A sabotaged twin: it puts nothing back."""

    def undo(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class InPlace(PutConfiguration):
    """A sabotaged twin: it writes into the file."""

    def _replace(self, folder: Folder, names: object) -> None:
        Path(self.path).write_text(self.text, encoding="utf-8")


def put(path: Path, present: str | None, kind: type[PutConfiguration] = PutConfiguration) -> PutConfiguration:
    was = ABSENT if present is None else digest(present.encode())
    return kind(SESSION, str(path), NEW, was, ENGINE.uid, ENGINE.gid)


def killed(work: Callable[[], object], step: int) -> bool:
    """Do it in a process that dies at that step of its with files; False when it came to its end before."""
    if (child := os.fork()) == 0:
        steps = 0

        def hook(event: str, _: object) -> None:
            nonlocal steps
            steps += event == "open" or event.startswith("os.")
            if steps > step:
                os._exit(9)

        sys.addaudithook(hook)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def state(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    found = ((each, each.stat()) for each in folder.iterdir())
    return {each.name: (each.read_bytes(), status.st_mode, status.st_uid) for each, status in found}


def laid(folder: Path, text: str | None, name: str = NAME) -> Path:
    path = folder / name
    for each in folder.iterdir():
        each.unlink()
    return path if text is None else written(path, text)


def written(path: Path, text: str) -> Path:
    path.write_text(text, newline="")
    path.chmod(0o604)
    os.chown(path, ENGINE.uid, ENGINE.gid)
    return path


def faults(
    folder: Path, text: str | None, effect_of: Callable[[Path], Change], expected: dict[str, object]
) -> list[str]:
    """What is not as it must be, over all steps at which it dies."""
    found = []
    for step in range(_MOST):
        path = laid(folder, text)
        before, effect = state(folder), effect_of(path)
        ended = not killed(effect.make, step)
        effect.undo()
        if state(folder) != before:
            found.append(f"undone after {step}")
        effect.make()
        killed(forget(effect).make, step)
        forget(effect).make()
        if state(folder) != expected:
            found.append(f"finished after {step}")
        if ended:
            return found
    raise AssertionError("it never came to its end")


def expected_of(mode: int) -> dict[str, object]:
    return {NAME: (NEW.encode(), mode, ENGINE.uid)}


@pytest.mark.parametrize(("old", "mode"), [(OLD, 0o100604), (None, 0o100640)])
def test_killed_anywhere_it_is_undone_or_finished(folder: Path, old: str | None, mode: int) -> None:
    assert faults(folder, old, lambda path: put(path, old), expected_of(mode)) == []


def test_a_removal_killed_anywhere_is_undone_or_finished(folder: Path) -> None:
    def removal(path: Path) -> Change:
        return RemoveConfiguration(SESSION, str(path), digest(OLD.encode()), ENGINE.uid, ENGINE.gid)

    assert faults(folder, OLD, removal, {}) == []


def test_an_undo_that_dies_is_made_again(folder: Path) -> None:
    for step in range(_MOST):
        path = laid(folder, OLD)
        before, effect = state(folder), put(path, OLD)
        effect.make()
        ended = not killed(effect.undo, step)
        effect.undo()
        assert state(folder) == before, step
        if ended:
            return


@pytest.mark.parametrize("twin", [Unwilling, InPlace])
def test_twins_are_caught(folder: Path, twin: type[PutConfiguration]) -> None:
    assert faults(folder, OLD, lambda path: put(path, OLD, twin), expected_of(0o100604))


def test_only_what_differs_is_put_back_and_what_was_gone_goes_again(folder: Path) -> None:
    one, gone = laid(folder, OLD), folder / "gone.conf"
    now = {str(one): OLD, "same": NEW}
    changes = plan({str(one): NEW, "same": NEW, str(gone): NEW}, {}, now, ENGINE, SESSION)
    for each in changes:
        each.make()
        forget(each).make()
    assert {name: text for name, (text, *_) in state(folder).items()} == dict.fromkeys((NAME, gone.name), NEW.encode())
    back = plan(
        {str(one): OLD}, {str(gone): digest(NEW.encode())}, dict.fromkeys(map(str, (one, gone)), NEW), ENGINE, "2"
    )
    for each in back:
        each.make()
        forget(each).make()
    assert {name: text for name, (text, *_) in state(folder).items()} == {NAME: OLD.encode()}


@contextmanager
def refused(what: str) -> Iterator[None]:
    with pytest.raises(SlackwaterError, match=what):
        yield


@pytest.mark.parametrize("old", [OLD, None])
def test_what_was_written_before_it_stays(folder: Path, old: str | None) -> None:
    path = laid(folder, EDITED)
    before, effect = state(folder), put(path, old)
    with refused("was changed while the recovery ran"):
        effect.make()
    effect.undo()
    assert state(folder) == before


@pytest.mark.parametrize("old", [OLD, None])
def test_what_is_written_after_it_is_kept(folder: Path, old: str | None) -> None:
    for step in range(_MOST):
        path = laid(folder, old)
        effect = put(path, old)
        effect.make()
        path.write_text(EDITED)
        ended = not killed(effect.undo, step)
        effect.undo()
        wanted = {KEPT: EDITED.encode()} | ({NAME: OLD.encode()} if old else {})
        assert {name: text for name, (text, *_) in state(folder).items()} == wanted, step
        if ended:
            return


def test_what_an_editor_wrote_into_the_replaced_file_is_kept(folder: Path) -> None:
    path = laid(folder, OLD)
    effect = put(path, OLD)
    with path.open("a") as editor:
        effect.make()
        editor.write(EDITED)
    forget(effect).make()
    assert {name: text for name, (text, *_) in state(folder).items()} == {
        NAME: NEW.encode(), KEPT: (OLD + EDITED).encode(),
    }  # fmt: skip


def test_a_strangers_file_that_came_meanwhile_is_not_removed(folder: Path) -> None:
    path = laid(folder, None)
    effect = put(path, None)
    effect.make()
    path.unlink()
    written(path, NEW)
    before = state(folder)[NAME]
    effect.undo()
    assert state(folder) == {NAME: before}


def test_the_engines_user_leads_root_nowhere(folder: Path) -> None:
    """By a link in the file's place, in that of its folder, and by one laid under a name of ours."""
    roots = folder.parent / "root"
    secret = roots / "secret"
    secret.write_text(OLD)
    secret.chmod(0o600)
    path = laid(folder, None)
    path.symlink_to(roots / "cron")
    assert against(str(path), ENGINE) == "it is a link"
    for present in (OLD, None):
        with refused("cannot be written"):
            put(path, present).make()
    with refused("cannot be written"):
        put(roots / "new", None).make()
    assert (read_text(str(secret), ENGINE), read_text(str(path), ENGINE)) == (None, None)
    assert os.listdir(roots) == ["secret"]

    path = laid(folder, OLD)
    (folder / f".{NAME}.slackwater-{SESSION}").symlink_to(secret)
    with refused("cannot be written"):
        put(path, OLD).make()
    (folder / f".{NAME}.slackwater-{SESSION}").unlink()
    path.chmod(0o4755)
    os.mkfifo(folder / "pipe")
    assert (read_text(str(folder / "pipe"), ENGINE), against(str(path), ENGINE)) == (None, "")
    put(path, OLD).make()
    assert path.stat().st_mode == 0o100755

    (folder.parent / "way").symlink_to(roots)
    assert "may not write in its folder" in against(str(folder.parent / "way" / "cron"), ENGINE)
    os.chown(path, 0, 0)
    assert "belongs to user 0" in against(str(path), ENGINE)
    assert "no user but root" in against(str(path), Owner(0, 0))
    assert (os.listdir(roots), secret.read_text()) == (["secret"], OLD)


def test_what_is_open_to_roots_group_is_not_to_the_engines_user(folder: Path) -> None:
    path = laid(folder, OLD)
    os.chown(path, 0, 0)
    path.chmod(0o640)
    groups = os.getgroups()
    os.setgroups([0])
    try:
        assert read_text(str(path), ENGINE) is None
        assert os.getgroups() == [0]
    finally:
        os.setgroups(groups)
