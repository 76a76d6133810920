# SPDX-License-Identifier: Apache-2.0
"""A volume that somebody holds is never exchanged under him, neither there nor back."""

import os

import pytest

from slackwater.demo.lab import Lab
from slackwater.errors import RefusedError
from slackwater.providers._btrfs import effects
from slackwater.providers._btrfs.effects import Exchange
from tests.platform.btrfs_support import Ground, Sleeper, read, steps, stored, undo, write

pytestmark = [pytest.mark.root]


@pytest.fixture
def ground(lab: Lab) -> Ground:
    return Ground(lab.btrfs(512 << 20))


def test_no_exchange_under_a_process_that_writes(ground: Ground) -> None:
    data = ground.disk.subvolume("pg")
    write(f"{data}/rows", "one")
    copies = ground.backup([ground.volume(data)], "s1")
    write(f"{data}/rows", "two")
    switch = ground.provider.switch(copies, [ground.volume(data)], "s2")
    for effect in switch.clones:
        stored(effect).make()
    (exchange,) = switch.exchange
    with Sleeper('exec 9>>"$1"', f"{data}/rows") as pid:
        with pytest.raises(RefusedError, match=f"pid {pid}"):
            stored(exchange).make()
        assert read(f"{data}/rows") == "two"
    stored(exchange).make()
    assert read(f"{data}/rows") == "one"
    with Sleeper('cd "$1"', data) as pid:
        with pytest.raises(RefusedError, match=f"pid {pid}"):
            stored(exchange).undo()
        assert read(f"{data}/rows") == "one"
    undo(steps(switch))
    assert read(f"{data}/rows") == "two"


def test_without_the_check_the_process_would_write_into_what_was_set_aside(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: what the check is for happens as soon as it is gone."""
    data = ground.disk.subvolume("pg")
    write(f"{data}/rows", "one")
    copies = ground.backup([ground.volume(data)], "s1")
    switch = ground.provider.switch(copies, [ground.volume(data)], "s2")
    for effect in switch.clones:
        stored(effect).make()
    monkeypatch.setattr(effects.Exchange, "refuse_held", lambda self, top, path: None)
    fd = os.open(f"{data}/rows", os.O_WRONLY | os.O_APPEND)
    try:
        (exchange,) = switch.exchange
        assert isinstance(exchange, Exchange)
        exchange.make()
        os.write(fd, b" acknowledged")
    finally:
        os.close(fd)
    assert read(f"{data}/rows") == "one"
    with ground.provider.reach(switch.aside[0]) as aside:
        assert read(f"{aside}/rows") == "one acknowledged"
