# SPDX-License-Identifier: Apache-2.0
"""The session's lock: given back by its holder's death, also while a program is being started."""

import os
import signal
import time
from pathlib import Path

import pytest

from slackwater.system import locks
from slackwater.system.locks import SessionLock

LEFT_S = 0.2
AGES_S = 3.0


def taken_by_a_forked_child(path: str, left_s: float = LEFT_S) -> bool:
    """Whether the lock can be had although a child that has its holder's descriptors lives on for a moment."""
    told, tell = os.pipe()
    holder = os.fork()
    if holder == 0:
        SessionLock(path).acquire("a session")
        if os.fork() == 0:
            os.write(tell, b".")
            time.sleep(left_s)
            os._exit(0)
        signal.pause()
    os.read(told, 1)
    os.close(told)
    os.close(tell)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    with SessionLock(path) as lock:
        return lock.acquire("the next one")


def test_a_program_that_a_killed_holder_was_starting_makes_nobody_busy(tmp_path: Path) -> None:
    assert taken_by_a_forked_child(str(tmp_path / "lock"))


def test_without_patience_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SessionLock.acquire.__kwdefaults__ or {}, "within_s", 0.0)
    assert not taken_by_a_forked_child(str(tmp_path / "lock"), AGES_S)


def test_a_living_holder_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SessionLock(path := str(tmp_path / "lock")) as first, SessionLock(path) as second:
        assert first.acquire("process 1")
        assert not second.acquire("process 2", within_s=2 * locks._LOOK_S)
        assert second.holder() == "process 1"
