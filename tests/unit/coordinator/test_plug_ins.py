# SPDX-License-Identifier: Apache-2.0
"""Writers and providers of strangers that raise what nobody expects, or never come back: nothing stays frozen."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from slackwater.coordinator import window
from slackwater.coordinator.calls import HungError
from slackwater.coordinator.events import Taken
from slackwater.errors import DeadlineError, SlackwaterError
from slackwater.model.component import ComponentRef
from slackwater.model.plan import Limits
from tests.unit.coordinator.test_events import COMPONENT, PLAN, FakeWriter, Stage, check, run

SECOND = ComponentRef("engine", "two")
TWO = replace(
    PLAN,
    components=(COMPONENT, replace(COMPONENT, ref=SECOND)),
    holdings=(*PLAN.holdings, replace(PLAN.holdings[0], component=SECOND)),
    limits=Limits(freeze_s=0.3, hold_s=0.2),
)
PATIENT_S = 20.0


@pytest.mark.parametrize("defect", [TypeError, SystemExit])
@pytest.mark.parametrize("where", ["writer.prepare", "writer.freeze", "commit", "writer.thaw"])
def test_a_defect_of_a_plug_in_keeps_nobody_frozen(tmp_path: Path, where: str, defect: type[BaseException]) -> None:
    stage, result, journal = run(tmp_path, stage=Stage(where, defect=defect), plan=TWO)
    assert isinstance(result, SlackwaterError)
    assert result.reason == "plug-in"
    assert defect.__name__ in result.sentence
    assert check(stage, result) == []
    if where != "writer.prepare":
        assert stage.told.count("writer.thaw") == len(TWO.components)
        assert stage.told.count("guard.release") == 1
    assert not [each for each in journal.undo("s") if each.error]


def test_a_defect_in_prepare_costs_only_the_consistency_where_that_was_accepted(tmp_path: Path) -> None:
    _, result, _ = run(tmp_path, stage=Stage("writer.prepare", defect=KeyError), accept_crash=True)
    assert isinstance(result, Taken)
    assert result.consistency == "crash"


@pytest.mark.parametrize("where", ["writer.freeze", "commit", "writer.thaw"])
def test_what_never_comes_back_is_left_behind_at_the_deadline(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "THAW_S", 0.2)
    monkeypatch.setattr(window, "GRACE_S", 0.1)
    stage = Stage(hangs=where)
    began_s = time.monotonic()
    try:
        _, result, _ = run(tmp_path, stage=stage, plan=TWO)
    finally:
        stage.back.set()
    assert time.monotonic() - began_s < PATIENT_S
    assert isinstance(result, DeadlineError)
    assert result.exit_status == 12
    assert isinstance(result, HungError) == (where == "commit"), "what it may still make is undone later"
    assert stage.told.count("writer.thaw") == len(TWO.components)
    assert stage.told.count("guard.release") == 1


def test_an_application_that_was_started_again_outside_of_what_was_frozen_is_not_called_consistent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeWriter, "processes", lambda *_: frozenset({os.getpid()}))
    stage, result, journal = run(tmp_path)
    assert isinstance(result, DeadlineError)
    assert result.reason == "restarted"
    assert check(stage, result) == []
    assert not [each for each in journal.undo("s") if each.error]


def test_a_thaw_that_does_not_come_back_keeps_no_other_application_waiting(tmp_path: Path) -> None:
    stage = Stage(hangs="writer.thaw")
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(run, tmp_path, stage=stage, plan=TWO)
        try:
            until_s = time.monotonic() + window.THAW_S / 2
            while stage.told.count("writer.thaw") < len(TWO.components) and time.monotonic() < until_s:
                time.sleep(0.01)
            assert stage.told.count("writer.thaw") == len(TWO.components)
        finally:
            stage.back.set()
        running.result()
