# SPDX-License-Identifier: Apache-2.0
"""An application is never left frozen, and a hold that was late or broken is never called good."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slackwater.errors import DeadlineError, RefusedError, SlackwaterError
from slackwater.guard import client
from slackwater.guard.client import Guard, release_leftovers
from slackwater.system import cgroups, processes
from tests.platform.crowd import Crowd, end, eventually, new_cgroup, new_crowd, new_folder, write

pytestmark = [pytest.mark.root]

#: A command that holds: arms, freezes and releases, each when it reads a line.
COORDINATOR = """
import sys
from slackwater.errors import DeadlineError
from slackwater.guard import client
program, run_dir, freeze_s, hold_s, *groups = sys.argv[1:]
client.PROGRAM = program
with client.Guard.arm("s1", groups, freeze_s=float(freeze_s), hold_s=float(hold_s), run_dir=run_dir) as guard:
    print(guard._process.pid, flush=True)
    sys.stdin.readline()
    print("frozen", guard.freeze().took_ms, flush=True)
    sys.stdin.readline()
    try:
        print("released", guard.release().held_ms, flush=True)
    except DeadlineError as e:
        print("DeadlineError", e.sentence, flush=True)
"""


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with new_crowd() as made:
        yield made


@pytest.fixture
def run_dir() -> Iterator[str]:
    with new_folder() as folder:
        yield str(folder)
        release_leftovers(str(folder))


class Command:
    """A coordinator in a process of its own, and its guard."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.guard = int(self.line())

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def next(self) -> str:
        """Let it go on to its next step, and read what it says about it."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()


@contextmanager
def command(
    crowd: Crowd, run_dir: str, *, freeze_s: float = 20, hold_s: float = 20, program: str = client.PROGRAM
) -> Iterator[Command]:
    process = subprocess.Popen(
        [sys.executable, "-c", COORDINATOR, program, run_dir, str(freeze_s), str(hold_s), crowd.cgroup],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield Command(process)
    finally:
        end(process)


def arm(crowd: Crowd, run_dir: str, freeze_s: float = 20, hold_s: float = 20) -> Guard:
    return Guard.arm("s1", [crowd.cgroup], freeze_s=freeze_s, hold_s=hold_s, run_dir=run_dir)


def gone(pid: int) -> bool:
    stat = processes.stat_of(pid)
    return stat is None or stat.dead


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
        places = ("pipe:", "anon_inode:", "/dev/null", crowd.cgroup)
        assert [link for link in links if not link.startswith(places)] == []
        assert b"-I\0-S\0-B\0" in (proc / "cmdline").read_bytes()


def test_the_guard_imports_nothing_but_the_standard_library() -> None:
    code = "import sys; sys.argv = ['']; __name__ = 'x'; exec(open(sys.stdin.readline().strip()).read())"
    code += "; print([m for m in sys.modules if m.split('.')[0] not in sys.stdlib_module_names and m != '__main__'])"
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code], input=client.PROGRAM, capture_output=True, text=True, check=True
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
        [sys.executable, "-c", code, client.PROGRAM, run_dir, "20", "20", crowd.cgroup],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        held = Command(process)
        assert held.next().startswith("frozen")
        assert crowd.stands()
        assert eventually(lambda: len(processes.descendants(process.pid) - {held.guard}) == 2)
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
    with command(crowd, run_dir, hold_s=0.5, program=program) as held:
        assert held.next().startswith("frozen")
        os.kill(held.process.pid, signal.SIGSTOP)
        assert crowd.stands(0.2), "released too early"
        took = crowd.moves_within(2)
        assert took < 1.5, "not released at the deadline"
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


def kill_both(held: Command) -> None:
    """The coordinator is stopped first, so that neither sees the other die."""
    os.kill(held.process.pid, signal.SIGSTOP)
    os.kill(held.guard, signal.SIGKILL)
    assert eventually(lambda: gone(held.guard))
    held.process.kill()
    held.process.wait()


def test_what_both_left_when_killed_is_released_by_the_next_command(crowd: Crowd, run_dir: str) -> None:
    with command(crowd, run_dir) as held:
        home = cgroups.cgroup_of(held.guard)
        assert "slackwater-guard.s1" in home
        assert held.next().startswith("frozen")
        kill_both(held)
        assert crowd.stands(0.2), "this is the one case that nobody is left for"
        said = release_leftovers(run_dir)
        assert crowd.moves()
        assert len(said) == 1
        assert "s1" in said[0]
        assert crowd.cgroup in said[0]
        assert os.listdir(run_dir) == []
        assert release_leftovers(run_dir) == []
        assert not os.path.exists(home)


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
        assert 0.3 <= time.monotonic() - started < 2
        assert crowd.moves()
        assert caught.value.exit_status == 12
        assert os.listdir(run_dir) == []
        with pytest.raises(DeadlineError, match=r"within 0\.3 s"):
            guard.release()


def test_who_comes_back_from_the_disk_in_time_is_waited_for(crowd: Crowd, run_dir: str) -> None:
    with stuck_in_the_kernel(crowd) as (_, mount), arm(crowd, run_dir, freeze_s=10) as guard:
        thawer = threading.Timer(0.3, subprocess.run, [["fsfreeze", "-u", mount]], {"check": True})
        thawer.start()
        frozen = guard.freeze()
        thawer.join()
        assert frozen.took_ms > 200
        assert crowd.stands()
        guard.release()


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
            [sys.executable, "-c", "input()\n" + COORDINATOR, client.PROGRAM, run_dir, "5", "5", crowd.cgroup],
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
    with arm(crowd, f"{run_dir}/not-there") as guard:
        with pytest.raises(DeadlineError, match="No such file"):
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


def test_looking_for_leftovers_costs_next_to_nothing(run_dir: str) -> None:
    release_leftovers(run_dir)
    started = time.perf_counter()
    for _ in range(100):
        assert release_leftovers(run_dir) == []
        assert release_leftovers(f"{run_dir}/not-there") == []
    assert (time.perf_counter() - started) / 200 < 0.002


def test_what_a_hung_guard_without_a_coordinator_holds_is_released_when_overdue(crowd: Crowd, run_dir: str) -> None:
    with command(crowd, run_dir, freeze_s=0.3) as held:
        assert held.next().startswith("frozen")
        os.kill(held.guard, signal.SIGSTOP)
        try:
            held.process.kill()
            held.process.wait()
            assert crowd.stands()
            assert eventually(lambda: release_leftovers(run_dir))
            assert crowd.moves()
        finally:
            os.kill(held.guard, signal.SIGCONT)
        assert eventually(lambda: gone(held.guard)), "it goes when it can"
