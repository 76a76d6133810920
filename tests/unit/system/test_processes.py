# SPDX-License-Identifier: Apache-2.0
"""Who is there and who holds what, asked of real processes."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.system import processes
from tests.platform.crowd import READY, eventually, held_by, new_folder, python


def test_our_own_identity_lives_and_names_our_pid() -> None:
    name = processes.identity(os.getpid())
    assert processes.alive(name)
    assert processes.pid_of(name) == os.getpid()
    pid, start, boot = name.split(":")
    assert (int(pid), boot) == (os.getpid(), Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    assert int(start) == int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])


def test_an_identity_dies_with_its_process_even_before_it_is_waited_for() -> None:
    with python(READY) as child:
        name = processes.identity(child.pid)
        assert processes.alive(name)
        child.kill()
        assert eventually(lambda: not processes.alive(name))
        assert Path(f"/proc/{child.pid}/stat").exists(), "not waited for yet: the number is still taken"


def test_the_same_number_with_another_start_or_boot_is_another_process() -> None:
    pid, start, boot = processes.identity(os.getpid()).split(":")
    assert not processes.alive(f"{pid}:{int(start) + 1}:{boot}")
    assert not processes.alive(f"{pid}:{start}:00000000-0000-0000-0000-000000000000")


def test_no_process_has_no_identity_and_no_name() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(ProcessLookupError):
        processes.identity(gone.pid)
    assert processes.command_of(gone.pid) == ""
    assert processes.descendants(gone.pid) == frozenset()
    assert processes.ancestors(gone.pid) == frozenset()


@pytest.mark.parametrize("name", ["plain", "a b", "(x) y)", ") R 1 1 (", "x)\nS 7 7", "fünf"])
def test_a_name_with_blanks_and_parentheses_does_not_shift_the_fields(name: str) -> None:
    code = (
        "import ctypes, sys; ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0); "
        "print('ready', flush=True); sys.stdin.read()"
    )
    with python(code, name) as child:
        stat = processes.stat_of(child.pid)
        assert stat is not None
        assert stat.command == name
        assert stat.parent == os.getpid()
        assert stat.threads == 1
        assert processes.alive(processes.identity(child.pid))


def test_a_process_whose_first_thread_has_ended_still_lives() -> None:
    code = (
        "import ctypes, threading, time\n"
        "def work():\n"
        "    time.sleep(0.1); print('ready', flush=True); time.sleep(60)\n"
        "threading.Thread(target=work).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with python(code) as child:
        stat = processes.stat_of(child.pid)
        assert stat is not None
        assert (stat.state, stat.dead) == ("Z", False)
        assert processes.alive(processes.identity(child.pid))
        assert child.pid in processes.descendants(os.getpid())


def test_descendants_are_the_whole_tree_and_nobody_else() -> None:
    code = (
        "import os, time\n"
        "r, w = os.pipe()\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        grandchild = os.fork()\n"
        "        os.write(w, b'%d ' % os.getpid())\n"
        "        time.sleep(60)\n"
        "text = b''\n"
        "while text.count(b' ') < 4: text += os.read(r, 100)\n"
        "print(os.getpid(), text.decode(), flush=True); time.sleep(60)\n"
    )
    with python(code) as child, python(READY) as other:
        tree = frozenset(int(pid) for pid in child.first_line.split())  # type: ignore[attr-defined]
        assert len(tree) == 5
        assert processes.descendants(child.pid) == tree
        assert other.pid not in processes.descendants(child.pid)
        assert {child.pid, other.pid} <= processes.descendants(os.getpid())
        for each in tree:
            assert {child.pid, os.getpid(), os.getppid()} <= processes.ancestors(each)


def test_a_tree_that_never_stands_still_gives_an_answer() -> None:
    code = (
        "import os, sys\nprint('ready', flush=True)\nwhile True:\n    if os.fork() == 0: os._exit(0)\n    os.wait()\n"
    )
    with python(code) as child:
        started = time.monotonic()
        assert child.pid in processes.descendants(child.pid)
        assert time.monotonic() - started < 5


@pytest.fixture
def shm() -> Iterator[Path]:
    with new_folder() as folder:
        yield folder


@pytest.mark.parametrize(
    ("flags", "writing"),
    [("os.O_RDONLY", False), ("os.O_WRONLY", True), ("os.O_RDWR | os.O_APPEND", True), ("os.O_PATH", False)],
)
def test_an_open_descriptor_is_found_and_writing_told(shm: Path, flags: str, writing: bool) -> None:
    file = shm / "a file"
    file.touch()
    code = f"import os, sys; fd = os.open(sys.argv[1], {flags}); print(1, flush=True); sys.stdin.read()"
    with python(code, str(file)) as child:
        assert held_by(child, shm) == {(str(file), "open file", writing)}
        holder = next(h for h in processes.holders(shm.stat().st_dev) if h.pid == child.pid)
        assert holder.command == processes.command_of(child.pid) != ""


def test_a_deleted_file_is_still_held(shm: Path) -> None:
    code = "import os, sys; f = open(sys.argv[1], 'w'); os.unlink(sys.argv[1]); print(1, flush=True); sys.stdin.read()"
    with python(code, str(shm / "f")) as child:
        assert held_by(child, shm) == {(f"{shm}/f (deleted)", "open file", True)}


def test_a_working_directory_is_found_also_of_a_single_thread(shm: Path) -> None:
    with python(READY, cwd=str(shm)) as child:
        assert held_by(child, shm) == {(str(shm), "working directory", False)}
    code = (
        "import ctypes, os, sys, threading\n"
        "def work():\n"
        "    assert ctypes.CDLL(None).unshare(0x200) == 0\n"
        "    os.chdir(sys.argv[1]); print('ready', flush=True); sys.stdin.read()\n"
        "threading.Thread(target=work).start()\n"
    )
    with python(code, str(shm)) as child:
        assert os.readlink(f"/proc/{child.pid}/cwd") == "/"
        assert held_by(child, shm) == {(str(shm), "working directory", False)}


def test_we_ourselves_and_the_excluded_are_left_out(shm: Path) -> None:
    with open(shm / "f", "w"), python(READY, cwd=str(shm)) as child:
        pids = {h.pid for h in processes.holders(shm.stat().st_dev)}
        assert child.pid in pids
        assert os.getpid() not in pids
        assert child.pid not in {h.pid for h in processes.holders(shm.stat().st_dev, frozenset({child.pid}))}


def test_a_process_whose_first_thread_has_ended_still_holds(shm: Path) -> None:
    code = (
        "import ctypes, sys, threading, time\n"
        "f = open(sys.argv[1], 'w')\n"
        "def work():\n"
        "    time.sleep(0.1); print('ready', flush=True); time.sleep(60)\n"
        "threading.Thread(target=work).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with python(code, str(shm / "f")) as child:
        assert held_by(child, shm) == {(f"{shm}/f", "open file", True)}


def test_processes_that_come_and_go_meanwhile_do_no_harm(shm: Path) -> None:
    code = (
        "import os, sys\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    if os.fork() == 0:\n"
        "        for n in range(20): os.close(os.open(sys.argv[1], os.O_RDONLY))\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    with python(code, str(shm)) as child, python(READY, cwd=str(shm)) as steady:
        for _ in range(20):
            assert steady.pid in {h.pid for h in processes.holders(shm.stat().st_dev)}
        assert processes.command_of(child.pid)


def test_who_only_looks_in_passing_does_not_last_and_who_goes_from_file_to_file_does(shm: Path) -> None:
    passing = "import os, sys; fd = os.open(sys.argv[1], 0); print(1, flush=True); sys.stdin.readline(); os.close(fd)"
    roaming = (
        "import itertools, os, sys, time\n"
        "fd = os.open(sys.argv[1] + 'a', os.O_CREAT)\n"
        "print(1, flush=True)\n"
        "for n in itertools.cycle('ba'):\n"
        "    last, fd = fd, os.open(sys.argv[1] + n, os.O_CREAT)\n"
        "    os.close(last)\n"
        "    time.sleep(0.1)\n"
    )
    device = shm.stat().st_dev
    with python(passing + "; sys.stdin.read()", str(shm)) as child, python(roaming, f"{shm}/") as stays:
        assert child.stdin is not None
        assert child.pid in {each.pid for each in processes.holders(device)}
        child.stdin.write("go\n")
        child.stdin.flush()
        lasting = {each.pid for each in processes.lasting_holders(device)}
        assert child.pid not in lasting
        assert stays.pid in lasting


@pytest.mark.parametrize("text", ["", "1", "1:2", "a:b:c", "1:2:3:4"])
def test_what_is_no_identity_names_nobody_who_runs(text: str) -> None:
    assert not processes.alive(text)
