# SPDX-License-Identifier: Apache-2.0
"""Stopping and starting an application by a user's commands, when something comes in between."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from slackwater.errors import SlackwaterError
from slackwater.system import hooks
from slackwater.writers import _handling
from slackwater.writers._handling import StopApplication, start
from tests.platform.crowd import eventually
from tests.platform.guarding import gone

ENDS_S = 2.0
APPLICATION = """
import os, signal, sys, time
ending = []
signal.signal(signal.SIGTERM, lambda *_: (ending.append(1), open(sys.argv[1][:-3] + "ending", "w")))
if os.fork():
    os._exit(0)
os.setsid()
open(sys.argv[1], "w").write(str(os.getpid()))
while not ending:
    time.sleep(0.01)
time.sleep(float(sys.argv[2]))
"""
START = """#!/bin/sh
grep -qs "^State:.[^ZX]" /proc/$(cat {pid} 2>/dev/null)/status && exit 0
rm -f {pid}
{python} -I -S {program} {pid} {ends_s}
while ! test -s {pid}; do sleep 0.01; done
"""
STOP = """#!/bin/sh
kill -TERM $(cat {pid}) 2>/dev/null
while grep -qs "^State:.[^ZX]" /proc/$(cat {pid})/status; do sleep 0.01; done
"""


@dataclass
class Application:
    """It takes a while to end, as one that writes what it has in memory."""

    folder: Path

    def __post_init__(self) -> None:
        program = self.folder / "program.py"
        program.write_text(APPLICATION)
        for name, text in (("start", START), ("stop", STOP)):
            script = self.folder / name
            values = {"pid": self.folder / "pid", "python": sys.executable, "program": program, "ends_s": ENDS_S}
            script.write_text(text.format(**values))
            script.chmod(0o755)

    @property
    def pid(self) -> int:
        return int((self.folder / "pid").read_text())

    @property
    def runs(self) -> bool:
        return not gone(self.pid)

    def effect(self) -> StopApplication:
        return StopApplication("x", stop_command=f"{self.folder}/stop", start_command=f"{self.folder}/start")

    def cut_off(self) -> None:
        """Kill a session in the middle of its stop: when the application, or the command, has begun with it."""
        program = (
            "from slackwater.writers._handling import StopApplication\n"
            f"StopApplication('x', stop_command='{self.folder}/stop').make()"
        )
        with subprocess.Popen([sys.executable, "-c", program]) as session:
            try:
                assert eventually((self.folder / "ending").exists, 20)
            finally:
                session.kill()


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    made = Application(tmp_path)
    start(made.effect())
    try:
        yield made
    finally:
        if made.runs:
            os.kill(made.pid, signal.SIGKILL)


def test_what_a_killed_session_is_stopping_ends_before_it_is_started(application: Application) -> None:
    for undone in (False, True):
        application.cut_off()
        effect, before = application.effect(), application.pid
        effect.undo() if undone else start(effect)
        time.sleep(2 * ENDS_S)
        assert application.runs is undone, "the start alone finds it running, and it goes"
        assert (application.pid != before) is undone
        (application.folder / "ending").unlink()
        start(effect)


def test_what_a_stop_command_leaves_running_is_not_waited_for(application: Application) -> None:
    left = application.folder / "left"
    daemon = f"setsid sh -c 'echo $$ >{left}; exec sleep 300' </dev/null >/dev/null 2>&1 &\n"
    stop = application.folder / "stop"
    stop.write_text(stop.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{daemon}"))
    effect = application.effect()
    effect.make()
    began_s = time.monotonic()
    effect.undo()
    assert application.runs
    assert time.monotonic() - began_s < 60
    os.kill(int(left.read_text()), signal.SIGKILL)


def test_a_stop_that_does_not_end_is_said_and_nothing_started_beside_it(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    (application.folder / "stop").write_text(f"#!/bin/sh\ntouch {application.folder}/ending\nsleep 300\n")
    application.cut_off()
    monkeypatch.setattr(_handling, "_PATIENCE_S", 0.5)
    with pytest.raises(SlackwaterError) as caught:
        application.effect().undo()
    assert caught.value.reason == "still-stopping"
    hooks.kill_left(_handling._mark(application.effect()), own=True)
    application.effect().undo()
    assert application.runs


def test_a_command_that_failed_says_its_own_name(application: Application) -> None:
    (application.folder / "stop").write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    with pytest.raises(SlackwaterError) as caught:
        application.effect().make()
    assert caught.value.sentence == f"{application.folder}/stop failed with status 1 and said: no"
    (application.folder / "stop").unlink()
    with pytest.raises(
        SlackwaterError, match=f"{application.folder}/stop failed with status 127 and said: .*not found"
    ):
        application.effect().make()


@pytest.mark.parametrize("beside", [True, False])
def test_a_ctrl_c_at_the_terminal_does_not_cut_a_stop_short(tmp_path: Path, *, beside: bool) -> None:
    """And one that is in our session has the signal: that is what the others are spared."""
    command = f"echo began >{tmp_path}/began; sleep 0.5; echo ended >{tmp_path}/ended"
    words = f"['/bin/sh', '-c', {command!r}]"
    program = (
        "import signal; signal.signal(signal.SIGINT, lambda *_: None)\n"
        f"from slackwater.system.command import run; run(*{words}, check=False, own_session={beside})"
    )
    ours = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    assert eventually((tmp_path / "began").exists, 20)
    os.killpg(ours.pid, signal.SIGINT)
    assert ours.wait(20) == 0
    assert (tmp_path / "ended").exists() == beside
