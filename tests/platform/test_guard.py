# SPDX-License-Identifier: Apache-2.0
"""An application is never left frozen, and a hold that was late or broken is never called good."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.errors import DeadlineError
from slackwater.guard import client, third, understudy
from slackwater.guard.client import Guard
from slackwater.guard.leftovers import release_leftovers
from slackwater.system import cgroups, processes
from tests.platform.crowd import Crowd, end, eventually, new_cgroup, new_crowd, new_folder, write
from tests.platform.guarding import COORDINATOR, Command, arm, command, gone, stop, words

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


def may_lower_its_score() -> bool:
    """CAP_SYS_RESOURCE, capabilities(7); root in a container often lacks it."""
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> 24 & 1)


# --- the good hold -----------------------------------------------------------------------------------------------


def test_everything_stands_still_from_freeze_to_release_and_nothing_is_left(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard:
        home = cgroups.cgroup_of(guard._process.pid)
        assert os.path.basename(home) == f"slackwater-guard.s1.{os.getpid()}"
        pid = guard._process.pid
        assert crowd.moves()
        assert os.listdir(run_dir) == []
        frozen = guard.freeze()
        assert os.listdir(run_dir) == ["guard.s1.json"]
        assert crowd.stands(0.1)
        released = guard.release()
        assert crowd.moves()
        assert os.listdir(run_dir) == []
    assert 0 < frozen.took_ms < 2000
    assert 100 <= released.held_ms < released.frozen_ms < 5000
    assert gone(pid)
    assert not os.path.exists(home)
    assert crowd.moves()


def test_a_guard_whose_coordinator_is_killed_leaves_nothing(crowd: Crowd, run_dir: str) -> None:
    """Nobody else removes its cgroup: whoever looked after the dead may have done so before it had one."""
    with command(crowd, run_dir) as held:
        homes = [cgroups.cgroup_of(each) for each in (held.guard, held.third)]
        held.process.kill()
        assert eventually(lambda: gone(held.guard) and gone(held.third))
    assert [each for each in homes if os.path.exists(each)] == []
    assert os.listdir(run_dir) == []


def test_several_cgroups_stand_still_together(crowd: Crowd, run_dir: str) -> None:
    with (
        new_crowd(2) as second,
        Guard.arm("s1", [crowd.cgroup, second.cgroup, crowd.cgroup], freeze_s=20, hold_s=20, run_dir=run_dir) as guard,
    ):
        guard.freeze()
        assert crowd.stands()
        assert second.stands()
        guard.release()
        assert crowd.moves()
        assert second.moves()


def test_a_guard_holds_once(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard:
        guard.freeze()
        guard.release()
        with pytest.raises(DeadlineError):
            guard.freeze()
        assert crowd.moves()


def test_the_guard_is_as_hard_to_hold_up_as_it_can_be(crowd: Crowd, run_dir: str) -> None:
    with open(f"{run_dir}/open", "w") as ours, arm(crowd, run_dir) as guard:
        os.set_inheritable(ours.fileno(), True)
        pid = guard._process.pid
        proc = Path(f"/proc/{pid}")
        assert os.getsid(pid) == pid
        assert os.readlink(proc / "cwd") == "/"
        if may_lower_its_score():
            assert (proc / "oom_score_adj").read_text().strip() == "-1000"
        assert "VmLck:\t       0 kB" not in (proc / "status").read_text()
        assert os.sched_getscheduler(pid) == os.SCHED_FIFO
        assert cgroups.cgroup_of(pid) != cgroups.cgroup_of(os.getpid())
        links = {os.readlink(each) for each in (proc / "fd").iterdir()}
        places = ("pipe:", "anon_inode:", "/dev/null", crowd.cgroup, f"{run_dir}/#")
        assert [link for link in links if link != run_dir and not link.startswith(places)] == []
        assert b"-I\0-S\0-B\0" in (proc / "cmdline").read_bytes()


@pytest.mark.parametrize("program", [client.PROGRAM, understudy.FREEZER, third.PROGRAM])
def test_the_programs_import_nothing_but_the_standard_library(program: str) -> None:
    code = "import sys; sys.argv = ['']; __name__, __file__ = 'x', sys.stdin.readline().strip()"
    code += "; exec(open(__file__).read())"
    code += "; print([m for m in sys.modules if m.split('.')[0] not in sys.stdlib_module_names and m != '__main__'])"
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code], input=program, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"


# --- somebody dies or stops --------------------------------------------------------------------------------------


def test_a_killed_coordinator_releases(crowd: Crowd, run_dir: str) -> None:
    with command(crowd, run_dir) as held:
        assert held.next().startswith("frozen")
        assert crowd.stands()
        held.process.kill()
        assert crowd.moves_within(2) < 2
        assert eventually(lambda: gone(held.guard))
        assert os.listdir(run_dir) == []


def test_a_killed_coordinator_releases_while_a_child_of_its_still_holds_the_pipe(crowd: Crowd, run_dir: str) -> None:
    """A pipe's end would not be seen; a pidfd is."""
    code = COORDINATOR.replace(
        "    sys.stdin.readline()\n    try:",
        "    import os, time\n    if not os.fork(): time.sleep(60)\n    sys.stdin.readline()\n    try:",
    )
    assert code != COORDINATOR
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words(crowd, run_dir)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        held = Command(process)
        assert held.next().startswith("frozen")
        assert crowd.stands()
        assert eventually(lambda: len(processes.descendants(process.pid) - {held.guard, held.third}) == 2)
        os.kill(process.pid, signal.SIGKILL)
        assert crowd.moves_within(2) < 2
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        end(process)


def test_a_killed_cgroup_of_the_coordinator_releases(crowd: Crowd, run_dir: str) -> None:
    with new_cgroup() as cgroup, command(crowd, run_dir) as held:
        write(f"{cgroup}/cgroup.procs", str(held.process.pid))
        assert held.guard not in cgroups.members(cgroup)
        assert held.next().startswith("frozen")
        assert crowd.stands()
        write(f"{cgroup}/cgroup.kill", "1")
        assert crowd.moves_within(2) < 2


def check_released_at_the_deadline(crowd: Crowd, run_dir: str, program: str) -> None:
    """A coordinator that is stopped holds nothing beyond the deadline, and learns it when it goes on."""
    with command(crowd, run_dir, hold_s=2.0, program=program) as held:
        assert held.next().startswith("frozen")
        os.kill(held.process.pid, signal.SIGSTOP)
        assert crowd.stands(0.2), "released too early"
        assert crowd.moves_within(8) < 8, "not released at the deadline"
        os.kill(held.process.pid, signal.SIGCONT)
        assert held.next().startswith("DeadlineError The deadline had passed")
        assert os.listdir(run_dir) == []


def test_a_stopped_coordinator_is_released_at_the_deadline(crowd: Crowd, run_dir: str) -> None:
    check_released_at_the_deadline(crowd, run_dir, client.PROGRAM)


def test_a_guard_without_a_deadline_would_be_caught(crowd: Crowd, run_dir: str, tmp_path: Path) -> None:
    text = Path(client.PROGRAM).read_text()
    twin = tmp_path / "guard.py"
    twin.write_text(text.replace('self.release("deadline")', "pass"))
    assert twin.read_text() != text
    with pytest.raises(AssertionError, match="not released at the deadline"):
        check_released_at_the_deadline(crowd, run_dir, str(twin))


def test_a_killed_guard_makes_us_release_at_once_and_fail(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard:
        guard.freeze()
        assert crowd.stands()
        assert not guard.wait_died(0)
        guard._process.send_signal(signal.SIGKILL)
        assert guard.wait_died(2)
        assert crowd.moves_within(2) < 2, "nobody had to ask"
        with pytest.raises(DeadlineError):
            guard.release()
    assert os.listdir(run_dir) == []
    assert crowd.moves()


def test_a_guard_killed_between_close_and_release_is_what_a_coordinator_may_do(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard:
        guard.freeze()
        guard._process.kill()
        guard.wait_died(2)
        guard.close()
        assert crowd.moves()
        with pytest.raises(DeadlineError):
            guard.release()
        guard.close()


def test_a_guard_killed_before_the_freeze_freezes_nothing(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard:
        guard._process.kill()
        guard._process.wait()
        with pytest.raises(DeadlineError):
            guard.freeze()
        assert crowd.moves()


def test_a_stopped_guard_is_overruled_when_it_is_overdue(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir, hold_s=0.2) as guard:
        guard.freeze()
        guard._process.send_signal(signal.SIGSTOP)
        assert crowd.moves_within(3) < 3
        with pytest.raises(DeadlineError):
            guard.release()
    assert os.listdir(run_dir) == []


def test_a_stopped_guard_does_not_answer_and_is_overruled(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard:
        guard.freeze()
        guard._process.send_signal(signal.SIGSTOP)
        with pytest.raises(DeadlineError, match="did not answer"):
            guard.release()
        assert crowd.moves()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_guard_releases_and_breaks_the_hold(crowd: Crowd, run_dir: str, number: int) -> None:
    with arm(crowd, run_dir) as guard:
        guard.freeze()
        assert crowd.stands()
        guard._process.send_signal(number)
        assert crowd.moves_within(2) < 2
        assert not guard.wait_died(0)
        with pytest.raises(DeadlineError, match="before its time"):
            guard.release()


def test_orders_that_end_do_not_end_the_hold(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir, hold_s=0.4) as guard:
        guard.freeze()
        assert guard._process.stdin is not None
        guard._process.stdin.close()
        assert crowd.stands(0.2)
        assert crowd.moves_within(1) < 1, "but the deadline does"


def test_a_guard_without_orders_and_without_a_hold_ends(crowd: Crowd, run_dir: str) -> None:
    with arm(crowd, run_dir) as guard:
        assert guard._process.stdin is not None
        guard._process.stdin.close()
        assert guard.wait_died(2)


def test_killed_at_any_moment_nothing_stays_frozen(crowd: Crowd, run_dir: str) -> None:
    for n in range(12):
        with command(crowd, run_dir) as held:
            assert held.process.stdin is not None
            held.process.stdin.write("\n\n")
            held.process.stdin.flush()
            time.sleep(n * 0.0004)
            held.process.kill()
            assert eventually(lambda pid=held.guard: gone(pid))  # type: ignore[misc]
            assert crowd.moves()
            assert os.listdir(run_dir) == []


def test_what_a_hung_guard_without_a_coordinator_holds_is_released_when_overdue(crowd: Crowd, run_dir: str) -> None:
    with command(crowd, run_dir, freeze_s=2.0) as held:
        assert held.next().startswith("frozen")
        stop(held.guard, held.third)
        try:
            held.process.kill()
            held.process.wait()
            assert crowd.stands()
            assert eventually(lambda: release_leftovers(run_dir))
            assert crowd.moves()
        finally:
            for each in (held.guard, held.third):
                os.kill(each, signal.SIGCONT)
        assert eventually(lambda: gone(held.guard) and gone(held.third)), "they go when they can"
