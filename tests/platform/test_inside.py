# SPDX-License-Identifier: Apache-2.0
"""Whether the whole application was held: real processes, of which one leaves the cgroup, or is started outside."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest

from slackwater.coordinator import inside
from slackwater.errors import DeadlineError
from slackwater.model.component import Component, ComponentRef
from slackwater.system import cgroups
from tests.platform.crowd import READY, Crowd, eventually, new_crowd, python, write

pytestmark = [pytest.mark.root]


@dataclass
class Application:
    """Speaks for a crowd."""

    pids: set[int]

    def processes(self, component: Component) -> frozenset[int]:
        return frozenset(self.pids)


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with new_crowd() as made:
        yield made


@pytest.fixture
def application(crowd: Crowd) -> Application:
    return Application({each.pid for each in crowd.children})


def gathered(crowd: Crowd) -> inside.Crowd:
    held = inside.Crowd()
    ref = ComponentRef("crowd", "one")
    held.add(Component(ref, "", True, (), True, main_pid=crowd.children[0].pid), crowd.cgroup)
    return held


def check(held: inside.Crowd, application: Application) -> None:
    held.check(cast("Any", {"crowd": application}))


def test_who_stays_is_held(crowd: Crowd, application: Application) -> None:
    held = gathered(crowd)
    check(held, application)
    crowd.children[1].kill()
    assert eventually(lambda: crowd.children[1].poll() is not None)
    check(held, application)  # a worker that ended is none of our business


def test_one_who_was_started_outside_was_not_held(crowd: Crowd, application: Application) -> None:
    held = gathered(crowd)
    with python(READY) as child:
        application.pids.add(child.pid)
        with pytest.raises(DeadlineError, match=rf"process {child.pid} .* was not held") as refused:
            check(held, application)
    assert refused.value.exit_status == 12
    check(held, application)


def test_one_who_was_moved_out_was_not_held(crowd: Crowd, application: Application) -> None:
    held = gathered(crowd)
    write(f"{cgroups.root()}/cgroup.procs", str(crowd.children[2].pid))
    with pytest.raises(DeadlineError, match="was not held"):
        check(held, application)


def test_a_main_process_that_was_replaced_is_seen(crowd: Crowd, application: Application) -> None:
    held = gathered(crowd)
    crowd.children[0].kill()
    crowd.children[0].wait()
    crowd.add_counter()
    application.pids.add(crowd.children[-1].pid)
    with pytest.raises(DeadlineError, match="restarted"):
        check(held, application)
