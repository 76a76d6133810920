# SPDX-License-Identifier: Apache-2.0
"""When the clones of a recovery that is taken back have to be kept, and what they are called."""

from datetime import UTC, datetime

import pytest

from slackwater.journal.journal import Decision, OpenSession
from slackwater.model.component import Component, ComponentRef
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Window
from slackwater.model.replica import BackupComponents, ComponentRecord, ReplicaKind
from slackwater.recovery.takeback import describe, ran


@pytest.mark.parametrize(
    ("decision", "kept"),
    [(Decision.OPEN, False), (Decision.FINISH, True), (Decision.KEEP, True), (Decision.UNDO, False)],
)
def test_what_an_application_may_have_written_to(decision: Decision, kept: bool) -> None:
    """Also where the end of its start could not be recorded, or its start failed when it ran already."""
    assert ran(OpenSession("s", "recovery", "", decision)) == kept


@pytest.mark.parametrize(
    ("survives", "best", "promised"),
    [
        (True, Consistency.APPLICATION, Consistency.APPLICATION),
        (True, Consistency.CRASH, Consistency.CRASH),
        (False, Consistency.APPLICATION, Consistency.CRASH),  # perhaps it ended on it with the machine
    ],
)
def test_what_it_ran_on_promises_what_its_engine_makes_of_a_power_cut(
    survives: bool, best: Consistency, promised: Consistency
) -> None:
    component = Component(
        ComponentRef("engine", "one"), "", running=True, files=(), survives_power_cut=survives, best=best
    )
    now = datetime(2026, 1, 1, tzinfo=UTC)
    document = BackupComponents(
        schema_version=1, owner="o", session="s", kind=ReplicaKind.UNDO, specification="shop", created=now,
        hold=Hold.COLD, reason="", consistency=best, window=Window(), components=(ComponentRecord(component, {}),),
        copies=(), replica="earlier",
    )  # fmt: skip
    described = describe(document, [], now)
    assert (described.consistency, described.replica) == (promised, "")
    assert describe(described, [], now) == described
