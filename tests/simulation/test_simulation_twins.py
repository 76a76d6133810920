# SPDX-License-Identifier: Apache-2.0
"""Each invariant catches a sabotaged twin: a defect is put into the real code, and worlds are lived until it shows."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from slackwater.coordinator import events, window
from slackwater.coordinator.inside import Crowd
from slackwater.coordinator.parts import Parts
from slackwater.errors import DeadlineError
from slackwater.guard.client import Guard
from slackwater.hosts import local
from slackwater.hosts.local import LocalHost
from slackwater.hosts.mending import Mender
from slackwater.journal.effects import Effect
from slackwater.journal.journal import Journal
from slackwater.model.facts import Facts
from slackwater.model.plan import Limits, Plan, Window
from slackwater.model.replica import Replica, ReplicaKind
from slackwater.recovery import takeback
from slackwater.sessions import backup, expiry, reconcile, rotation
from slackwater.sessions.adopt import Adopted
from slackwater.sessions.cell import Cell
from tests.simulation.kernel import simulated
from tests.simulation.storage import Storage
from tests.simulation.worlds import live

Sabotage = Callable[[pytest.MonkeyPatch], None]
MOST_WORLDS = 200


def no_thaw_when_the_snapshot_fails(patch: pytest.MonkeyPatch) -> None:
    thaw = window._thaw

    async def hasty(plan: Plan, parts: Parts, guard: Guard | None) -> Window:
        return Window() if sys.exc_info()[0] else await thaw(plan, parts, guard)

    patch.setattr(window, "_thaw", hasty)


def a_late_thaw_is_good(patch: pytest.MonkeyPatch) -> None:
    thaw = window._thaw

    async def lenient(plan: Plan, parts: Parts, guard: Guard | None) -> Window:
        try:
            return await thaw(plan, parts, guard)
        except DeadlineError:
            return Window()

    patch.setattr(window, "_thaw", lenient)


def deadlines_that_are_too_far(patch: pytest.MonkeyPatch) -> None:
    arm: Any = LocalHost._arm

    def generous(self: LocalHost, *arguments: Any) -> Guard:
        limits = arguments[-1]
        return cast("Guard", arm(self, *arguments[:-1], Limits(limits.freeze_s * 100, limits.hold_s * 100)))

    patch.setattr(LocalHost, "_arm", generous)


def intent_after_effect(patch: pytest.MonkeyPatch) -> None:
    def hasty(self: Journal, session: str, effect: Effect) -> Facts:
        facts = effect.make()
        (entry,) = self.intend(session, [effect])
        self.done(entry, facts)
        return facts

    patch.setattr(Journal, "run", hasty)


def nobody_asks_who_was_held(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Crowd, "check", lambda self, writers: None)


def a_part_of_the_set(patch: pytest.MonkeyPatch) -> None:
    take = events.take

    async def partial(*arguments: Any, **options: Any) -> events.Taken:
        taken = await take(*arguments, **options)
        return replace(taken, copies=taken.copies[:1])

    patch.setattr(events, "take", partial)
    patch.setattr(local, "must_be_there", lambda document, hands: None)  # it would see that


def a_failed_writer_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(events, "_crash_only", tuple)


def tags_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Storage, "ours", lambda self, filesystem, session, owner="": self.places.get((filesystem, session)))


def deletion_without_decision(patch: pytest.MonkeyPatch) -> None:
    async def hasty(cell: Cell, replica: Replica) -> None:
        await cell.host.delete(replica.document)
        cell.catalog.replicas.remove(replica.id)

    patch.setattr(rotation, "forget", hasty)


def the_old_goes_before_the_new_is_there(patch: pytest.MonkeyPatch) -> None:
    plan_of = backup.plan_of

    async def hasty(cell: Cell, specification: Any, components: Any) -> Any:
        kept = cell.catalog.replicas.list(specification=specification.name, kind=ReplicaKind.BACKUP)
        for each in kept[max(0, specification.replica.keep.last - 1) :]:
            if not each.pinned:
                await expiry.forget(cell, each)
        return await plan_of(cell, specification, components)

    patch.setattr(backup, "plan_of", hasty)


def nothing_is_adopted(patch: pytest.MonkeyPatch) -> None:
    async def blind(cell: Cell) -> Adopted:
        return Adopted((), ())

    patch.setattr(reconcile, "adopt", blind)


def what_was_switched_is_undone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Mender, "_switched", lambda self, session: False)


def what_ran_is_deleted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(takeback, "ran", lambda session: False)
    patch.setattr(Mender, "_may_be_switched", lambda self, session, *, wholly=True: not wholly)


def undone_in_the_order_of_making(patch: pytest.MonkeyPatch) -> None:
    entries = Journal.entries
    patch.setattr(Journal, "entries", lambda self, session: list(reversed(entries(self, session))))


SABOTAGES: list[tuple[Sabotage, str]] = [
    (deadlines_that_are_too_far, "1: "),
    (no_thaw_when_the_snapshot_fails, "2: "),
    (intent_after_effect, "3: "),
    (a_late_thaw_is_good, "was not held"),
    (nobody_asks_who_was_held, "4: "),
    (a_part_of_the_set, "lacks"),
    (a_failed_writer_counts, "its writer had failed"),
    (tags_are_not_looked_at, "which is not ours"),
    (deletion_without_decision, "nobody has decided"),
    (the_old_goes_before_the_new_is_there, "6: "),
    (nothing_is_adopted, "7: "),
    (what_was_switched_is_undone, "8: "),
    (what_ran_is_deleted, "8: "),
    (undone_in_the_order_of_making, "7: "),
]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("sabotage", "shows"), SABOTAGES, ids=[each.__name__ for each, _ in SABOTAGES])
def test_a_sabotaged_twin_is_caught(sabotage: Sabotage, shows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch)
    with simulated() as folder:
        seen = (live(seed, folder).violations for seed in range(1, MOST_WORLDS))
        assert any(shows in each for violations in seen for each in violations)
