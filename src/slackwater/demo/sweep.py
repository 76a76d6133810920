# SPDX-License-Identifier: Apache-2.0
"""Taking a lab away by its name alone: the same way after success, after an error and after SIGKILL.

Everything a lab makes bears its name, so nothing has to be remembered by the process that made it. Each item is tried
on its own; what could not be removed is reported, and nothing without the name is touched.
"""

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from glob import glob

from slackwater.demo.cluster import wait_gone
from slackwater.demo.inventory import Process, all_mounts, cgroup_root, loops, memory_files, mounts, processes
from slackwater.errors import SlackwaterError
from slackwater.system.command import CommandError, run

RUN_FOLDERS = ("/run", "/dev/shm")  # noqa: S108
"""Where a lab's run folder may be, the better first."""
_QUIT_S, _END_S = 5.0, 30.0
"""How long servers may take to clear up, and anything to end: it may wait for a busy disk."""
PATTERN = re.compile(r"sw-[0-9a-f]{6}")


def sweep(name: str) -> tuple[str, ...]:
    """Remove what the lab `name` made, and return what could not be removed. Idempotent.

    Raises:
        ValueError: that is no lab's name.
    """
    if PATTERN.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not the name of a lab")
    left: list[str] = []
    folders = _folders(name)
    memory = _shared_memory(name)
    _try(left, "processes", lambda: _end_processes(name))
    _try(left, "shared memory", lambda: _drop_memory(*memory))
    _try(left, "mounts", lambda: _unmount(name))
    _try(left, "clusters", lambda: _drop_clusters(name))  # after: it would empty data directories one by one
    _try(left, "loop devices", lambda: _detach(name))
    _try(left, "folders", lambda: _remove(folders))
    return tuple(left)


def _try(left: list[str], what: str, remove: Callable[[], None]) -> None:
    try:
        remove()
    except (SlackwaterError, OSError, LookupError, ValueError) as e:
        left.append(f"{what}: {e}")


def _end_processes(name: str) -> None:
    """Thaw what is frozen, kill what is not a server, let servers clear up their shared memory, then kill them too."""
    found = processes(name)
    groups = {p.cgroup for p in found if "slackwater" in p.cgroup}
    for group in groups:
        _write(f"{cgroup_root()}{group}/cgroup.freeze", "0")
    _signal([p for p in found if not p.is_server], signal.SIGKILL)
    servers = [p for p in found if p.is_server]
    _signal([p for p in servers if not p.is_backend], signal.SIGQUIT)
    if not wait_gone(frozenset(p.pid for p in servers), _QUIT_S):
        _signal(servers, signal.SIGKILL)
    late = processes(name)
    _signal(late, signal.SIGKILL)
    if not wait_gone(frozenset(p.pid for p in (*found, *late)), _END_S):
        raise SlackwaterError("Some processes did not end: " + "; ".join(p.command for p in processes(name)))
    for group in sorted(groups, reverse=True):
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(f"{cgroup_root()}{group}")


def _signal(found: list[Process], number: int) -> None:
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _drop_clusters(name: str) -> None:
    """Drop Debian clusters of that name; their data lie on the lab's disks and go with these."""
    for version, tag, port in _clusters(name):
        run("pg_dropcluster", version, tag, check=False)
        shutil.rmtree(f"/etc/postgresql/{version}/{tag}", ignore_errors=True)
        for path in (f"{version}-{tag}.pid", f".s.PGSQL.{port}", f".s.PGSQL.{port}.lock"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"/var/run/postgresql/{path}")


def _clusters(name: str) -> list[tuple[str, str, str]]:
    """Version, name and port of the lab's Debian clusters."""
    tags = [(v, t) for v in _list("/etc/postgresql") for t in _list(f"/etc/postgresql/{v}") if t.startswith(name)]
    return [(v, t, _setting(f"/etc/postgresql/{v}/{t}/postgresql.conf", "port")) for v, t in tags]


def _shared_memory(name: str) -> tuple[list[list[str]], set[str]]:
    """The lab's shared memory: System V segments by key and number, and files in /dev/shm.

    A server killed by SIGKILL leaves both behind until the next start in the same data directory. The first is in its
    postmaster.pid, line 7; the second is known from the living, and written down by `Cluster.kill9`.
    """
    files = memory_files(p.pid for p in processes(name) if p.is_server)
    notes = [path for folder in _folders(name) for path in glob(f"{folder}/**/*.memory", recursive=True)]
    locks = [path for folder in _folders(name) for path in glob(f"{folder}/**/postmaster.pid", recursive=True)]
    segments = [line.split() for path in locks for line in _lines(path)[6:7]]
    return segments, files.union(*map(_lines, notes))


def _drop_memory(segments: list[list[str]], files: set[str]) -> None:
    for key, number, *rest in map(str.split, _lines("/proc/sysvipc/shm")[1:]):
        attached = rest[4]
        if [key, number] in segments and attached == "0":
            run("ipcrm", "-m", number)
    for path in files:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _lines(path: str) -> list[str]:
    with open(path, encoding="utf-8") as f:
        return f.read().splitlines()


def _unmount(name: str) -> None:
    """Unmount what the lab mounted in our mount namespace, the latest first; others end with their processes."""
    own = os.readlink("/proc/self/ns/mnt")
    deadline = time.monotonic() + _END_S
    while here := [m for m in mounts(name) if m.namespace == own]:
        for mount in reversed(here):
            done = run("umount", mount.target, check=False)
            if done.status != 0 and time.monotonic() > deadline:
                raise CommandError(f"{mount.target} could not be unmounted: {done.complaint}")
        time.sleep(0.05 if any(m.namespace == own for m in mounts(name)) else 0)


def _detach(name: str) -> None:
    for loop in loops(name):
        run("losetup", "--detach", loop.device)


def _folders(name: str) -> list[str]:
    """The lab's folders: its own, and last the run folder, which knows where its own is."""
    found = []
    for base in RUN_FOLDERS:
        note = f"{base}/{name}/folder"
        with contextlib.suppress(OSError), open(note, encoding="utf-8") as f:
            found.append(f.read().strip())
        if os.path.isdir(f"{base}/{name}"):
            found.append(f"{base}/{name}")
    return [folder for folder in found if PATTERN.fullmatch(os.path.basename(folder))]


def _remove(folders: list[str]) -> None:
    """Remove them in turn, stopping at the first that cannot be: the last one is needed to find the others again."""
    for folder in folders:
        if any(m.target.startswith(f"{folder}/") for m in all_mounts()):
            raise SlackwaterError(f"something is still mounted below {folder}")
        if os.path.isdir(folder):
            shutil.rmtree(folder)


def _setting(path: str, key: str) -> str:
    """A setting of a postgresql.conf, the last one that stands."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8") as f:
        values = re.findall(rf"^{key}\s*=\s*'?([^'#\s]+)", f.read(), re.MULTILINE)
        return values[-1] if values else ""
    return ""


def _list(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def _write(path: str, text: str) -> None:
    with contextlib.suppress(FileNotFoundError), open(path, "w", encoding="utf-8") as f:
        f.write(text)
