# SPDX-License-Identifier: Apache-2.0
"""Stopping and starting a server, also one whose files are destroyed.

A server is stopped by systemd where it is a unit of its own (else systemd might start it again), and by the signals
of PostgreSQL's "Shutting Down the Server" elsewhere. It is started the way it was: by its unit, by Debian's
pg_ctlcluster, or by pg_ctl as its owner with the options it had.
"""

import contextlib
import os
import re
import shlex
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from threading import Thread
from typing import Any

from slackwater.errors import RefusedError, SlackwaterError
from slackwater.model.facts import Facts
from slackwater.system import services
from slackwater.system.command import CommandError, Finished, run
from slackwater.writers._postgresql import debian
from slackwater.writers._postgresql.find import Postmaster, pid_file_of, postmaster_on, processes_on, servers_on

SYSTEMD, PG_CTLCLUSTER, OWNER = "systemd", "pg_ctlcluster", "owner"
#: How long a fast shutdown may write its checkpoint, and what follows may take.
FAST_S, IMMEDIATE_S, KILL_S = 30.0, 10.0, 10.0
#: How long a start waits for a server that lives and recovers; `confirm` waits on.
START_S = 60.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Control:
    """All that is needed to stop and start one server when nothing is left of it but its name."""

    caption: str
    data_directory: str
    control: str
    """`systemd`, `pg_ctlcluster` or `owner`."""
    unit: str = ""
    major: str = ""
    cluster: str = ""
    bin_dir: str = ""
    start_directory: str = ""
    """What the server was given as -D: the data directory, or the one of its configuration."""
    options: str = ""
    """Its further options, quoted for a shell."""
    log_file: str = ""
    """Where its standard error went; empty when that was no file."""
    uid: int = 0
    gid: int = 0
    shared_memory: str = ""
    """Key and id of its System V segment when this was planned."""


def control_fields(caption: str, facts: Facts) -> dict[str, Any]:
    """The fields of a Control, from the facts of a component.

    Raises:
        RefusedError: the component was listed without being looked into, as one in a container is.
    """
    if "control" not in facts:
        raise RefusedError(
            f"PostgreSQL {caption} cannot be stopped or started from here: it was never asked how.",
            data="Nothing was changed.",
            hint="slackwater discover says why.",
        )
    known = {each.name: facts[each.name] for each in fields(Control) if each.name in facts}
    return {**known, "caption": caption}


def facts_of_control(server: Postmaster, cluster: str) -> dict[str, str | int]:
    """What a running server tells about how it was started."""
    major, _, name = cluster.partition("/")
    unit = services.unit_of(server.pid)
    way = SYSTEMD if unit else PG_CTLCLUSTER if cluster and debian.controls() else OWNER
    start_directory, options = split_options(server.arguments[1:])
    return {
        "data_directory": server.data_directory,
        "control": way,
        "unit": unit,
        "major": major,
        "cluster": name,
        "bin_dir": os.path.dirname(server.program),
        "start_directory": start_directory or server.data_directory,
        "options": shlex.join(options),
        "log_file": _log_of(server.pid),
        "uid": server.uid,
        "gid": server.gid,
        "shared_memory": server.lock.shared_memory,
    }


def split_options(arguments: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Take -D DIRECTORY out of a server's options, since pg_ctl gives it itself."""
    directory, rest = "", list(arguments)
    for at, each in enumerate(rest):
        if each == "-D" and at + 1 < len(rest):
            directory = rest[at + 1]
            del rest[at : at + 2]
            break
        if each.startswith("-D") and len(each) > 2:
            directory = each[2:]
            del rest[at]
            break
    return directory, tuple(rest)


def running(control: Control) -> Postmaster | None:
    """The server on this data directory, if one runs."""
    return postmaster_on(control.data_directory)


def stop(control: Control) -> None:
    """Bring the server to its end, and prove it: every process and its shared memory gone. Stopped already: fine.

    Raises:
        SlackwaterError: something of it is still there.
    """
    segments = {control.shared_memory, _segment_of(control.data_directory)} - {""}
    if control.control == SYSTEMD:
        with contextlib.suppress(CommandError):  # what systemd cannot stop is signalled below
            services.stop(control.unit, timeout_s=FAST_S)
    for sign, patience_s, orphans in (
        (signal.SIGINT, FAST_S, False),
        (signal.SIGQUIT, IMMEDIATE_S, True),
        (signal.SIGKILL, KILL_S, True),
    ):
        _signal(control, sign, orphans=orphans)
        if until(lambda: not servers_on(control.data_directory), patience_s if not _orphaned(control) else 1.0):
            break
    left = servers_on(control.data_directory)
    # The kernel gives the memory of a process that ends back some moments after the process is out of sight.
    until(lambda: not any(_attached(each, control.uid) for each in segments), 1.0 if left else KILL_S)
    attached = [each for each in segments if _attached(each, control.uid)]
    if left or attached:
        what = f"processes {sorted(left)}" if left else f"shared memory {attached[0]}"
        raise SlackwaterError(
            f"PostgreSQL {control.caption} is not stopped: {what} are still there.",
            data="They can still write to its files.",
            hint="See what keeps them (ps, ipcs -m), and try again.",
            code="not-stopped",
        )


def start(control: Control) -> Facts:
    """Start the server and wait until it accepts connections; one that recovers longer is left to go on.

    Runs already on this data directory: that one is waited for. One that is being stopped, by a session that was killed
    meanwhile, is first brought to its end. systemd is always asked: a stop in its queue is not yet seen on the server,
    and gives way to a start (systemctl(1), --job-mode). pg_ctlcluster is not waited for: it ends seconds after its
    server is up, and for all that time the application would be down for nothing.

    Raises:
        SlackwaterError: it did not start, or ended again.
    """
    if (ending := running(control)) and ending.lock.status == "stopping":
        stop(control)
    launch = _Launch(control) if control.control == SYSTEMD or running(control) is None else None
    if launch:
        launch.start()
    until(lambda: _accepts(control) or (running(control) is None and not (launch and launch.is_alive())), START_S)
    if launch and control.control != PG_CTLCLUSTER:
        launch.join(START_S)
    server = running(control)
    if server is None:
        raise _did_not_start(control, launch.complaint if launch else "")
    return {"pid": server.pid, "accepting": _accepts(control)}


class _Launch(Thread):
    """The command that starts a server, beside us: it may end later than we do."""

    def __init__(self, control: Control) -> None:
        super().__init__(name="launch", daemon=True)
        self._control = control
        self.complaint = ""

    def run(self) -> None:
        """Run it to its end."""
        try:
            self.complaint = _launch(self._control).complaint
        except SlackwaterError as e:
            self.complaint = e.sentence


def reload(data_directory: str) -> None:
    """Have a running server read its configuration again (SIGHUP, "Server Setup"). None runs: fine."""
    server = postmaster_on(data_directory)
    if server is not None:
        _send(server.pid, data_directory, signal.SIGHUP)


def last_words(log_file: str) -> str:
    """The last lines of a server's log that say why it ended. Only those: others can hold data."""
    try:
        with open(log_file, "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 16384))
            lines = f.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return " | ".join([line.strip() for line in lines if re.search(r"\b(FATAL|PANIC):  ", line)][-3:])


def _launch(control: Control) -> Finished:
    if control.control == SYSTEMD:
        try:
            services.start(control.unit, timeout_s=START_S)
        except CommandError as e:
            return Finished((), 1, "", e.sentence)
        return Finished((), 0, "", "")
    if control.control == PG_CTLCLUSTER:
        command: tuple[str, ...] = ("pg_ctlcluster", control.major, control.cluster, "start")
    else:
        command = (*services.own_scope(), *as_owner(control), *_pg_ctl(control))
    # The server outlives us: it has a session of its own (pg_ctl makes one), and none of our pipes.
    return run(*command, timeout_s=START_S + 30, check=False, fold_output=True, own_session=True)


def _pg_ctl(control: Control) -> tuple[str, ...]:
    program = os.path.join(control.bin_dir, "pg_ctl")
    log_file = control.log_file or os.path.join(control.data_directory, "slackwater-start.log")
    options = ("-o", control.options) if control.options else ()
    return (program, "start", "-D", control.start_directory, "-l", log_file, "-w", "-t", str(int(START_S)), *options)


def as_owner(control: Control) -> tuple[str, ...]:
    """The words before a command that run it as the server's owner, with that user's groups and a clean environment."""
    if os.geteuid() == control.uid:
        return ()
    return ("setpriv", f"--reuid={control.uid}", f"--regid={control.gid}", "--init-groups", "--reset-env")


def _signal(control: Control, sign: signal.Signals, *, orphans: bool) -> None:
    """Send a signal to the postmaster, or to everybody where it is dead or that is asked for."""
    server = running(control)
    everybody = processes_on(control.data_directory)
    targets = {server.pid} if server and sign is not signal.SIGKILL else everybody if orphans else set()
    for pid in targets:
        _send(pid, control.data_directory, sign)


def _send(pid: int, data_directory: str, sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            # Asked again with the process held: its number may have gone to a stranger.
            if pid in processes_on(data_directory):
                signal.pidfd_send_signal(fd, sign)
        finally:
            os.close(fd)


def _orphaned(control: Control) -> bool:
    return running(control) is None


def _accepts(control: Control) -> bool:
    server = running(control)
    return server is not None and server.lock.status in {"ready", "standby"}


def _segment_of(data_directory: str) -> str:
    lock = pid_file_of(data_directory)
    return lock.shared_memory if lock else ""


def _attached(segment: str, uid: int) -> bool:
    """Whether a System V segment is there and somebody has it attached, see proc(5) on /proc/sysvipc/shm."""
    key, _, number = segment.partition(" ")
    with open("/proc/sysvipc/shm", encoding="ascii") as f:
        names = f.readline().split()
        rows = [dict(zip(names, line.split(), strict=False)) for line in f]
    return any(
        row["key"] == key and row["shmid"] == number and row["uid"] == str(uid) and row["nattch"] != "0" for row in rows
    )


def until(done: Callable[[], bool], patience_s: float) -> bool:
    """Wait until something is so, at most so long; say whether it is."""
    ends_s = time.monotonic() + patience_s
    while not done():
        if time.monotonic() >= ends_s:
            return False
        time.sleep(_POLL_S)
    return True


def _log_of(pid: int) -> str:
    """The file that a process's standard error goes to; empty when it is no regular file with a name."""
    try:
        path = os.readlink(f"/proc/{pid}/fd/2")
        return path if os.path.samestat(os.stat(path), os.stat(f"/proc/{pid}/fd/2")) and os.path.isfile(path) else ""
    except OSError:
        return ""


def _did_not_start(control: Control, complaint: str) -> SlackwaterError:
    words = last_words(control.log_file or os.path.join(control.data_directory, "slackwater-start.log"))
    reason = words or complaint[-400:] or "its log says nothing"
    return SlackwaterError(
        f"PostgreSQL {control.caption} did not start: {reason.rstrip('.')}.",
        data="Its files are where they were.",
        hint=f"Look at {control.log_file or 'its log'}.",
        code="not-started",
    )
