# SPDX-License-Identifier: Apache-2.0
"""The main job: backups in a row under load; each recovers with all that was acknowledged, and that is undone again."""

import pytest

from tests.e2e.support import NAME, World, new_world

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

BACKUPS = 20


@pytest.mark.timeout(900)
def test_twenty_backups_of_two_volumes_recover_with_all_that_was_acknowledged() -> None:
    with new_world(volumes=2, keep=BACKUPS, hold="process-freeze", writers=2) as world:
        replicas = []
        for _ in range(BACKUPS):
            replicas.append(world.back_up())
            world.load.wait(5)
        assert list(world.replicas()) == replicas
        for replica in replicas:
            _recover_and_undo(world, replica)
        world.whole("after all recoveries")
        assert world.run("catalog", "check")["differences"] == []


def test_backups_of_one_volume_hold_nothing_and_recover_all_the_same() -> None:
    with new_world(volumes=1, keep=2, debian=True) as world:
        plan = world.run("backup", NAME, "--preview")["plan"]
        assert plan["hold"] == "atomic"
        assert "nothing has to be held" in plan["reason"]
        replicas = [world.back_up() for _ in range(3)]
        assert list(world.replicas()) == replicas[1:]
        _recover_and_undo(world, replicas[1])
        world.whole("after all recoveries")


def _recover_and_undo(world: World, replica: str) -> None:
    before = world.timeline()
    undo = _recover(world, replica)
    _turn(world, "--undo")
    assert world.timeline() == before
    world.holds(world.moments[undo], f"recovery from {replica} undone")
    _recover(world, replica)


def _recover(world: World, replica: str) -> str:
    undo = _turn(world, "--replica", replica)
    world.new_timeline(replica)
    world.holds(world.moments[replica], f"recovered from {replica}")
    return undo


def _turn(world: World, *options: str) -> str:
    """Recover with the load connected and waiting, which is quicker on a small machine, and see it go on."""
    world.load.pause()
    undo = world.recover(*options)
    world.load.resume()
    world.goes_on(5.0)
    return undo
