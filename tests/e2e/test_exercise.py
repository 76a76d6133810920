# SPDX-License-Identifier: Apache-2.0
"""Every fault at every event of the contracts: whatever a plug-in does, nothing is left behind, and no replica lies."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from slackwater.demo.lab import Answer
from slackwater.hosts.exercise import COSTS, events
from slackwater.sessions.reconcile import ReconcileResult
from tests.e2e.exercise_support import World, new_world

pytestmark = [pytest.mark.root]

WALKS: dict[str, str] = {
    "backup pair": "provider.find writer.identify provider.volume_of writer.processes provider.check_backup"
    " provider.foreign provider.estimate_s provider.room writer.prepare provider.snapshot_effect provider.place_effect"
    " provider.place provider.open writer.keeper writer.keeper.ready writer.freeze writer.keeper.hold provider.commit"
    " writer.keeper.release writer.thaw provider.snapshot provider.copy provider.write_document writer.complete",
    "backup bridged": "writer.bridge writer.bridge.close writer.bridge.prove",
    "backup cold": "writer.stop writer.stop_effect writer.stop.undo",
    "backup full": "provider.reach provider.snapshot.undo provider.place.undo",
    "backup test:nosuch": "writer.find",
    "recover pair --replica {pair} --yes": "provider.altered provider.check_recovery provider.switch"
    " writer.start_effect writer.settle_effect provider.clone writer.rewrite provider.bar provider.exchange"
    " provider.unbar writer.start writer.confirm provider.seal",
    "recover full --replica {full} --yes": "provider.fill_effect provider.fill provider.fill.undo",
    "recover pair --replica {pair} --yes; confirm": "writer.start.undo provider.unbar.undo provider.exchange.undo"
    " provider.bar.undo provider.seal.undo provider.clone.keep",
    "recover pair --replica {pair} --yes; rewrite": "provider.clone.undo",
    "reconcile; unbar": "provider.exchange.exchanged",
    "replica verify {pair}": "writer.check_clone writer.start_clone provider.clone_effect provider.mount_order",
    "try pair": "writer.probe writer.probe.ask",
    "clone create {pair} --name trial": "provider.mounted_at",
    "clone delete trial --yes": "provider.delete_effect provider.delete",
    "replica pin {pair}": "provider.pin",
}
PROVOKED: dict[str, dict[str, Any]] = {
    "confirm": {"at": "writer.confirm", "do": "fail"},
    "rewrite": {"at": "writer.rewrite", "do": "fail"},
    "unbar": {"at": "provider.unbar", "do": "die", "times": 1},
}
"""What has to go wrong first, so that an event comes."""
NOBODY_ASKS = {"writer.stop_clone", "provider.delete.undo"}
QUESTIONS = {
    *("writer.identify", "writer.find", "writer.processes", "provider.find", "provider.volume_of", "provider.altered"),
    *("provider.check_backup", "provider.check_recovery", "provider.foreign", "provider.estimate_s", "provider.room"),
    *("provider.copy", "provider.reach", "provider.switch", "provider.mount_order", "provider.mounted_at"),
    *(event for event in events() if event.endswith("_effect")),
}
"""Who dies there has done nothing: other tests kill at any time."""
CASES = [(walk, event) for walk, names in WALKS.items() for event in names.split()]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with new_world() as made:
        yield made


def test_every_event_of_the_contracts_is_walked() -> None:
    assert {event for _, event in CASES} | NOBODY_ASKS == set(events())


def walk(world: World, words: str, **fault: Any) -> Answer:
    """Run a command with a fault, put right what it left, and see that all is well."""
    words, _, provoking = words.partition("; ")
    before = surroundings(world)
    if "delete" in words:
        world.obeyed("clone", "create", world.replicas["pair"], "--name", "trial")
    first = [PROVOKED[provoking]] if provoking else []
    if words == "reconcile":
        world.faults(*first)
        world.run("recover", "pair", "--replica", world.replicas["pair"], "--yes")
        first = []
    world.faults(*first, fault)
    try:
        answer = world.run(*words.format(**world.replicas).split())
        assert fault["at"] in world.acted
        world.faults()
        mended = world.reconcile()
        whole(world, mended, lied=fault["do"] == "lie", alone=words.startswith("recover full"))
    finally:
        world.faults()
        world.clear()
    assert surroundings(world) - before == set()
    assert world.differences() == []
    return answer


def surroundings(world: World) -> set[str]:
    """Mounts and processes: a keeper that keeps a lock is among them."""
    return {each for each in world.lab.inventory().lines if each.startswith(("mount", "process", "loop"))}


def whole(world: World, mended: ReconcileResult, *, lied: bool, alone: bool) -> None:
    """Storage, catalog and journal agree; the applications run on one moment; no good replica lies.

    After a lie something may be left that is no replica, or none any more, and is called so.
    """
    good = world.good()
    wrong = {each.replica for each in world.differences()}
    assert not wrong & {each.id for each in good}
    assert lied or not wrong
    assert world.cell.host.dump() == [] or (lied and mended.unmended)
    assert world.stopped() == []
    held = world.read()
    assert held["orders"] == held["ledger"] or alone
    assert set(held.values()) <= {"first", "second"}
    for replica in good:
        holds = world.holds(replica)
        assert len(holds) == 1
        assert holds <= ({"first"} if replica.id in world.replicas.values() else {"first", "second"})


DEADLY = [(words, event) for words, event in CASES if event not in QUESTIONS]


@pytest.mark.parametrize(("words", "event"), DEADLY)
def test_a_death(world: World, words: str, event: str) -> None:
    assert walk(world, words, at=event, do="die", times=1).status == -9 or ".keeper." in event


@pytest.mark.parametrize(("words", "event"), CASES)
def test_a_failure(world: World, words: str, event: str) -> None:
    walk(world, words, at=event, do="fail", kind="defect")


@pytest.mark.parametrize(("words", "event"), [each for each in CASES if events()[each[1]]])
def test_a_lie(world: World, words: str, event: str) -> None:
    """What the page of events says of it is true, also that it costs something."""
    with pytest.raises(AssertionError) if event in COSTS else nullcontext():
        walk(world, words, at=event, do="lie")


HANGS = ("writer.freeze", "writer.thaw", "writer.keeper.hold", "writer.keeper.release")


@pytest.mark.parametrize("event", [*HANGS, "provider.commit"])
def test_a_hang_in_the_window_costs_the_backup_and_nothing_else(world: World, event: str) -> None:
    answer = walk(world, "backup short", at=event, do="hang")
    assert answer.status in (1, 12), answer.output
