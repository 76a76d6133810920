# SPDX-License-Identifier: Apache-2.0
"""What becomes of holds where systemd is process 1: run inside a machine of its own, it says what went wrong."""

import os
from pathlib import Path

from slackwater.system import cgroups, loops, mounts, services, topology
from slackwater.system.command import run
from tests.platform.crowd import Crowd, eventually, new_cgroup, new_crowd, new_folder, write
from tests.platform.guarding import command, gone, kill_together

#: A user-mode Linux on a busy machine is slow.
PATIENCE_S = 60.0
EATER = "import sys; sys.stdin.readline(); x = []\nwhile True: x.append(b'x' * (1 << 20))"


def unit_of(coordinator: int) -> str:
    return f"slackwater-guard-s1-{coordinator}.service"


def loaded(unit: str) -> bool:
    return "not-found" not in run("systemctl", "show", "--property=LoadState", "--value", "--", unit).output


def all_three_killed(crowd: Crowd, run_dir: str) -> None:
    with command(crowd, run_dir, freeze_s=50, hold_s=50) as held:
        unit = unit_of(held.process.pid)
        understudy = services.main_pid(unit)
        assert "system.slice" in cgroups.cgroup_of(understudy), "the understudy is a unit of its own"
        assert held.next().startswith("frozen")
        kill_together(understudy, held.guard, held.process.pid)
        assert crowd.moves_within(PATIENCE_S) < PATIENCE_S, "process 1 did not release"
        assert eventually(lambda: not os.listdir(run_dir), PATIENCE_S)
        assert eventually(lambda: not loaded(unit), PATIENCE_S), "the unit is left"
        said = run("journalctl", "--quiet", "--output=cat", f"--unit={unit}").output
        assert f"did not release {crowd.cgroup}" in said, said


def a_good_hold(crowd: Crowd, run_dir: str) -> None:
    with command(crowd, run_dir, freeze_s=50, hold_s=50) as held:
        assert loaded(unit_of(held.process.pid))
        assert held.next().startswith("frozen")
        assert held.next().startswith("released")
        assert held.process.wait(PATIENCE_S) == 0
        assert eventually(lambda: not loaded(unit_of(held.process.pid)), PATIENCE_S), "the unit is left"


def out_of_memory(crowd: Crowd, run_dir: str) -> None:
    """The kernel kills the coordinator's whole cgroup (memory.oom.group, cgroup-v2.rst)."""
    write(f"{cgroups.root()}/cgroup.subtree_control", "+memory")
    with new_cgroup() as cgroup, command(crowd, run_dir, freeze_s=50, hold_s=50) as held, new_crowd(0) as eaters:
        assert held.next().startswith("frozen")
        eater = eaters.add(EATER)
        for each in (held.process.pid, eater.pid):
            write(f"{cgroup}/cgroup.procs", str(each))
        write(f"{cgroup}/memory.max", str(64 << 20))
        if os.path.exists(f"{cgroup}/memory.swap.max"):
            write(f"{cgroup}/memory.swap.max", "0")
        write(f"{cgroup}/memory.oom.group", "1")
        assert crowd.stands()
        assert eater.stdin is not None
        eater.stdin.write(b"\n")
        eater.stdin.flush()
        assert crowd.moves_within(PATIENCE_S) < PATIENCE_S, "the guard did not release"
        assert eventually(lambda: gone(held.process.pid) and gone(held.guard), PATIENCE_S)
        events = dict(line.split() for line in Path(f"{cgroup}/memory.events").read_text().splitlines())
        assert int(events["oom_kill"]) >= 2, f"both of the cgroup, not only who ate: {events}"


def a_device_mapping(crowd: Crowd, run_dir: str) -> None:
    """What lies on a mapped device lies on what that is made of (the kernel of the host may know none)."""
    modules = f"/usr/lib/uml/modules/{os.uname().release}/kernel/drivers"
    for module in ("block/loop", "md/dm-mod"):
        run("insmod", f"{modules}/{module}.ko", check=False)
    image = f"{run_dir}/image"
    with open(image, "wb") as f:
        f.truncate(1 << 20)
    shm = mounts.mount_of(run_dir)
    with loops.attached(image) as device:
        run("dmsetup", "create", "--noudevsync", "mapped", "--table", f"0 2048 linear {device} 0")
        number = run("dmsetup", "info", "-c", "--noheadings", "-o", "major,minor", "--separator", ":", "mapped").output
        assert shm is not None
        assert topology._below_device(number.strip()) == {shm.superblock}
        run("dmsetup", "remove", "--noudevsync", "mapped")


def main() -> None:
    for case in (a_good_hold, all_three_killed, out_of_memory, a_device_mapping):
        try:
            with new_crowd(1) as crowd, new_folder() as run_dir:
                case(crowd, str(run_dir))
        except Exception as e:  # noqa: BLE001  # whatever it is, the host reads it
            line = e.__traceback__.tb_next.tb_lineno if e.__traceback__ and e.__traceback__.tb_next else 0
            print(f"{case.__name__}, line {line}: {type(e).__name__} {e}")


if __name__ == "__main__":
    main()
