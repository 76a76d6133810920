# SPDX-License-Identifier: Apache-2.0
"""Commands that are killed, stopped, interrupted or disturbed at every moment that can be told from outside.

Whatever happens: the database goes on or can be started, and one `slackwater reconcile` later the machine holds what it
held before and what the catalog shows.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from slackwater.demo.load import LoadError
from slackwater.demo.strike import kill_in_window
from slackwater.system import cgroups
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.command import run
from tests.e2e import strikes
from tests.e2e.spawner import Command
from tests.e2e.strikes import Moment, Target
from tests.e2e.support import COPIES, GOES_ON_S, HOLD_S, LOOK_S, NAME, World, boot_s_of, is_guest, new_world
from tests.seeds import seed

pytestmark = [pytest.mark.root, pytest.mark.postgresql, pytest.mark.timeout(900)]

KEEP = 2
TRIES = 20
SEED = seed()
BACKUP = ("backup", NAME)
PHASES: dict[str, Moment] = {
    **{name: strikes.told(name) for name in ("identify", "select", "plan", "prepare")},
    "freeze": strikes.freezing,
    "snapshot": strikes.standing,
    "thaw": strikes.thawing,
    "record": strikes.told("record"),
}
RECOVERY_PHASES = ("check", "prepare", "stop", "switch", "start", "record")


@dataclass(frozen=True)
class Struck:
    """A command that was struck at its moment."""

    command: Command
    session: str
    at_s: float
    progress: strikes.Progress
    """What its journal says after its end."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One busy database for all of it; keep as many replicas as it takes for every backup to rotate."""
    with new_world(volumes=2, keep=KEEP, hold="process-freeze") as made:
        for _ in range(KEEP):
            made.back_up()
        yield made


@pytest.fixture(autouse=True)
def _from_a_clean_start(world: World) -> None:
    """After a test that failed."""
    with strikes.JournalWatch(f"{world.lab.state_dir}/journal.sqlite") as journal:
        if not journal.progress(begun=True).settled:
            world.spawner.spawn("reconcile").wait()
    if not world.cluster.running:
        world.cluster.start()


def strike(
    world: World,
    words: tuple[str, ...],
    moment: Moment,
    number: signal.Signals = signal.SIGKILL,
    *,
    group: bool = False,
    late: bool = False,
) -> Struck:
    """Start a command, and send it a signal at its moment; once more when it had ended before.

    With `group` also to what it has started, as a terminal does with SIGINT. With `late` one counts, too, that came to
    its end in spite of the signal.
    """
    for _ in range(TRIES):
        command = world.spawn(*words)
        if moment(world, command):
            at_s = SYSTEM_CLOCK.boot_s()
            command.send(number, group=group)
            status = command.wait()
            if status == -signal.SIGKILL or (number is not signal.SIGKILL and (late or status != 0)):
                with strikes.JournalWatch(f"{world.lab.state_dir}/journal.sqlite") as journal:
                    return Struck(command, command.session, at_s, journal.progress(begun=True))
        answer = command.answer()
        if is_guest(answer):
            time.sleep(LOOK_S)
            continue
        assert answer.status == 0, answer
        _note(world, command)
    pytest.fail(f"no {' '.join(words)} of {TRIES} could be struck")


def _note(world: World, command: Command) -> None:
    """Remember of a recovery that came to its end what has to be in its undo replica."""
    if stopped := command.told("phase", "stop"):
        world.moments[command.session] = boot_s_of(stopped)


def reconcile(world: World, where: str) -> None:
    """Once, and everything is right."""
    told = world.run("reconcile")
    assert told["unmended"] == [], where
    world.whole(where)


# -- backups ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
def test_a_backup_killed_in_a_phase_leaves_a_database_that_writes(world: World, phase: str) -> None:
    struck = strike(world, BACKUP, PHASES[phase])
    world.goes_on()
    assert world.load.longest_gap_s(after=struck.at_s) < GOES_ON_S
    reconcile(world, phase)


@pytest.mark.parametrize("copies", [(), COPIES[:1], COPIES[1:]])
def test_a_backup_killed_while_it_rotates_leaves_no_part_of_the_old_replica(
    world: World, copies: tuple[str, ...]
) -> None:
    """Whichever copies were gone by then; the kill can hardly be timed between two of them."""
    old = ""
    while not old:  # it may have been forgotten in the very moment of the strike
        strike(world, BACKUP, strikes.rotating)
        world.goes_on()
        old = next((name for name, each in world.replicas().items() if each["state"] == "deleting"), "")
    for each in copies:
        run("btrfs", "subvolume", "delete", f"{world.disk.path}/.slackwater/{old}/{each}", check=False)
    reconcile(world, f"{old} without {copies}")
    assert old not in world.replicas()


def test_a_backup_killed_at_every_effect_leaves_a_database_that_writes(world: World) -> None:
    rng = random.Random(SEED)
    for number, target in enumerate(strikes.targets(world, world.spawn(*BACKUP))):
        where = f"seed {SEED}, {target}"
        print(where)
        struck = strike(world, BACKUP, _at(target, rng), group=rng.random() < 0.5)
        world.goes_on()
        assert world.load.longest_gap_s(after=struck.at_s) < GOES_ON_S, where
        if number % 3:
            reconcile(world, where)
        else:  # the next command does it, too
            world.back_up()
            world.whole(where)
        kept = struck.session in world.replicas()
        assert kept == struck.progress.decided or struck.progress.settled or number % 3 == 0, where


def _at(target: Target, rng: random.Random) -> Moment:
    """At the target; in the middle of what is done there, when that takes some time: drawn anew for each try."""

    def wait(world: World, command: Command) -> bool:
        delay_s = rng.random() * min(target.lasts_s, 1.0) if target.lasts_s > 0.01 else 0.0
        return strikes.at(target, delay_s)(world, command)

    return wait


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_backup_stopped_on_request_puts_everything_back(world: World, phase: str, number: signal.Signals) -> None:
    struck = strike(world, BACKUP, PHASES[phase], number, group=number is signal.SIGINT, late=phase == "record")
    world.goes_on()
    answer = struck.command.answer()
    kept = struck.session in world.replicas()  # those of tries that had ended before they were struck are good
    if phase == "record":  # the replica is good by then, and it may be too late to stop
        assert kept
        assert (
            answer.status == 0
            or answer.document["error"]["data"] == f"The replica {struck.session} had been taken and is kept."
        )
    else:
        assert not kept
    if answer.status or phase != "record":
        assert (answer.status, answer.document["error"]["code"]) == (1, "aborted")
    world.whole(f"{number.name} in {phase}, without a reconcile")


# -- the window ------------------------------------------------------------------------------------------------------


def strike_window(world: World) -> tuple[Command, dict[str, Any]]:
    """Start a backup, and come back when everything stands still, with the guard's record."""
    for _ in range(TRIES):
        command = world.spawn(*BACKUP)
        if strikes.standing(world, command) and (record := strikes.record_of(world)):
            return command, record
        assert command.wait() == 0, command.answer()
    pytest.fail(f"no window of {TRIES} was seen")


def refused(world: World, command: Command, before: set[str]) -> None:
    """The hold was not good: nothing was kept, and it says so."""
    answer = command.answer()
    assert (answer.status, answer.document["error"]["code"]) == (12, "deadline"), answer
    assert set(world.replicas()) == before
    world.whole("a hold that was no good, without a reconcile")


def test_a_command_that_was_started_and_not_forked_dies_no_other_death(world: World) -> None:
    for _ in range(TRIES):
        with world.lab.spawn(*BACKUP) as backup:
            if struck := kill_in_window(backup, f"{world.lab.run_dir}/guard", thaw_s=GOES_ON_S):
                break
    assert struck is not None
    world.goes_on()
    assert world.load.longest_gap_s(after=struck.at_s) < GOES_ON_S
    assert world.lab.slackwater("reconcile").document["unmended"] == []
    world.whole("started, and killed in its window")


def test_a_stopped_coordinator_holds_nobody_beyond_the_deadline(world: World) -> None:
    for _ in range(TRIES):
        command, _ = strike_window(world)
        stopped_s = SYSTEM_CLOCK.boot_s()
        command.send(signal.SIGSTOP)
        world.goes_on(HOLD_S + GOES_ON_S)
        assert world.load.longest_gap_s(after=stopped_s) < HOLD_S + 1.0, "the specification allows no more"
        before = set(world.replicas())
        command.send(signal.SIGCONT)
        if command.wait() != 0:  # the window was still open when it was stopped
            return refused(world, command, before)
    pytest.fail("no coordinator was stopped in its window")


def test_a_killed_guard_costs_the_backup_and_nothing_else(world: World) -> None:
    before = set(world.replicas())
    for _ in range(TRIES):
        command, record = strike_window(world)
        _kill(strikes.guard_of(record))
        world.goes_on()
        if command.wait() != 0:  # it had not yet got the guard's good answer
            return refused(world, command, before)
        before = set(world.replicas())
    pytest.fail("no guard died in its window")


def test_a_server_killed_in_the_window_leaves_no_replica_that_says_more_than_it_holds(world: World) -> None:
    """Its image is that of a moment before or after its end: it is whole either way, or it is not kept."""
    before = set(world.replicas())
    command, record = strike_window(world)
    assert record["cgroups"]
    world.cluster.kill9()
    answer = command.answer()
    world.cluster.start()
    world.goes_on(5.0)
    kept = set(world.replicas()) - before
    assert kept == ({command.session} if answer.status == 0 else set()), answer
    assert answer.status in (0, 12), answer
    reconcile(world, f"killed in its window: {answer.status}")
    if kept:
        (began,) = [each["started"] for each in answer.document["phases"] if each["name"] == "freeze"]
        world.moments[command.session] = boot_s_of(began)
        world.recover("--replica", command.session)
        world.goes_on(5.0)
        world.holds(world.moments[command.session], "a replica of a server that was killed in its window")


def test_a_thaw_by_a_stranger_costs_the_backup_and_nothing_else(world: World) -> None:
    before = set(world.replicas())
    for _ in range(TRIES):
        command, record = strike_window(world)
        for each in record["cgroups"]:
            cgroups.thaw(each)
        world.goes_on()
        if command.wait() != 0:
            return refused(world, command, before)
        before = set(world.replicas())
    pytest.fail("no window was open long enough")


def test_a_restart_outside_of_what_will_be_frozen_costs_the_backup_and_nothing_else(world: World) -> None:
    """By a supervisor, between the gathering and the snapshot: nobody would have frozen the new server."""
    before = set(world.replicas())
    for _ in range(TRIES):
        command = world.spawn(*BACKUP)
        with strikes.JournalWatch(f"{world.lab.state_dir}/journal.sqlite") as journal:
            while ("process.gather", "done") not in (seen := journal.progress(begun=True)).effects:
                if command.poll() is not None:
                    break
                time.sleep(strikes.LOOK_S)
        command.send(signal.SIGSTOP)
        if not (command.poll() is not None or seen.decided or seen.settled or strikes.record_of(world)):
            break
        command.send(signal.SIGCONT)
        command.wait()
        before = set(world.replicas())
    world.cluster.kill9()
    world.cluster.start()
    world.goes_on()
    command.send(signal.SIGCONT)
    answer = command.answer()
    assert (answer.status, answer.document["error"]["code"]) == (12, "restarted"), answer
    assert set(world.replicas()) == before
    world.whole("restarted outside, without a reconcile")


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # its work was done just now
        os.kill(pid, signal.SIGKILL)


def kill_together(world: World, *, understudy: bool) -> None:
    """Kill guard and coordinator in the same instant, and with `understudy` the third one as well."""
    command, record = strike_window(world)
    command.send(signal.SIGSTOP)  # or it would see its guard's death
    for pid in strikes.understudies_of(world) if understudy else ():
        _kill(pid)
    _kill(strikes.guard_of(record))
    command.send(signal.SIGKILL)
    command.wait()


def test_guard_and_coordinator_killed_at_once_leave_nobody_frozen(world: World) -> None:
    kill_together(world, understudy=False)
    world.goes_on()
    reconcile(world, "both killed")


def test_all_three_killed_at_once_are_mended_by_any_command(world: World) -> None:
    for _ in range(TRIES):
        kill_together(world, understudy=True)
        record = strikes.record_of(world)
        if record and all(map(strikes.is_frozen, record["cgroups"])):
            break
    with pytest.raises(LoadError):
        world.goes_on(0.5)
    world.run("session", "list")
    world.goes_on()
    reconcile(world, "all three killed")


# -- recoveries ------------------------------------------------------------------------------------------------------


def test_a_recovery_killed_at_every_step_is_undone_or_finished(world: World) -> None:
    replica, rng = world.back_up(), random.Random(SEED)
    watched = world.spawn("recover", NAME, "--replica", replica, "--yes")
    moments = [strikes.told("check"), *(_at(each, rng) for each in strikes.targets(world, watched))]
    _note(world, watched)
    world.goes_on(5.0)
    for number, moment in enumerate(moments):
        _kill_a_step(world, replica, moment, f"seed {SEED}, {number}", rng)


def _kill_a_step(world: World, replica: str, moment: Moment, where: str, rng: random.Random) -> None:
    struck = strike(world, ("recover", NAME, "--replica", replica, "--yes"), moment, group=rng.random() < 0.5)
    print(where, struck.session, struck.progress)
    if rng.random() < 0.3:  # what puts it right is killed, too
        mending = world.spawn("reconcile")
        time.sleep(rng.random())
        mending.send(signal.SIGKILL)
        mending.wait()
    reconcile(world, where)
    world.goes_on(5.0)
    finished = world.recovered(struck.session)
    if struck.progress.decided:
        assert finished, where
    if finished:
        _note(world, struck.command)
    world.holds(world.moments[replica] if finished else struck.at_s, f"{where}, finished: {finished}")
    if finished:
        world.new_timeline(where)


@pytest.mark.parametrize("phase", RECOVERY_PHASES)
def test_a_recovery_stopped_on_request_is_taken_back_until_it_is_proven(world: World, phase: str) -> None:
    number = signal.SIGINT if RECOVERY_PHASES.index(phase) % 2 else signal.SIGTERM
    replica = world.newest()
    words = ("recover", NAME, "--replica", replica, "--yes")
    struck = strike(world, words, strikes.told(phase), number, group=number is signal.SIGINT)
    answer = struck.command.answer()
    world.goes_on(5.0)
    finished = world.recovered(struck.session)
    assert finished == (phase == "record"), "it is proven by then, and has acknowledged"
    if not finished or answer.status:
        assert (answer.status, answer.document["error"]["code"]) == (1, "aborted"), answer
    if finished:
        _note(world, struck.command)
    world.holds(world.moments[replica] if finished else struck.at_s, f"{number.name} in {phase}")
    world.whole(f"{number.name} in {phase}, without a reconcile")


# -- these tests themselves ------------------------------------------------------------------------------------------


def test_what_is_left_behind_is_seen(world: World) -> None:
    stray = world.disk.subvolume("stray")
    assert world.surplus() == ["+ subvolume stray"]
    os.rmdir(stray)
    world.whole("removed again")
    os.chmod(world.volumes[0], 0)
    try:
        assert [line[0] for line in world.surplus()] == ["+", "-"]
    finally:
        os.chmod(world.volumes[0], 0o700)


def test_a_database_that_stands_still_is_seen(world: World) -> None:
    server = next(iter(world.cluster.pids()))
    cgroup, effects = cgroups.plan_gather("twin", world.cluster.pids())
    gather, _ = effects
    gather.make()
    try:
        with open(f"{cgroup}/cgroup.freeze", "w", encoding="ascii") as f:
            f.write("1")
        time.sleep(0.05)
        with pytest.raises(LoadError, match="stands still"):
            world.goes_on(0.5)
        assert any("cgroup" in line for line in world.surplus()), server
    finally:
        gather.undo()
    world.goes_on()
    world.whole("thawed again")


def test_a_lost_commit_is_seen(world: World) -> None:
    moment = SYSTEM_CLOCK.boot_s()
    world.load.pause()
    with world.load.connect() as connection:
        row = connection.execute("DELETE FROM commits WHERE number = (SELECT max(number) FROM commits) RETURNING *")
        lost = row.fetchone()
        with pytest.raises(AssertionError, match="missing"):
            world.holds(moment, "the twin")
        connection.execute("INSERT INTO commits VALUES (%s, %s, %s)", lost)
    world.holds(moment, "after")
