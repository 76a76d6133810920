# SPDX-License-Identifier: Apache-2.0
"""What an undo replica may be called."""

from dataclasses import replace

import pytest

from slackwater.model.component import Component, ComponentRef
from slackwater.model.hold import Consistency
from slackwater.recovery.promise import promise

ENGINE = Component(ComponentRef("engine", "one"), "", running=True, files=(), survives_power_cut=True)
#: Someone vouches for its files, as long as it is stopped in order.
FRAGILE = replace(ENGINE, ref=ComponentRef("files", "/fragile"), survives_power_cut=False)
#: Files of which nobody knows when they belong together.
FILES = replace(ENGINE, ref=ComponentRef("files", "/unknown"), best=Consistency.CRASH)


@pytest.mark.parametrize(
    ("components", "stopped", "promised"),
    [
        ([ENGINE], [ENGINE], Consistency.APPLICATION),
        ([FRAGILE], [FRAGILE], Consistency.APPLICATION),
        ([FRAGILE], [], Consistency.CRASH),
        ([FILES], [FILES], Consistency.CRASH),
        ([FILES], [], Consistency.CRASH),
        ([replace(ENGINE, running=False)], [], Consistency.APPLICATION),  # down cleanly or not: it recovers
        ([replace(FRAGILE, running=False)], [], Consistency.CRASH),
        ([ENGINE, FILES], [ENGINE], Consistency.CRASH),
        ([ENGINE, FRAGILE], [ENGINE, FRAGILE], Consistency.APPLICATION),
        ([ENGINE, FRAGILE], [ENGINE], Consistency.CRASH),
    ],
)
def test_a_set_promises_the_lowest_of_what_is_known(
    components: list[Component], stopped: list[Component], promised: Consistency
) -> None:
    assert promise(components, [each.ref for each in stopped]) is promised
