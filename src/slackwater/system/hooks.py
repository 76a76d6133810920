# SPDX-License-Identifier: Apache-2.0
"""Running the administrator's hooks: who may have written them, what they are told, and when they are killed.

Never inside a window: a hook may take as long as it is allowed to, and does what it likes.
"""

import os
import select
import signal
import stat
import subprocess
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from slackwater.errors import SlackwaterError
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.hooks import Hook, Hooks
from slackwater.system.clock import SYSTEM_CLOCK

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOST_SAID_BYTES = 2000
_LOOK_S = 0.1
_MOST_LINKS = 40
_KILLED_S = 5.0
#: In the environment of a command that `marked` made: its own process id, which what it starts inherits and is not.
_OWN = "SLACKWATER_PID"


class HookError(SlackwaterError):
    """A hook failed."""

    code = "hook"


@dataclass(frozen=True, slots=True)
class Ran:
    """How a hook ended."""

    failure: str
    """Why it failed, as the end of a sentence; empty when it ended with 0."""
    said: str
    """The end of what it wrote, standard error included."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A hook and its counterpart, as an effect: made, the first has run; undone, the second. Either may be absent.

    Whether a command did its work nobody but it can see, so after a crash the second may run a second time, or after a
    first that never began: it has to bear that.
    """

    kind: ClassVar[str] = "hook.pair"
    session: str
    specification: str
    names: tuple[str, ...]
    """Of both, as in the specification."""
    first: tuple[str, ...] = ()
    first_s: float = 0.0
    second: tuple[str, ...] = ()
    second_s: float = 0.0

    def describe(self) -> str:
        """One line for a preview."""
        told = [
            f"{name} ({' '.join(command)}, at most {limit_s:g} s)"
            for name, command, limit_s in zip(
                self.names, (self.first, self.second), (self.first_s, self.second_s), strict=True
            )
            if command
        ]
        return f"run the hook {', and afterwards '.join(told)}"

    def make(self) -> Facts:
        """Run the first.

        Raises:
            HookError: it failed.
        """
        ran = self.begin()
        if ran.failure:
            raise HookError(self.sentence(self.names[0], ran))
        return {}

    def undo(self) -> None:
        """Run the second. That it failed is no reason to run it again for ever.

        What a killed session left running of either is ended first: nobody looks at its deadline any more.
        """
        for name in self.names:
            kill_left(self._told(name))
        self.end()

    def begin(self, stop: threading.Event | None = None) -> Ran:
        """Run the first, until `stop` is set."""
        return self._run(self.names[0], self.first, self.first_s, stop)

    def end(self) -> Ran:
        """Run the second."""
        return self._run(self.names[1], self.second, self.second_s, None)

    def sentence(self, name: str, ran: Ran) -> str:
        """What a hook did, in a sentence."""
        command = (self.first, self.second)[self.names.index(name)]
        said = f" and said: {ran.said}" if ran.said else "."
        return f"Hook {name} ({command[0]}) {ran.failure or 'ran'}{said}"

    def _run(self, name: str, command: Sequence[str], limit_s: float, stop: threading.Event | None) -> Ran:
        if not command:
            return Ran("", "")
        return run(command, limit_s, self._told(name), stop)

    def _told(self, name: str) -> dict[str, str]:
        """The environment of one of them, by which it is known again."""
        told = {"SESSION": self.session, "SPEC": self.specification, "PHASE": name}
        return {f"SLACKWATER_{key}": value for key, value in told.items()}


def pair(session: str, specification: str, hooks: Hooks, first: str, second: str) -> Pair | None:
    """The pair of these two names; None when the specification has neither."""
    one, other = hooks.given.get(first), hooks.given.get(second)
    if one is None and other is None:
        return None
    nothing = Hook((), 0.0)
    one, other = one or nothing, other or nothing
    return Pair(
        session, specification, (first, second), one.command, one.timeout_s, other.command, other.timeout_s
    )  # fmt: skip


def findings(hooks: Hooks) -> list[Finding]:
    """Refuse hooks that others than root could have written. Reads only."""
    return [
        Finding(
            "hook",
            Severity.REFUSAL,
            f"The hook {name} would run {hook.command[0]} as root, but {why}.",
            "Hooks and all folders above them have to belong to root, and nobody else may write them.",
        )
        for name, hook in hooks.given.items()
        if (why := distrust(hook.command[0]))
    ]


def distrust(path: str) -> str:
    """Say why a program may not be run as root, as a clause; empty when it may.

    Everything on the way to it counts, links and the folders that they lead through too: who may write one of them
    could put another program there.
    """
    why = written_by_others(path, {0})
    return why or ("" if os.path.isfile(path) and os.access(path, os.X_OK) else f"{path} is no program")


def written_by_others(path: str, trusted: Collection[int], *, sticky: bool = False) -> str:
    """Say who else could have written what lies at a path, as a clause; empty when nobody but the trusted could.

    Args:
        path: absolute; everything on the way to it counts.
        trusted: user ids.
        sticky: bear with folders as /tmp, where nobody can replace what is not his.
    """
    if not os.path.isabs(path):
        return f"{path} is no absolute path"
    try:
        for each in _way(path):
            status = os.lstat(each)
            if status.st_uid not in trusted:
                return f"{each} belongs to user {status.st_uid}"
            shared = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and sticky and each != path
            if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o022 and not shared:
                return f"others than {'root' if trusted == {0} else 'you'} may write {each}"
    except OSError as e:
        return f"{path} cannot be looked at: {e.strerror}"
    return ""


def _way(path: str) -> Iterator[str]:
    """Every folder, link and file on the way to a path, each link followed."""
    at, todo, links = "/", path.split("/")[::-1], 0
    yield at
    while todo:
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            at = os.path.dirname(at)
            continue
        here = os.path.join(at, name)
        yield here
        if not os.path.islink(here):
            at = here
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(0, "too many links")
        target = os.readlink(here)
        at = "/" if target.startswith("/") else at
        todo += target.split("/")[::-1]


def run(
    command: Sequence[str], limit_s: float, environment: dict[str, str], stop: threading.Event | None = None
) -> Ran:
    """Run a command to its end, or kill its process group after `limit_s`, or when `stop` is set.

    What it leaves running in the background when it ends in time is its own affair.
    """
    if why := distrust(command[0]):
        return Ran(f"was not run: {why}", "")
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
            start_new_session=True, cwd="/", env={"PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **environment},
        )  # fmt: skip
    except OSError as e:
        return Ran(f"could not be started: {e.strerror}", "")
    said, failure = _Said(process), ""
    ends_s = SYSTEM_CLOCK.boot_s() + limit_s
    while not said.listen(min(_LOOK_S, ends_s - SYSTEM_CLOCK.boot_s())):
        stopped = stop is not None and stop.is_set()
        if stopped or SYSTEM_CLOCK.boot_s() >= ends_s:
            failure = "was stopped with the session" if stopped else f"did not end within {limit_s:g} s and was killed"
            break
    with suppress(ProcessLookupError):
        if failure:
            os.killpg(process.pid, signal.SIGKILL)
    status = process.wait()
    if status and not failure:
        failure = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
    return Ran(failure, said.close())


def marked(command: Sequence[str]) -> tuple[str, ...]:
    """A command whose own process is told from those that it starts. Nobody looks who may have written it."""
    return ("/bin/sh", "-c", f'export {_OWN}=$$; exec "$@"', "sh", *command)


def kill_left(environment: dict[str, str], *, own: bool = False) -> None:
    """Kill every process that was started with this environment, and wait for its end.

    Args:
        environment: all of it has to be there.
        own: only a command that was `marked` and has not ended, with its process group, and nothing else that it left
            running: a service is not to be killed for the command that started it.
    """
    for pid, fd in _left(environment, own=own):
        with suppress(OSError):
            if own and os.getpgid(pid) == pid:
                os.killpg(pid, signal.SIGKILL)
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            select.select([fd], [], [], _KILLED_S)


def wait_left(environment: dict[str, str], limit_s: float) -> bool:
    """Wait, at most so long, for every command that was `marked` and started with this environment to end.

    What it leaves running is its own affair. Returns whether all have ended.
    """
    ends_s = SYSTEM_CLOCK.boot_s() + limit_s
    return all(
        select.select([fd], [], [], max(0.0, ends_s - SYSTEM_CLOCK.boot_s()))[0]
        for _, fd in _left(environment, own=True)
    )


def _left(environment: dict[str, str], *, own: bool) -> Iterator[tuple[int, int]]:
    marks = {f"{key}={value}".encode() for key, value in environment.items()}
    for pid in [int(name) for name in os.listdir("/proc") if name.isdecimal()]:
        wanted = marks | {f"{_OWN}={pid}".encode()} if own else marks
        with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as f:
            if wanted <= set(f.read().split(b"\0")):
                fd = os.pidfd_open(pid)
                try:
                    yield pid, fd
                finally:
                    os.close(fd)


class _Said:
    """The end of what a process writes, read as it comes: neither may it fill the memory nor wait for a reader."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._pipe = process.stdout
        self._process = process
        self._end = b""
        self._poll = select.poll()
        if self._pipe:
            os.set_blocking(self._pipe.fileno(), False)
            self._poll.register(self._pipe, select.POLLIN)

    def listen(self, wait_s: float) -> bool:
        """Wait for words or the end for this long at most; say whether the process has ended."""
        heard = self._poll.poll(max(0.0, wait_s) * 1000)
        if heard and not self._read() and self._pipe:
            self._poll.unregister(self._pipe)
        return self._process.poll() is not None

    def _read(self) -> bool:
        """Take what is there; False at the end."""
        with suppress(BlockingIOError):
            text = os.read(self._pipe.fileno(), 65536) if self._pipe else b""
            self._end = (self._end + text)[-_MOST_SAID_BYTES:]
            return bool(text)
        return True

    def close(self) -> str:
        """What was said last."""
        if self._pipe:
            self._read()
            self._pipe.close()
        return self._end.decode(errors="replace").strip()
