# SPDX-License-Identifier: Apache-2.0
"""A hold that was late or broken is never called good, and what cannot be held is refused."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from slackwater.errors import DeadlineError, RefusedError, SlackwaterError
from slackwater.guard import client
from slackwater.guard.client import Guard
from slackwater.guard.leftovers import release_leftovers
from slackwater.system import cgroups, processes
from tests.platform.crowd import Crowd, eventually, new_crowd, new_folder, write
from tests.platform.guarding import COORDINATOR, arm, gone, words

pytestmark = [pytest.mark.root]


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with new_crowd() as made:
        yield made


@pytest.fixture
def run_dir() -> Iterator[str]:
    with new_folder() as folder:
        yield str(folder)
        release_leftovers(str(folder))


# --- late, and broken --------------------------------------------------------------------------------------------


def test_a_release_after_the_deadline_is_never_a_success(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir, hold_s=0.2) as guard:
        guard.freeze()
        assert crowd.moves_within(2) < 1.5
        with pytest.raises(DeadlineError, match="deadline had passed"):
            guard.release()


def test_the_whole_window_has_a_deadline_too(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir, freeze_s=0.3, hold_s=20) as guard:
        guard.freeze()
        assert crowd.moves_within(2) < 1.5
        with pytest.raises(DeadlineError, match="deadline had passed"):
            guard.release()


def thaw_and_freeze_again(crowd: Crowd) -> None:
    write(f"{crowd.cgroup}/cgroup.freeze", "0")
    write(f"{crowd.cgroup}/cgroup.freeze", "1")


def thaw(crowd: Crowd) -> None:
    write(f"{crowd.cgroup}/cgroup.freeze", "0")


def move_one_out(crowd: Crowd) -> None:
    write(f"{cgroups.root()}/cgroup.procs", str(crowd.children[0].pid))


def kill_one(crowd: Crowd) -> None:
    crowd.children[0].kill()
    crowd.children[0].wait()


STRANGERS = [thaw, thaw_and_freeze_again, move_one_out, kill_one]


def check_a_stranger_is_noticed(crowd: Crowd, run_dir: str, stranger: object) -> None:
    assert callable(stranger)
    with arm(crowd, run_dir) as guard:
        guard.freeze()
        stranger(crowd)
        with pytest.raises(DeadlineError, match="broken"):
            guard.release()


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_hold_that_a_stranger_broke_is_not_called_good(crowd: Crowd, run_dir: str, stranger: object) -> None:
    check_a_stranger_is_noticed(crowd, run_dir, stranger)
    assert os.listdir(run_dir) == []
    if stranger is not kill_one:
        assert crowd.moves()


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_client_that_ignores_a_broken_hold_would_be_caught(
    crowd: Crowd, run_dir: str, stranger: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    careful = client.why_broken
    monkeypatch.setattr(client, "why_broken", lambda answer: careful({**answer, "broken": False}))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_a_stranger_is_noticed(crowd, run_dir, stranger)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"event": "refused", "why": "x"},
        {"event": "released", "by": "deadline", "broken": False, "stuck": []},
        {"event": "released", "by": "signal", "broken": False, "stuck": []},
        {"event": "released", "by": "order", "broken": True, "stuck": []},
        {"event": "released", "by": "order", "stuck": []},
        {"event": "released", "by": "order", "broken": False, "stuck": ["/x"]},
        {"event": "late", "by": "order", "broken": False, "stuck": []},
    ],
)
def test_only_one_answer_is_good(answer: dict[str, object]) -> None:
    assert client.why_broken(answer) != ""
    assert client.why_broken({"event": "released", "by": "order", "broken": False, "stuck": []}) == ""


def test_a_removed_cgroup_does_not_keep_the_others_frozen(crowd: Crowd, run_dir: str) -> None:
    with new_crowd(1) as second:
        with Guard.arm("s1", [second.cgroup, crowd.cgroup], freeze_s=20, hold_s=20, run_dir=run_dir) as guard:
            guard.freeze()
            for child in second.children:
                child.kill()
                child.wait()
            assert eventually(lambda: not cgroups.members(second.cgroup))
            os.rmdir(second.cgroup)
            try:
                with pytest.raises(DeadlineError):
                    guard.release()
                assert crowd.moves()
            finally:
                os.mkdir(second.cgroup)
        assert os.listdir(run_dir) == []


@contextmanager
def stuck_in_the_kernel(crowd: Crowd) -> Iterator[tuple[int, str]]:
    """One more process of the crowd waits in a system call that does not end: a write to a frozen filesystem."""
    with new_folder() as folder:
        image, mount = folder / "image", folder / "mnt"
        mount.mkdir()
        with open(image, "wb") as f:
            f.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=True)
        try:
            code = "import sys; f = open(sys.argv[1], 'w', 1); sys.stdin.readline(); f.write('x\\n')"
            child = crowd.add(code, str(mount / "file"))
            assert eventually((mount / "file").exists)
            subprocess.run(["fsfreeze", "-f", str(mount)], check=True)
            try:
                assert child.stdin is not None
                child.stdin.write(b"\n")
                child.stdin.flush()
                assert eventually(lambda: (stat := processes.stat_of(child.pid)) and stat.state == "D")
                yield child.pid, str(mount)
            finally:
                subprocess.run(["fsfreeze", "-u", str(mount)], check=False)
            child.communicate()
        finally:
            subprocess.run(["umount", str(mount)], check=True)


def test_who_waits_for_the_disk_makes_the_freeze_late_and_is_named(crowd: Crowd, run_dir: str) -> None:
    with stuck_in_the_kernel(crowd) as (pid, _), arm(crowd, run_dir, freeze_s=0.3) as guard:
        started = time.monotonic()
        with pytest.raises(DeadlineError, match=rf"within 0\.3 s: .*\({pid}\) waits") as caught:
            guard.freeze()
        assert 0.3 <= time.monotonic() - started < 10
        assert crowd.moves()
        assert caught.value.exit_status == 12
        assert os.listdir(run_dir) == []
        with pytest.raises(DeadlineError, match=r"within 0\.3 s"):
            guard.release()


def test_who_comes_back_from_the_disk_in_time_is_waited_for(crowd: Crowd, run_dir: str) -> None:
    with stuck_in_the_kernel(crowd) as (_, mount), arm(crowd, run_dir, freeze_s=10) as guard:
        thawer = threading.Timer(1.0, subprocess.run, [["fsfreeze", "-u", mount]], {"check": True})
        thawer.start()
        frozen = guard.freeze()
        thawer.join()
        assert frozen.took_ms > 200
        assert crowd.stands()
        guard.release()


@pytest.mark.parametrize("stranger", [thaw, thaw_and_freeze_again])
def test_a_stranger_who_thaws_before_all_stand_still_ends_the_wait_at_once(
    crowd: Crowd, run_dir: str, stranger: Callable[[Crowd], None]
) -> None:
    with stuck_in_the_kernel(crowd), arm(crowd, run_dir, freeze_s=60) as guard:
        started = time.monotonic()
        disturbance = threading.Timer(0.3, stranger, [crowd])
        disturbance.start()
        with pytest.raises(DeadlineError, match="a stranger"):
            guard.freeze()
        assert time.monotonic() - started < 30
        disturbance.join()
        # The guard may be quick enough to let go between his thaw and his freeze, which then is none of ours.
        assert crowd.moves() or stranger is thaw_and_freeze_again
        assert os.listdir(run_dir) == []


# --- refused, given up, left over --------------------------------------------------------------------------------


def test_what_somebody_else_has_frozen_is_refused_and_stays_frozen(crowd: Crowd, run_dir: str) -> None:
    write(f"{crowd.cgroup}/cgroup.freeze", "1")
    assert eventually(crowd.stands)
    with pytest.raises(RefusedError, match="frozen by somebody else"):
        arm(crowd, run_dir)
    assert crowd.stands()


def test_a_cgroup_that_contains_the_coordinator_is_refused(run_dir: str) -> None:
    with new_crowd(0) as crowd:
        process = subprocess.Popen(
            [sys.executable, "-c", "input()\n" + COORDINATOR, *words(crowd, run_dir)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        write(f"{crowd.cgroup}/cgroup.procs", str(process.pid))
        said = process.communicate("\n")[1]
        assert "contains the guard or the coordinator itself" in said
        assert process.returncode != 0


def test_the_root_and_what_is_not_there_are_refused(run_dir: str) -> None:
    for path in (cgroups.root(), f"{cgroups.root()}/sw-not-there"):
        with pytest.raises(RefusedError):
            Guard.arm("s1", [path], freeze_s=1, hold_s=1, run_dir=run_dir)
    assert os.listdir(run_dir) == []


def test_without_a_place_for_the_record_nothing_is_frozen(crowd: Crowd, run_dir: str) -> None:
    with pytest.raises(RefusedError, match="No such file"):
        arm(crowd, f"{run_dir}/not-there")
    with arm(crowd, run_dir) as guard:
        write(f"{run_dir}/guard.s1.json", "in the way")
        with pytest.raises(DeadlineError, match="File exists"):
            guard.freeze()
        assert crowd.moves()


def test_a_program_that_does_not_start_is_an_error(crowd: Crowd, run_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PROGRAM", "/dev/null")
    with pytest.raises(SlackwaterError, match="guard did not start"):
        arm(crowd, run_dir)


def test_leaving_the_context_thaws(crowd: Crowd, run_dir: str) -> None:
    with pytest.raises(KeyboardInterrupt), arm(crowd, run_dir) as guard:  # noqa: PT012 - the context is what is tested
        guard.freeze()
        assert crowd.stands()
        raise KeyboardInterrupt
    assert crowd.moves()
    assert gone(guard._process.pid)
    assert os.listdir(run_dir) == []
    with pytest.raises(DeadlineError):
        guard.release()
    guard.close()


def test_releasing_what_was_never_frozen_is_no_success(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard, pytest.raises(DeadlineError):
        guard.release()
    assert crowd.moves()


def test_another_command_leaves_a_live_hold_alone(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard:
        guard.freeze()
        assert release_leftovers(run_dir) == []
        assert crowd.stands()
        guard.release()


def test_the_record_of_another_boot_touches_nothing(crowd: Crowd, run_dir: str) -> None:
    write(f"{crowd.cgroup}/cgroup.freeze", "1")
    assert eventually(crowd.stands)
    left = {"session": "old", "guard": "1:1:another-boot", "cgroups": [crowd.cgroup], "deadline_s": 0}
    write(f"{run_dir}/guard.old.json", json.dumps(left))
    assert release_leftovers(run_dir) == []
    assert crowd.stands()
    assert os.listdir(run_dir) == []


def test_a_record_that_makes_no_sense_stops_no_command(run_dir: str) -> None:
    write(f"{run_dir}/guard.x.json", "{")
    write(f"{run_dir}/guard.y.json", "[]")
    assert len(release_leftovers(run_dir)) == 2
