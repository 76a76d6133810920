# SPDX-License-Identifier: Apache-2.0
"""An engine on clones where there are no namespaces: killed in the middle of its end, and ended by the next one."""

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slackwater.system.vacate import Vacate
from tests.platform.guarding import gone

STUBBORN = "trap '' INT; echo ready; while :; do sleep 1; done"


@pytest.fixture
def vacate(tmp_path: Path) -> Vacate:
    (tmp_path / "clone").mkdir()
    return Vacate(str(tmp_path / "engine"), (str(tmp_path / "clone"),))


@pytest.fixture
def tenant(vacate: Vacate) -> Iterator["subprocess.Popen[bytes]"]:
    """One who works in the clone, and does not end when he is asked to."""
    with subprocess.Popen(
        ["/bin/sh", "-c", STUBBORN], cwd=vacate.places[0], start_new_session=True, stdout=subprocess.PIPE
    ) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == b"ready\n"
            yield one
        finally:
            os.killpg(one.pid, signal.SIGKILL)


def test_killed_while_it_asks_somebody_to_end_the_next_one_ends_him(
    vacate: Vacate, tenant: "subprocess.Popen[bytes]"
) -> None:
    vacate.make()
    session = multiprocessing.get_context("fork").Process(target=vacate.undo)
    session.start()
    time.sleep(0.3)
    session.kill()
    session.join()
    assert not gone(tenant.pid), "it was asked, and has not been killed yet"
    assert os.path.isdir(vacate.folder)
    vacate.undo()
    assert gone(tenant.pid)
    assert not os.path.exists(vacate.folder)
    vacate.undo()


def test_what_was_never_made_is_undone_and_others_are_left_alone(vacate: Vacate, tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], cwd=tmp_path) as beside:
        vacate.undo()
        vacate.make()
        vacate.make()
        vacate.undo()
        assert not gone(beside.pid)
        beside.kill()
    assert not os.path.exists(vacate.folder)
