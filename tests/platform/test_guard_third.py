# SPDX-License-Identifier: Apache-2.0
"""Coordinator and guard killed in the same instant: a third process releases, and without it the next command does."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.guard import third
from slackwater.guard.client import Guard
from slackwater.guard.leftovers import release_leftovers
from slackwater.system import cgroups
from tests.platform.crowd import Crowd, eventually, new_cgroup, new_crowd, new_folder, write
from tests.platform.guarding import arm, command, gone, kill_together, stop

pytestmark = [pytest.mark.root]


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with new_crowd(1) as made:
        yield made


@pytest.fixture
def run_dir() -> Iterator[str]:
    with new_folder() as folder:
        yield str(folder)
        release_leftovers(str(folder))


def pid_of(guard: Guard) -> int:
    assert guard._third is not None
    assert guard._third._process is not None
    return guard._third._process.pid


def check_a_third_releases(crowd: Crowd, run_dir: str, understudy: str) -> None:
    with command(crowd, run_dir, understudy=understudy) as held:
        homes = [cgroups.cgroup_of(each) for each in (held.guard, held.third)]
        assert held.next().startswith("frozen")
        stop(held.process.pid, held.guard)
        assert crowd.stands()
        kill_together(held.guard, held.process.pid)
        assert crowd.moves_within(5) < 5, "nobody was left to release"
        assert eventually(lambda: gone(held.third)), "it has nothing left to do"
        assert os.listdir(run_dir) == []
        assert [each for each in homes if os.path.exists(each)] == []


def test_coordinator_and_guard_killed_at_once_are_stood_in_for(crowd: Crowd, run_dir: str) -> None:
    check_a_third_releases(crowd, run_dir, third.PROGRAM)


def test_an_understudy_that_does_nothing_would_be_caught(crowd: Crowd, run_dir: str, tmp_path: Path) -> None:
    text = Path(third.PROGRAM).read_text()
    twin = tmp_path / "understudy.py"
    twin.write_text(text.replace("for said in release_left(record):", "for said in ():"))
    assert twin.read_text() != text
    with pytest.raises(AssertionError, match="nobody was left to release"):
        check_a_third_releases(crowd, run_dir, str(twin))


def test_all_three_killed_at_once_are_stood_in_for_by_the_next_command(crowd: Crowd, run_dir: str) -> None:
    """Without systemd this is the one case that nobody is left for."""
    with command(crowd, run_dir) as held:
        homes = [cgroups.cgroup_of(each) for each in (held.guard, held.third)]
        assert held.next().startswith("frozen")
        kill_together(held.third, held.guard, held.process.pid)
        held.process.wait()
        assert crowd.stands(0.2)
        (said,) = release_leftovers(run_dir)
        assert crowd.moves()
        assert "s1" in said
        assert crowd.cgroup in said
        assert os.listdir(run_dir) == []
        assert release_leftovers(run_dir) == []
        assert [each for each in homes if os.path.exists(each)] == []


def test_started_once_more_it_releases_what_all_three_have_left(crowd: Crowd, run_dir: str) -> None:
    """As process 1 does where it is systemd, when the unit's main process was killed."""
    with command(crowd, run_dir) as held:
        words = Path(f"/proc/{held.third}/cmdline").read_text().split("\0")[:-2]
        assert held.next().startswith("frozen")
        kill_together(held.third, held.guard, held.process.pid)
        assert crowd.stands()
        said = subprocess.run([*words, ""], capture_output=True, text=True, check=True, timeout=30).stdout
        assert crowd.moves()
        assert crowd.cgroup in said
        assert os.listdir(run_dir) == []


def test_started_once_more_while_all_is_well_it_waits(crowd: Crowd, run_dir: str) -> None:
    with command(crowd, run_dir) as held:
        words = Path(f"/proc/{held.third}/cmdline").read_text().split("\0")[:-2]
        assert held.next().startswith("frozen")
        kill_together(held.third)
        again = subprocess.Popen([*words, ""], stdout=subprocess.PIPE, text=True)
        assert again.stdout is not None
        assert again.stdout.readline() == "ready\n"
        assert crowd.stands(0.7)
        assert held.next().startswith("released")
        assert again.wait(10) == 0


def test_a_guard_killed_while_the_coordinator_is_stopped_is_stood_in_for(crowd: Crowd, run_dir: str) -> None:
    with command(crowd, run_dir) as held:
        assert held.next().startswith("frozen")
        stop(held.process.pid)
        os.kill(held.guard, signal.SIGKILL)
        assert crowd.moves_within(10) < 10
        assert eventually(lambda: os.listdir(run_dir) == [])
        os.kill(held.process.pid, signal.SIGCONT)
        assert held.next().startswith("DeadlineError"), "it never counts as held"


def test_a_stopped_guard_and_a_killed_coordinator_are_stood_in_for_when_overdue(crowd: Crowd, run_dir: str) -> None:
    with command(crowd, run_dir, freeze_s=0.3) as held:
        assert held.next().startswith("frozen")
        stop(held.guard)
        held.process.kill()
        try:
            assert crowd.moves_within(10) < 10
            assert eventually(lambda: os.listdir(run_dir) == [])
        finally:
            os.kill(held.guard, signal.SIGCONT)


def test_all_of_them_stopped_hold_nothing_beyond_the_window(crowd: Crowd, run_dir: str) -> None:
    """But for the one that is not."""
    with command(crowd, run_dir, freeze_s=0.3) as held:
        assert held.next().startswith("frozen")
        stop(held.guard, held.process.pid)
        try:
            assert crowd.moves_within(10) < 10
        finally:
            for each in (held.guard, held.process.pid):
                os.kill(each, signal.SIGCONT)


def test_a_killed_understudy_costs_nothing(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard:
        guard.freeze()
        os.kill(pid_of(guard), signal.SIGKILL)
        assert eventually(lambda: gone(pid_of(guard)))
        assert crowd.stands(0.1)
        assert guard.release().held_ms >= 100
        assert crowd.moves()


def test_a_killed_cgroup_of_coordinator_or_guard_leaves_it(crowd: Crowd, run_dir: str) -> None:
    with new_cgroup() as cgroup, command(crowd, run_dir) as held:
        write(f"{cgroup}/cgroup.procs", str(held.process.pid))
        assert held.next().startswith("frozen")
        stop(held.process.pid, held.guard)
        for each in (cgroup, cgroups.cgroup_of(held.guard)):
            assert held.third not in cgroups.members(each)
            write(f"{each}/cgroup.kill", "1")
        assert crowd.moves_within(5) < 5


def test_it_ends_with_the_hold_and_leaves_nothing(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard:
        pid = pid_of(guard)
        home = cgroups.cgroup_of(pid)
        assert os.getsid(pid) == pid
        assert home not in (cgroups.cgroup_of(os.getpid()), cgroups.cgroup_of(guard._process.pid))
        assert os.sched_getscheduler(pid) == os.SCHED_FIFO
        assert "VmLck:\t       0 kB" not in Path(f"/proc/{pid}/status").read_text()
        guard.freeze()
        guard.release()
        assert not gone(pid)
    assert gone(pid)
    assert not os.path.exists(home)


def test_without_an_understudy_nothing_is_frozen(crowd: Crowd, run_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(third, "PROGRAM", "/dev/null")
    with pytest.raises(Exception, match="understudy did not start"):
        arm(crowd, run_dir)
    assert crowd.moves()
