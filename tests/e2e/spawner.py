# SPDX-License-Identifier: Apache-2.0
"""Real `slackwater` processes without the second of imports: each is forked from one that has imported everything.

A forked command has its own pid, descriptors and process group and runs `cli.main`, like one that was started; there
is no other way to strike a thousand of them within minutes. Nothing of Slackwater has run in the process that it is
forked from: no session, no connection, no thread. They are forked from `python -m tests.e2e.spawner`.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
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
                self._status = int(self._ended.recv(64) or -signal.SIGKILL)  # nothing: who waited for it is gone
            except BlockingIOError:
                return None
            self._ended.close()
        return self._status

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for its end and give its exit status."""
        if self._status is None:
            waiting = select.poll()  # select(2) knows no descriptor above 1023
            waiting.register(self._ended, select.POLLIN)
            assert waiting.poll(timeout_s * 1000), f"it still runs after {timeout_s} s: {self.complaint()}"
        status = self.poll()
        assert status is not None
        return status

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal: to it alone, or as a terminal does to everybody of its group.

        It may come too late: `wait` tells how the command ended.
        """
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended this very moment
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
            [sys.executable, "-m", "tests.e2e.spawner"], stdin=theirs.fileno(),
            env={**os.environ, **self._environment}, start_new_session=True,  # a Ctrl-C at the tests is not for it
        )  # fmt: skip
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
        # What has ended is its test's alone, and its files are closed with it.
        self._commands = [each for each in self._commands if each.poll() is None]
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


def _build_once() -> None:
    """Build the command line and list the plug-ins, as every command does and with what would come out of it: 30 ms."""
    from importlib import metadata

    import typer.main

    from slackwater.cli.main import app
    from slackwater.hosts import plugins

    build, built = typer.main.get_command, typer.main.get_command(app)
    listed = functools.cache(metadata.entry_points)
    for group in ("slackwater.writers", "slackwater.providers"):
        listed(group=group)
    setattr(typer.main, "get_command", lambda asked: built if asked is app else build(asked))  # noqa: B010
    setattr(plugins, "entry_points", listed)  # noqa: B010


if __name__ == "__main__":
    _import_everything()
    _build_once()
    if twin := os.environ.get("SLACKWATER_TEST_SABOTAGE"):
        from tests.matrix import sabotage

        sabotage.apply(twin)
    gc.freeze()
    _serve(socket.socket(fileno=0))
