# SPDX-License-Identifier: Apache-2.0
"""Real `slackwater` processes without the second of imports: each is forked from one that has imported everything.

A forked command has its own pid, descriptors and process group and runs `cli.main`, like one that was started; there
is no other way to strike hundreds of them within minutes. They are forked from `python -m tests.e2e.spawner`.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any, Self

from slackwater.demo.lab import Answer


class Command:
    """A command that runs, in a process group of its own."""

    def __init__(self, pid: int, ended: socket.socket, output: IO[bytes], complaint: IO[bytes]) -> None:
        self.pid = pid
        self._ended = ended
        self._output, self._complaint = output, complaint
        self._status: int | None = None

    def poll(self) -> int | None:
        """Its exit status; the negative signal that killed it; None while it runs."""
        if self._status is None:
            try:
                self._status = int(self._ended.recv(64))
            except BlockingIOError:
                return None
        return self._status

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for its end and give its exit status."""
        ends_s = time.monotonic() + timeout_s
        while (status := self.poll()) is None:
            assert time.monotonic() < ends_s, f"it still runs after {timeout_s} s: {self.complaint()}"
            time.sleep(0.002)
        return status

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal: to it alone, or as a terminal does to everybody of its group."""
        if self.poll() is None:
            (os.killpg if group else os.kill)(self.pid, number)

    def complaint(self) -> str:
        """What it has written to standard error so far."""
        return _text(self._complaint)

    def output(self) -> str:
        """What it has written to standard output so far."""
        return _text(self._output)

    def told(self, kind: str, text: str = "") -> str:
        """When it first told of something, empty when it has not yet; see `--progress json`."""
        return next((each["at"] for each in self._events() if each["event"] == kind and text in ("", each["text"])), "")

    @property
    def session(self) -> str:
        """The session's id; empty before it began."""
        return next((str(each["text"]) for each in self._events() if each["event"] == "session"), "")

    def _events(self) -> list[dict[str, str]]:
        lines = self.complaint().split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def answer(self, timeout_s: float = 60.0) -> Answer:
        """Wait for its end; what it said."""
        status = self.wait(timeout_s)
        text = self.output()
        return Answer(status, text, self.complaint(), json.loads(text) if text.strip() else {})


class Spawner:
    """A context in which commands are forked; at its end those that still run are killed."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._commands: list[Command] = []

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.spawner"], stdin=theirs.fileno(), env={**os.environ, **self._environment}
        )
        theirs.close()
        assert ours.recv(16) == b"ready"
        return self

    def spawn(self, *arguments: str) -> Command:
        """Start a command with `--json` and return it running."""
        output, complaint = tempfile.TemporaryFile(buffering=0), tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        ended, at_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = [output.fileno(), complaint.fileno(), at_end.fileno()]
        socket.send_fds(self._socket, [json.dumps([*arguments, "--json"]).encode()], fds)
        at_end.close()
        pid = int(ended.recv(64))
        ended.setblocking(False)
        self._commands.append(Command(pid, ended, output, complaint))
        return self._commands[-1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._commands:
            each.send(signal.SIGCONT)
            each.send(signal.SIGKILL)
        self._socket.close()
        self._process.wait(10)


def _text(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), 1 << 22, 0).decode()


def _serve(requests: socket.socket) -> None:
    """Fork a command for each request, with somebody beside it who waits for its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    requests.send(b"ready")
    while True:
        text, fds, _, _ = socket.recv_fds(requests, 65536, 3)
        if not text:
            return
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _attend(json.loads(text), *fds)
        for fd in fds:
            os.close(fd)


def _attend(arguments: list[str], output: int, complaint: int, ended: int) -> None:
    at_end = socket.socket(fileno=ended)
    pid = os.fork()
    if pid == 0:
        at_end.close()
        _become(arguments, output, complaint)
    with at_end:
        at_end.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        at_end.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(arguments: list[str], output: int, complaint: int) -> None:
    from slackwater.cli.main import main

    os.setpgid(0, 0)
    null = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((null, output, complaint)):
        os.dup2(fd, number)
    os.closerange(3, 64)
    os.chdir("/")
    status = main(arguments)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)  # taking down an interpreter that was copied touches, and so copies, all of its memory


def _import_everything() -> list[Any]:
    """Whatever a command would import while it runs."""
    import importlib
    import pkgutil

    import slackwater

    names = [each.name for each in pkgutil.walk_packages(slackwater.__path__, "slackwater.")]
    skipped = ("slackwater.__main__", "slackwater.guard.guard", "slackwater.catalog.migrations")
    modules = [importlib.import_module(name) for name in names if not name.startswith(skipped)]
    modules += [
        importlib.import_module(name) for name in ("psycopg", "anyio._backends._asyncio", "sqlalchemy.dialects.sqlite")
    ]
    assert threading.active_count() == 1, "a process with threads cannot be forked safely"
    return modules


if __name__ == "__main__":
    _import_everything()
    gc.freeze()
    _serve(socket.socket(fileno=0))
