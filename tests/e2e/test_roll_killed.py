# SPDX-License-Identifier: Apache-2.0
"""Roll-forwards of PostgreSQL that are killed at every entry of their journal, to the last commit and before a mistake.

Whatever happens: after one `slackwater reconcile` the database runs on the data it had, with all that it acknowledged,
or at the target; and the same recovery again works.
"""

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from slackwater.system.clock import SYSTEM_CLOCK
from tests.e2e import strikes
from tests.e2e.spawner import Command
from tests.e2e.strikes import Moment
from tests.e2e.support import LOOK_S, NAME, World, is_guest, new_world
from tests.seeds import seed

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(900)]

TRIES = 20
SEED = seed()


@dataclass
class Aim:
    """Where a recovery goes, and what tells whether it has got there."""

    words: tuple[str, ...]
    number: int = 0
    """Of the mistake that it stops before; 0 for the last commit."""
    at_s: float = 0.0
    """What was acknowledged until then came before the mistake."""


def ask(world: World, query: str) -> str:
    with world.load.connect() as connection:
        connection.autocommit = True
        done = connection.execute(query.encode())
        row = done.fetchone() if done.description else None
    return str(row[0]) if row else ""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world(volumes=1, keep=5) as made:
        ask(made, "ALTER SYSTEM SET wal_keep_size = '128MB'")
        ask(made, "SELECT pg_reload_conf()")
        ask(made, "CREATE TABLE mistakes (n int)")
        made.untouched = made.look()
        yield made


def aim(world: World, replica: str, number: int) -> Aim:
    """To the last commit for 0; else to right before a mistake that is made now."""
    words = ("recover", NAME, "--replica", replica, "--yes", "--to")
    if not number:
        return Aim((*words, "latest"))
    world.load.pause()
    at_s = SYSTEM_CLOCK.boot_s()
    xid = ask(world, f"INSERT INTO mistakes VALUES ({number}) RETURNING pg_current_xact_id()")
    world.load.resume()
    return Aim((*words, f"before:{xid}"), number, at_s)


def made(world: World, aimed: Aim) -> bool:
    """Whether the mistake is there."""
    return ask(world, f"SELECT count(*) FROM mistakes WHERE n = {aimed.number}") == "1"


def arrived(world: World, aimed: Aim, at_s: float, where: str) -> None:
    """It is at the target."""
    assert not (aimed.number and made(world, aimed)), where
    world.holds(aimed.at_s if aimed.number else at_s, f"{where}: arrived")
    world.new_timeline(where)


def strike(world: World, replica: str, number: int, moment: Moment) -> tuple[Aim, Command, float]:
    """Kill a recovery at its moment."""
    for again in range(TRIES):
        aimed = aim(world, replica, number + 100 * again if number else 0)
        command = world.spawn(*aimed.words)
        if moment(world, command):
            at_s = SYSTEM_CLOCK.boot_s()
            command.send(signal.SIGKILL)
            if command.wait() == -signal.SIGKILL:
                return aimed, command, at_s
        if is_guest(command.answer()):
            time.sleep(LOOK_S)
            continue
        assert command.poll() == 0, command.answer()
        world.timelines.add(world.timeline())
    pytest.fail(f"no recovery of {TRIES} could be struck")


def test_killed_at_every_step_it_is_undone_or_finished_and_works_again(world: World) -> None:
    rng = random.Random(SEED)
    replica = world.back_up()
    world.goes_on(5.0)
    targets = strikes.targets(world, world.spawn(*aim(world, replica, 0).words))
    world.timelines.add(world.timeline())
    world.goes_on(5.0)
    for number, target in enumerate(targets, start=1):
        towards = number if rng.random() < 0.5 else 0
        where = f"seed {SEED}, {target}, towards {towards}"
        _strike(world, replica, towards, strikes.at(target), where, again=rng.random() < 0.3)


def _strike(world: World, replica: str, number: int, moment: Moment, where: str, *, again: bool) -> None:
    aimed, command, at_s = strike(world, replica, number, moment)
    told = world.run("reconcile")
    assert told["unmended"] == [], where
    world.goes_on(5.0)
    finished = world.recovered(command.session)
    print(where, command.session, "finished" if finished else "undone")
    for each in told["sessions"]:
        assert each["compared"] is (True if finished else None), f"{where}: {each}"
    if finished:
        arrived(world, aimed, at_s, where)
        if aimed.number:
            return  # on this way there was no mistake that the same could stop before
    else:
        world.holds(at_s, f"{where}: undone")
        assert not aimed.number or made(world, aimed), where
    world.whole(where)
    if not again:
        return
    at_s = SYSTEM_CLOCK.boot_s()
    world.run(*aimed.words)
    arrived(world, aimed, at_s, f"{where}, again")
