# SPDX-License-Identifier: Apache-2.0
"""An application's lock ends at its deadline, whoever hangs or dies, and one that was lost is never called good."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from slackwater.errors import DeadlineError, RefusedError, SlackwaterError
from slackwater.guard import client
from slackwater.guard.client import Guard
from slackwater.guard.leftovers import release_leftovers
from slackwater.model.hold import Keeper
from slackwater.system import processes, topology
from slackwater.system.processes import identity
from tests.platform.crowd import Crowd, end, eventually, new_crowd, new_folder
from tests.platform.disks import mounted
from tests.platform.guarding import gone, kill_together, stop

pytestmark = [pytest.mark.root]

#: Keeps flock(2) on a file, which a stranger can try; `sloppy` never looks whether it still has it.
KEEPER = """
import fcntl, os, sys
path, answer = sys.argv[1:3]
fd = os.open(path, os.O_RDWR)
print(answer, flush=True)
for line in sys.stdin:
    if line == "hold\\n":
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("held", flush=True)
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)
        print("released", flush=True)
"""
#: A command that holds, and says first who helps it.
COORDINATOR = """
import sys
from slackwater.errors import DeadlineError
from slackwater.guard.client import Guard
from slackwater.model.hold import Keeper
run_dir, hold_s, *command = sys.argv[1:]
with Guard.arm("s1", [], freeze_s=20, hold_s=float(hold_s), run_dir=run_dir, keepers=[Keeper(tuple(command))]) as guard:
    print(guard._keepers[0].process.partition(":")[0], guard._process.pid, guard._third._process.pid, flush=True)
    sys.stdin.readline()
    print("frozen", guard.freeze().took_ms, flush=True)
    sys.stdin.readline()
    try:
        print("released", guard.release().held_ms, flush=True)
    except DeadlineError as e:
        print("DeadlineError", e.sentence, flush=True)
"""


@pytest.fixture
def run_dir() -> Iterator[str]:
    with new_folder() as folder:
        yield str(folder)
        release_leftovers(str(folder))


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "lock"
    path.touch()
    return path


def keeper(lock: Path, answer: str = "ready", after: tuple[str, ...] = (), code: str = KEEPER) -> Keeper:
    return Keeper((sys.executable, "-I", "-S", "-c", code, str(lock), answer), after)


def arm(run_dir: str, *keepers: Keeper, hold_s: float = 20, freeze_s: float = 20, crowd: Crowd | None = None) -> Guard:
    cgroups = [crowd.cgroup] if crowd else []
    return Guard.arm("s1", cgroups, freeze_s=freeze_s, hold_s=hold_s, run_dir=run_dir, keepers=keepers)


def free(lock: Path) -> bool:
    """Whether a stranger gets the lock now."""
    return subprocess.run(["flock", "--nonblock", str(lock), "true"], check=False).returncode == 0


def pid_of(guard: Guard) -> int:
    return int(guard._keepers[0].process.partition(":")[0])


def test_a_lock_and_a_cgroup_are_held_together_and_let_go_together(lock: Path, run_dir: str) -> None:
    with new_crowd(1) as crowd, arm(run_dir, keeper(lock), crowd=crowd) as guard:
        pid = pid_of(guard)
        assert free(lock)
        assert os.listdir(run_dir) == []
        guard.freeze()
        assert not free(lock)
        assert crowd.stands()
        assert identity(pid) in Path(run_dir, "guard.s1.json").read_text()
        released = guard.release()
        assert free(lock)
        assert crowd.moves()
        assert os.listdir(run_dir) == []
    assert 50 <= released.held_ms < released.frozen_ms < 5000
    assert gone(pid)


def test_only_locks_are_measured_from_before_the_first(lock: Path, tmp_path: Path, run_dir: str) -> None:
    slow = KEEPER.replace(
        "        fcntl.flock(fd, fcntl.LOCK_EX", "        import time; time.sleep(0.2); fcntl.flock(fd, 2"
    )
    assert slow != KEEPER
    other = tmp_path / "other"
    other.touch()
    with arm(run_dir, keeper(lock), keeper(other, code=slow)) as guard:
        frozen = guard.freeze()
        released = guard.release()
    assert frozen.took_ms >= 200
    assert released.frozen_ms >= 200 > released.held_ms


def test_a_lock_that_cannot_be_had_is_refused_before_the_window_and_says_what_would_do(
    lock: Path, run_dir: str
) -> None:
    with pytest.raises(RefusedError, match="it is taken") as refused:
        arm(run_dir, keeper(lock, "busy it is taken"))
    assert "process-freeze" in refused.value.hint
    with pytest.raises(SlackwaterError, match="did not start: no reason"):
        arm(run_dir, keeper(lock, "failed no reason"))
    subprocess.run(["flock", "--nonblock", str(lock), "true"], check=True)
    with arm(run_dir, keeper(lock)) as guard, lock.open() as stranger:
        import fcntl

        fcntl.flock(stranger, fcntl.LOCK_EX)
        with pytest.raises(DeadlineError, match="not to be had"):
            guard.freeze()
    assert os.listdir(run_dir) == []


# --- somebody hangs, stops or dies -------------------------------------------------------------------------------


def test_a_stopped_keeper_is_killed_at_the_deadline_and_what_frees_the_application_runs(
    lock: Path, run_dir: str, tmp_path: Path
) -> None:
    freed = tmp_path / "freed"
    after = ("/bin/sh", "-c", f"cat /proc/self/cgroup >{freed}; exec sleep 5")
    with arm(run_dir, keeper(lock, after=after), hold_s=2.0) as guard:
        guard.freeze()
        os.kill(pid_of(guard), signal.SIGSTOP)
        assert not free(lock)
        assert eventually(lambda: free(lock), 8)
        assert eventually(lambda: freed.exists() and freed.read_text(), 8)
        with pytest.raises(DeadlineError, match="deadline had passed"):
            guard.release()
        home = guard._home
    assert os.listdir(run_dir) == []
    assert not os.path.exists(home), "what frees the application stays in the guard's cgroup"


def test_a_keeper_that_hangs_at_its_release_is_killed_at_the_deadline(lock: Path, run_dir: str) -> None:
    hangs = KEEPER.replace("    else:\n", "    else:\n        import time; time.sleep(60)\n")
    assert hangs != KEEPER
    began = time.monotonic()
    with arm(run_dir, keeper(lock, code=hangs), hold_s=2.0) as guard:
        guard.freeze()
        with pytest.raises(DeadlineError, match="lost"):
            guard.release()
        assert free(lock)
    assert time.monotonic() - began < 10


def test_a_killed_keeper_costs_the_set(lock: Path, run_dir: str) -> None:
    with arm(run_dir, keeper(lock)) as guard:
        guard.freeze()
        os.kill(pid_of(guard), signal.SIGKILL)
        assert eventually(lambda: free(lock), 2)
        with pytest.raises(DeadlineError, match="lost"):
            guard.release()


def test_a_killed_guard_makes_us_end_the_lock_at_once_and_fail(lock: Path, run_dir: str) -> None:
    with arm(run_dir, keeper(lock)) as guard:
        guard.freeze()
        os.kill(pid_of(guard), signal.SIGSTOP)
        guard._process.kill()
        assert eventually(lambda: free(lock), 2), "nobody had to ask"
        with pytest.raises(DeadlineError):
            guard.release()
    assert os.listdir(run_dir) == []


class Command:
    """A coordinator in a process of its own."""

    def __init__(self, run_dir: str, lock: Path, hold_s: float = 20) -> None:
        words = [sys.executable, "-c", COORDINATOR, run_dir, str(hold_s), *keeper(lock).command]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.keeper, self.guard, self.third = (int(each) for each in self.line().split())

    def end(self) -> None:
        end(self.process)
        with suppress(ProcessLookupError):
            os.kill(self.keeper, signal.SIGKILL)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def next(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()


def check_the_deadline_ends_a_stopped_coordinators_lock(lock: Path, run_dir: str) -> None:
    command = Command(run_dir, lock, hold_s=2.0)
    try:
        assert command.next().startswith("frozen")
        os.kill(command.process.pid, signal.SIGSTOP)
        os.kill(command.keeper, signal.SIGSTOP)
        assert not free(lock)
        assert eventually(lambda: free(lock), 8), "not released at the deadline"
        os.kill(command.process.pid, signal.SIGCONT)
        assert command.next().startswith("DeadlineError The deadline had passed")
    finally:
        command.end()


def test_a_stopped_coordinators_lock_ends_at_the_deadline(lock: Path, run_dir: str) -> None:
    check_the_deadline_ends_a_stopped_coordinators_lock(lock, run_dir)


def test_a_guard_that_kills_no_keeper_would_be_caught(
    lock: Path, run_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(client.PROGRAM).read_text()
    twin = tmp_path / "guard.py"
    twin.write_text(text.replace("self.keepers.pop(0).end(", "self.keepers.pop(0); str("))
    assert twin.read_text() != text
    monkeypatch.setattr(
        "tests.platform.test_guard_keepers.COORDINATOR",
        COORDINATOR.replace(
            "run_dir, hold_s,",
            f"from slackwater.guard import client; client.PROGRAM = {str(twin)!r}\nrun_dir, hold_s,",
            1,
        ),
    )
    with pytest.raises(AssertionError, match="not released at the deadline"):
        check_the_deadline_ends_a_stopped_coordinators_lock(lock, run_dir)


@pytest.fixture
def disk() -> Iterator[Path]:
    with new_folder() as folder, mounted("ext4", folder) as place:
        yield place


def patient_guard(folder: Path, old: str = "", new: str = "") -> str:
    """A guard that waits for filesystems for a minute: whatever it does within seconds, it does without them."""
    text = Path(client.PROGRAM).read_text()
    patience = "THAW_S, END_S = 4.0, 2.0, 0.5"
    assert patience in text
    assert old in text
    twin = folder / "guard.py"
    twin.write_text(text.replace(patience, "THAW_S, END_S = 4.0, 60.0, 0.5").replace(old, new, 1))
    return str(twin)


def check_a_lock_waits_for_no_filesystem(
    order: str, lock: Path, run_dir: str, disk: Path, after: Path, within_s: float
) -> None:
    """Nobody but the guard is there to end it: the client is not asked, and the understudy is stopped."""
    locked = keeper(lock, after=("/bin/sh", "-c", f"echo ended >>{after}"))
    with Guard.arm(
        "s1", [], freeze_s=20, hold_s=1, run_dir=run_dir, keepers=[locked], filesystems=[topology.find(str(disk))]
    ) as guard:
        assert guard._third
        assert guard._third._process
        helpers = [*processes.descendants(guard._process.pid) - {guard._process.pid}, guard._third._process.pid]
        assert guard._ask(10, order="begin")["event"] == "begun"
        assert guard._keepers[0].order("hold", 10)[0] == "held"
        assert guard._ask(20, order="freeze")["event"] == "frozen"
        try:
            stop(*helpers)
            if order:
                guard._tell(order=order)
            assert eventually(lambda: free(lock), within_s), "the lock outlives its deadline"
            assert os.listdir(run_dir) != [], "the filesystem is still waited for"
        finally:
            os.kill(helpers[0], signal.SIGCONT)
            assert eventually(lambda: os.listdir(run_dir) == [], 20)
            os.kill(helpers[1], signal.SIGCONT)
        assert eventually(after.exists)
        # It waits for none of them, so each one that has ended is still a child of its.
        children = Path(f"/proc/{guard._process.pid}/task/{guard._process.pid}/children").read_text().split()
        assert len({int(each) for each in children} - {helpers[0]}) == 1, "the application was not freed just once"


@pytest.mark.parametrize("order", ["", "release"])
def test_a_lock_ends_at_its_deadline_though_a_freezer_hangs(
    order: str, lock: Path, run_dir: str, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the deadline, and also when the thaw was ordered before it and does not come."""
    monkeypatch.setattr(client, "PROGRAM", patient_guard(tmp_path))
    check_a_lock_waits_for_no_filesystem(order, lock, run_dir, disk, tmp_path / "after", 20)


@pytest.mark.parametrize(
    ("order", "old", "new", "said"),
    [
        ("", 'if by != "order" or now() >= self.deadline:', "if False:", "outlives its deadline"),
        ("release", 'if by != "order" or now() >= self.deadline:', 'if by != "order":', "outlives its deadline"),
        ("", "self.keepers.pop(0).end(", "[self.keepers[0].end(''), self.keepers.pop(0)][1].end(", "just once"),
    ],
)
def test_a_guard_whose_locks_wait_for_filesystems_would_be_caught(
    order: str, old: str, new: str, said: str, lock: Path, run_dir: str, disk: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(client, "PROGRAM", patient_guard(tmp_path, old, new))
    with pytest.raises(AssertionError, match=said):
        check_a_lock_waits_for_no_filesystem(order, lock, run_dir, disk, tmp_path / "after", 4)


def test_a_killed_coordinators_lock_ends_at_once(lock: Path, run_dir: str) -> None:
    command = Command(run_dir, lock)
    try:
        assert command.next().startswith("frozen")
        os.kill(command.keeper, signal.SIGSTOP)
        command.process.kill()
        assert eventually(lambda: free(lock), 2)
        assert eventually(lambda: gone(command.guard))
        assert os.listdir(run_dir) == []
    finally:
        command.end()


def test_the_understudy_ends_what_both_left(lock: Path, run_dir: str) -> None:
    command = Command(run_dir, lock)
    try:
        assert command.next().startswith("frozen")
        stop(command.keeper)
        kill_together(command.guard, command.process.pid)
        assert eventually(lambda: free(lock), 5)
        assert eventually(lambda: os.listdir(run_dir) == [])
    finally:
        command.end()


def test_the_next_command_ends_what_all_three_left(lock: Path, run_dir: str) -> None:
    command = Command(run_dir, lock)
    try:
        assert command.next().startswith("frozen")
        stop(command.keeper)
        kill_together(command.third, command.guard, command.process.pid)
        assert not free(lock)
        assert len(release_leftovers(run_dir)) == 1  # a keeper that stands still lets go only when it is killed
        assert eventually(lambda: free(lock), 2)
        assert release_leftovers(run_dir) == []
    finally:
        command.end()
