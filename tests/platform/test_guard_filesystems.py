# SPDX-License-Identifier: Apache-2.0
"""Filesystems are frozen from the top of the stack down, and every one is writable again, whoever hangs or dies."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from slackwater.errors import DeadlineError, RefusedError
from slackwater.guard import understudy
from slackwater.guard.client import Guard
from slackwater.guard.leftovers import release_leftovers
from slackwater.model.storage import Filesystem
from slackwater.system import processes, topology
from tests.platform.crowd import eventually, new_crowd, new_folder
from tests.platform.disks import mounted, thaw, writable
from tests.platform.guarding import command, gone, kill_together, states, stop

pytestmark = [pytest.mark.root]


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as made:
        yield made


@pytest.fixture
def run_dir() -> Iterator[str]:
    with new_folder() as made:
        yield str(made)
        release_leftovers(str(made))


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    with mounted("ext4", folder) as place:
        yield place


@pytest.fixture(params=["xfs", "btrfs"])
def stack(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Path, Path]]:
    """An ext4 in a file on another filesystem: the outer and the inner one."""
    with mounted(request.param, folder, "outer") as outer, mounted("ext4", outer, "inner") as inner:
        yield outer, inner


def arm(
    run_dir: str, *filesystems: Filesystem, freeze_s: float = 20, hold_s: float = 20, cgroups: tuple[str, ...] = ()
) -> Guard:
    return Guard.arm("s1", cgroups, freeze_s=freeze_s, hold_s=hold_s, run_dir=run_dir, filesystems=filesystems)


def find(place: Path) -> Filesystem:
    return topology.find(str(place))


def freezers(guard: int) -> list[int]:
    return sorted(processes.descendants(guard) - {guard})


# --- the good hold -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_nothing_is_written_from_freeze_to_release(kind: str, folder: Path, run_dir: str) -> None:
    with mounted(kind, folder) as place, arm(run_dir, find(place)) as guard:
        (freezer,) = freezers(guard._process.pid)
        assert writable(place, 5)
        frozen = guard.freeze()
        assert not writable(place)
        released = guard.release()
        assert writable(place, 5)
        assert 0 < frozen.took_ms < 20000
        assert 300 <= released.held_ms < released.frozen_ms
        assert os.listdir(run_dir) == []
        assert not gone(freezer)
        guard.close()
        assert gone(freezer)
        assert not os.path.exists(guard._home)


def test_processes_stand_still_before_filesystems_are_frozen_and_move_again(disk: Path, run_dir: str) -> None:
    with new_crowd(1) as crowd, arm(run_dir, find(disk), cgroups=(crowd.cgroup,)) as guard:
        guard.freeze()
        assert crowd.stands()
        assert not writable(disk)
        guard.release()
        assert crowd.moves()
        assert writable(disk, 5)


def dirty(inner: Path) -> None:
    """Something that a freeze has to write first."""
    (inner / "dirty").write_bytes(b"x" * (1 << 20))


def check_stacked(stack: tuple[Path, Path], run_dir: str, ranks: tuple[Filesystem, ...]) -> None:
    outer, inner = stack
    dirty(inner)
    with arm(run_dir, *ranks, freeze_s=3) as guard:
        guard.freeze()
        assert not writable(inner)
        assert not writable(outer)
        guard.release()
        assert writable(inner, 5)
        assert writable(outer, 5)


def test_what_lies_in_another_one_is_frozen_before_it(stack: tuple[Path, Path], run_dir: str) -> None:
    ranks = topology.ranked([find(each) for each in stack])
    assert [each.mount for each in ranks] == [str(stack[1]), str(stack[0])]
    check_stacked(stack, run_dir, ranks)


def test_the_wrong_order_would_be_caught(stack: tuple[Path, Path], run_dir: str) -> None:
    """And a freezer that hangs in its freeze hinders nobody: the other filesystem is released at the deadline."""
    outer, inner = topology.ranked([find(each) for each in stack])[::-1]
    with pytest.raises(DeadlineError):
        check_stacked(stack, run_dir, (replace(outer, rank=0), replace(inner, rank=1)))
    assert writable(stack[0], 5)
    assert writable(stack[1], 5)


# --- somebody hangs, thaws, or has frozen before ------------------------------------------------------------------


def test_a_freezer_that_hangs_is_outlived_and_thaws_when_it_comes_back(stack: tuple[Path, Path], run_dir: str) -> None:
    outer, inner = stack
    dirty(inner)
    with new_crowd(1) as crowd:
        guard = arm(run_dir, find(inner), cgroups=(crowd.cgroup,), freeze_s=0.5)
        (freezer,) = freezers(guard._process.pid)
        subprocess.run(["fsfreeze", "-f", str(outer)], check=True)
        try:
            with guard:
                with pytest.raises(DeadlineError):
                    guard.freeze()
                assert crowd.moves()
                assert "D" in states(freezer), "its freeze has not come back"
        finally:
            assert thaw(outer)
    assert eventually(lambda: gone(freezer), 10)
    assert writable(inner, 5), "what comes back after the deadline is thawed at once"
    release_leftovers(run_dir)
    assert os.listdir(run_dir) == []


def freeze_again(place: Path) -> None:
    thaw(place)
    subprocess.run(["fsfreeze", "-f", str(place)], check=True)


@pytest.mark.parametrize("stranger", [thaw, freeze_again])
def test_a_stranger_who_thaws_breaks_the_hold(disk: Path, run_dir: str, stranger: Callable[[Path], object]) -> None:
    with arm(run_dir, find(disk)) as guard:
        guard.freeze()
        stranger(disk)
        with pytest.raises(DeadlineError, match=r"before its time|broken"):
            guard.release()
        assert os.listdir(run_dir) == []


def test_a_stranger_who_thaws_while_others_are_still_freezing_ends_the_wait_at_once(
    stack: tuple[Path, Path], disk: Path, run_dir: str
) -> None:
    outer, inner = stack
    dirty(inner)
    with arm(run_dir, replace(find(disk), rank=0), replace(find(inner), rank=1), freeze_s=60) as guard:
        subprocess.run(["fsfreeze", "-f", str(outer)], check=True)  # so the inner one never gets there
        rescue = threading.Timer(8, thaw, [outer])  # or its thaw would be waited for
        rescue.start()
        disturbed = threading.Timer(0.5, thaw, [disk])
        disturbed.start()
        with pytest.raises(DeadlineError, match="a stranger"):
            guard.freeze()
        assert writable(disk, 5)
        thaw(outer)
        rescue.cancel()
    assert eventually(lambda: writable(inner, 5), 10)


def test_what_somebody_else_has_frozen_is_refused_and_stays_frozen(disk: Path, run_dir: str) -> None:
    with arm(run_dir, find(disk)) as guard:
        subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
        with pytest.raises(DeadlineError, match="frozen by somebody else"):
            guard.freeze()
    assert os.listdir(run_dir) == []
    assert not writable(disk)
    assert thaw(disk), "it was still his"


def test_of_several_only_ours_are_thawed_where_one_was_frozen_by_somebody_else(
    folder: Path, disk: Path, run_dir: str
) -> None:
    with mounted("ext4", folder, "theirs") as theirs:
        with arm(run_dir, find(disk), find(theirs)) as guard:
            subprocess.run(["fsfreeze", "-f", str(theirs)], check=True)
            with pytest.raises(DeadlineError, match="frozen by somebody else"):
                guard.freeze()
            assert writable(disk, 5)
        assert os.listdir(run_dir) == []
        assert not writable(theirs)
        assert thaw(theirs), "it was still his"


def test_a_stopped_freezer_is_stood_in_for(disk: Path, run_dir: str) -> None:
    with arm(run_dir, find(disk)) as guard:
        guard.freeze()
        (freezer,) = freezers(guard._process.pid)
        stop(freezer)
        with pytest.raises(DeadlineError):
            guard.release()
        assert writable(disk, 5)
        os.kill(freezer, signal.SIGCONT)


def test_a_killed_freezer_costs_the_set_and_is_stood_in_for(disk: Path, run_dir: str) -> None:
    with arm(run_dir, find(disk)) as guard:
        guard.freeze()
        os.kill(freezers(guard._process.pid)[0], signal.SIGKILL)
        with pytest.raises(DeadlineError):
            guard.release()
        assert writable(disk, 5)
    assert os.listdir(run_dir) == []


def check_an_order_that_comes_too_late(dead: bool, disk: Path) -> None:
    """A freezer is stopped when it is armed, and reads its order when the deadline or its guard is no more."""
    with subprocess.Popen(["sleep", "1000"]) as guard:
        fd = os.pidfd_open(guard.pid)
        freezer = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", understudy.FREEZER], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            pass_fds=(fd,), bufsize=0,
        )  # fmt: skip
        os.close(fd)
        assert freezer.stdin is not None
        assert freezer.stdout is not None
        try:
            freezer.stdin.write(json.dumps({**vars_of(find(disk)), "master_fd": fd}).encode() + b"\n")
            assert json.loads(freezer.stdout.readline()) == {"event": "ready"}
            stop(freezer.pid)
            order = {"order": "freeze", "deadline": understudy.now() + (1000 if dead else 0)}
            freezer.stdin.write(json.dumps(order).encode() + b"\n")
            if dead:
                guard.kill()
                assert eventually(lambda: gone(guard.pid))
            os.kill(freezer.pid, signal.SIGCONT)
            freezer.stdin.close()
            said = [json.loads(line)["event"] for line in freezer.stdout]
        finally:
            freezer.stdout.close()
            for each in (freezer, guard):
                each.kill()
            freezer.wait()
    assert said == ["late"], "it was obeyed"


@pytest.mark.parametrize("dead", [False, True], ids=["deadline", "guard"])
def test_a_freezer_does_not_freeze_after_its_deadline_or_its_guards_death(dead: bool, disk: Path) -> None:
    if not dead:
        subprocess.run(["fsfreeze", "-f", str(disk)], check=True)  # so the kernel refuses another one, and that is said
    check_an_order_that_comes_too_late(dead, disk)


@pytest.mark.parametrize("dead", [False, True], ids=["deadline", "guard"])
def test_a_freezer_that_obeys_too_late_would_be_caught(
    dead: bool, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(understudy.FREEZER).read_text()
    seen = " or select.select([self.master], [], [], 0)[0]" if dead else "now() >= deadline or "
    twin = tmp_path / "freezer.py"
    twin.write_text(text.replace(seen, ""))
    assert twin.read_text() != text
    monkeypatch.setattr(understudy, "FREEZER", str(twin))
    with pytest.raises(AssertionError, match="it was obeyed"):
        test_a_freezer_does_not_freeze_after_its_deadline_or_its_guards_death(dead, disk)


# --- somebody dies -----------------------------------------------------------------------------------------------


def test_whoever_dies_or_stops_it_is_released(disk: Path, run_dir: str) -> None:
    def kill(*pids: int) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    deeds: dict[str, Callable[[int, int], None]] = {
        "coordinator killed": lambda coordinator, _: kill(coordinator),
        "guard killed": lambda _, guard: kill(guard),
        "coordinator stopped": lambda coordinator, _: stop(coordinator),
        "guard stopped": lambda _, guard: stop(guard),
        "both killed": kill_together,
    }
    for what, deed in deeds.items():
        with command(None, run_dir, freeze_s=1.0, filesystems=(find(disk),)) as held:
            assert held.next().startswith("frozen")
            assert not writable(disk, 0.1), what
            deed(held.process.pid, held.guard)
            assert writable(disk, 15), what
            for each in (held.guard, held.process.pid):
                if not gone(each):
                    os.kill(each, signal.SIGCONT)
        assert eventually(lambda: not os.listdir(run_dir)), what


def test_all_of_them_killed_are_stood_in_for_by_the_next_command(disk: Path, run_dir: str) -> None:
    with command(None, run_dir, filesystems=(find(disk),)) as held:
        helpers = freezers(held.guard)
        assert held.next().startswith("frozen")
        record = Path(run_dir, "guard.s1.json").read_text()
        assert find(disk).fsid in record
        everybody = (held.process.pid, held.guard, held.third, *helpers)
        stop(*everybody)
        for each in everybody:
            os.kill(each, signal.SIGKILL)
        assert not writable(disk)
        (said,) = release_leftovers(run_dir)
        assert str(disk) in said
        assert writable(disk, 5)
        assert os.listdir(run_dir) == []


def test_what_is_mounted_there_now_is_another_one_and_is_left_alone(folder: Path, disk: Path) -> None:
    """The record names a superblock; what bears its mount point or its number by now is somebody else's."""
    subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
    here = find(disk)
    for other in (replace(here, superblock="7:4711"), replace(here, fsid="0")):
        (problem,) = understudy.thaw_all([vars_of(other)])[1]
        assert "not mounted there" in problem
    assert thaw(disk)
    with mounted("ext4", folder, "second") as second:
        elsewhere = vars_of(replace(here, mount=str(second)))
        subprocess.run(["fsfreeze", "-f", str(disk)], check=True)
        assert understudy.thaw_all([elsewhere]) == ([str(second)], []), "found by its superblock where it is mounted"
        assert not thaw(disk)


def check_the_next_xfs_of_a_device_is_another_one(folder: Path) -> None:
    """The kernel's fsid of an XFS is the number of its device."""
    image, place, found = folder / "image", Path(f"/dev/shm/sw-{os.urandom(4).hex()}-next"), []
    with image.open("wb") as f:
        f.truncate(320 << 20)
    device = subprocess.run(["losetup", "-f", "--show", image], check=True, stdout=subprocess.PIPE, text=True).stdout
    place.mkdir()
    try:
        for _ in range(2):
            subprocess.run(["mkfs.xfs", "-q", "-f", device.strip()], check=True)
            subprocess.run(["mount", device.strip(), str(place)], check=True)
            found.append(find(place))
            subprocess.run(["fsfreeze", "-f", str(place)], check=True)
            thawed, problems = understudy.thaw_all([vars_of(found[0])])
            thaw(place)
            subprocess.run(["umount", str(place)], check=True)
    finally:
        thaw(place)
        subprocess.run(["umount", "-q", str(place)], check=False)
        place.rmdir()
        subprocess.run(["losetup", "-d", device.strip()], check=True)
    assert found[0].superblock == found[1].superblock
    assert "not mounted there" in "".join(problems), "taken for the other one"
    assert thawed == []


def test_the_next_xfs_of_a_device_is_another_one(folder: Path) -> None:
    check_the_next_xfs_of_a_device_is_another_one(folder)


def test_an_xfs_known_by_the_kernels_fsid_would_be_caught(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(understudy.FREEZER).read_text()
    twin = tmp_path / "freezer.py"
    twin.write_text(text.replace("in UUIDS:", "in ():"))
    assert twin.read_text() != text
    monkeypatch.setattr(understudy, "FREEZER", str(twin))
    monkeypatch.setattr(topology, "_fsid", lambda fd, _: f"{os.fstatvfs(fd).f_fsid:x}")
    with pytest.raises(AssertionError, match="taken for the other one"):
        check_the_next_xfs_of_a_device_is_another_one(folder)


def vars_of(filesystem: Filesystem) -> dict[str, object]:
    return {name: getattr(filesystem, name) for name in ("superblock", "fsid", "mount", "rank")}


@pytest.mark.parametrize("how", ["umount", "lazily"])
def test_what_is_unmounted_meanwhile_never_gets_the_filesystem_below_frozen(
    how: str, folder: Path, run_dir: str
) -> None:
    with mounted("xfs", folder, "under") as under, ExitStack() as stack:
        place = under / "place"
        place.mkdir()
        image = stack.enter_context(mounted("ext4", folder, "over"))
        subprocess.run(["mount", "--bind", str(image), str(place)], check=True)
        stack.callback(lambda: subprocess.run(["umount", str(place)], check=False, stderr=subprocess.DEVNULL))
        meant = replace(find(image), mount=str(place))
        with arm(run_dir, meant) as guard:
            words = ["umount", "--lazy", str(place)] if how == "lazily" else ["umount", str(place)]
            done = subprocess.run(words, check=False, stderr=subprocess.DEVNULL).returncode == 0
            assert done is (how == "lazily"), "who has it open keeps it mounted"
            guard.freeze()
            assert writable(under, 5)
            assert not writable(image)
            guard.release()
            assert writable(image, 5)
        if how == "lazily":
            with pytest.raises(RefusedError, match="not mounted there"):
                arm(run_dir, meant).close()


def test_a_freezer_that_looks_at_the_path_alone_would_be_caught(
    folder: Path, run_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(understudy.FREEZER).read_text()
    twin = tmp_path / "freezer.py"
    twin.write_text(text.replace('== (start["superblock"], start["fsid"])', '!= ("", "")'))
    assert twin.read_text() != text
    monkeypatch.setattr(understudy, "FREEZER", str(twin))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_what_is_unmounted_meanwhile_never_gets_the_filesystem_below_frozen("lazily", folder, run_dir)
