# SPDX-License-Identifier: Apache-2.0
"""Hooks as real processes: whom root trusts, what they are told, and that nothing of them outlives its deadline."""

import os
import secrets
import threading
import time
from pathlib import Path

import pytest

from slackwater.model.hooks import Hook, Hooks
from slackwater.system import hooks
from slackwater.system.hooks import HookError, Pair, Ran
from slackwater.system.processes import stat_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="hooks are root's")]
NOBODY = 65534


@pytest.fixture
def folder() -> Path:
    """A folder with nothing but root's folders above it: /tmp is everybody's."""
    made = Path("/run/slackwater-test-hooks") / secrets.token_hex(4)
    made.mkdir(parents=True, mode=0o755)
    return made


@pytest.fixture(autouse=True)
def swept(folder: Path) -> object:
    yield
    for each in sorted(folder.rglob("*"), reverse=True):
        each.rmdir() if each.is_dir() and not each.is_symlink() else each.unlink()
    folder.rmdir()
    if not list(folder.parent.iterdir()):
        folder.parent.rmdir()


def program(path: Path, text: str = "exit 0") -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_what_only_root_could_have_written_is_trusted(folder: Path) -> None:
    assert hooks.distrust(program(folder / "hook")) == ""
    assert hooks.distrust("/bin/true") == "", "through the link /bin"
    (folder / "link").symlink_to("hook")
    assert hooks.distrust(str(folder / "link")) == ""
    assert hooks.distrust(f"{folder}/./../{folder.name}/hook") == ""


def test_what_others_could_have_written_is_refused(folder: Path, tmp_path: Path) -> None:
    hook = program(folder / "hook")
    (folder / "open").mkdir(mode=0o755)
    inside = program(folder / "open/hook")
    (folder / "link").symlink_to("open/hook")
    assert [hooks.distrust(each) for each in (hook, inside, str(folder / "link"))] == [""] * 3

    (folder / "open").chmod(0o775)
    for each in (inside, str(folder / "link")):
        assert hooks.distrust(each) == f"others than root may write {folder}/open"
    os.chown(folder / "open", NOBODY, 0)
    assert hooks.distrust(inside) == f"{folder}/open belongs to user {NOBODY}"
    os.lchown(folder / "link", NOBODY, 0)
    assert hooks.distrust(str(folder / "link")) == f"{folder}/link belongs to user {NOBODY}"
    os.chmod(hook, 0o757)  # noqa: S103
    assert hooks.distrust(hook) == f"others than root may write {hook}"

    (folder / "out").symlink_to(tmp_path)
    assert hooks.distrust(program(folder / "out/hook").replace(str(tmp_path), f"{folder}/out")) == (
        "others than root may write /tmp"
    )
    assert hooks.distrust("hook") == "hook is no absolute path"
    assert hooks.distrust(str(folder)) == f"{folder} is no program"
    assert "No such file" in hooks.distrust(str(folder / "none"))
    (folder / "round").symlink_to("round")
    assert "too many links" in hooks.distrust(str(folder / "round"))


def test_what_is_not_trusted_is_refused_in_the_plan_and_not_run(folder: Path) -> None:
    hook = program(folder / "hook", f"touch {folder}/ran")
    os.chmod(hook, 0o777)  # noqa: S103
    (found,) = hooks.findings(Hooks(pre_freeze=Hook((hook,)), post_thaw=Hook(("/bin/true",))))
    assert found.sentence == f"The hook pre_freeze would run {hook} as root, but others than root may write {hook}."
    assert hooks.run([hook], 5, {}) == Ran(f"was not run: others than root may write {hook}", "")
    assert not (folder / "ran").exists()


def test_it_is_told_what_it_is_for_and_nothing_else(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    hook = program(folder / "hook", 'env | sort | grep -v "^PWD\\|^_\\|^SHLVL"; echo "$@ $PWD" >&2; ! read line')
    pair = Pair("2026-11-22-1", "orders", ("pre_stop", "post_start"), (hook, "a b", "$c"), 5.0)
    ran = pair.begin()
    assert ran.failure == ""
    assert ran.said.splitlines() == [
        "HOME=/root", "LC_ALL=C.UTF-8", f"PATH={hooks._PATH}", "SLACKWATER_PHASE=pre_stop",
        "SLACKWATER_SESSION=2026-11-22-1", "SLACKWATER_SPEC=orders", "a b $c /",
    ]  # fmt: skip
    assert pair.end() == Ran("", ""), "the absent one"


def test_a_failure_is_said_with_its_words(folder: Path) -> None:
    pair = Pair("s", "orders", ("pre_freeze", "post_thaw"), (program(folder / "hook", "echo no; exit 3"),), 5.0)
    with pytest.raises(HookError, match=r"Hook pre_freeze \(.*/hook\) ended with status 3 and said: no"):
        pair.make()
    assert hooks.run([program(folder / "hook", "kill -9 $$")], 5, {}).failure == "was ended by signal 9"


@pytest.mark.parametrize("stopped", [False, True])
def test_the_deadline_ends_everything_it_has_started(folder: Path, stopped: bool) -> None:
    hook = program(folder / "hook", f"trap '' TERM; sleep 300 & echo $! >{folder}/child; echo begun; wait; wait")
    stop = threading.Event()
    if stopped:
        threading.Timer(0.5, stop.set).start()
    ran = hooks.run([hook], 60 if stopped else 0.5, {}, stop)
    said = "was stopped with the session" if stopped else "did not end within 0.5 s and was killed"
    assert ran == Ran(said, "begun")
    assert gone(int((folder / "child").read_text()))


def gone(pid: int) -> bool:
    ends_s = time.monotonic() + 10
    while (stat := stat_of(pid)) and not stat.dead:
        if time.monotonic() > ends_s:
            return False
        time.sleep(0.02)
    return True


def test_only_the_end_of_what_it_says_is_kept_and_nobody_waits_for_a_child_that_goes_on(folder: Path) -> None:
    text = f"head -c 50000000 /dev/zero | tr '\\0' x; echo; echo end; sleep 300 & echo $! >{folder}/child"
    ran = hooks.run([program(folder / "hook", text)], 60, {})
    os.kill(int((folder / "child").read_text()), 9)
    assert (ran.failure, len(ran.said)) == ("", hooks._MOST_SAID_BYTES - 1)
    assert ran.said.endswith("x\nend")
