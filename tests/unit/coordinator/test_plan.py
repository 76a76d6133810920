# SPDX-License-Identifier: Apache-2.0
"""The planner: every pair of need and guarantee that this version knows, at least a third of them refusals."""

from dataclasses import replace

import pytest

from slackwater.coordinator.plan import Grounds, Located, make_plan
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet
from slackwater.model.facts import Finding, Severity
from slackwater.model.plan import Consistency, Hold, Limits, Plan
from slackwater.model.storage import Capabilities, CommitForm, Volume

THROUGH = Capabilities(CommitForm.SYSTEM_CALL, "volume", reads_through_filesystem=True)
BELOW = Capabilities(CommitForm.COMMAND, "volume", reads_through_filesystem=False)
DATA = FileSet(FileRole.DATA, "/v/data")
LOG = FileSet(FileRole.LOG, "/v/wal", "pg_wal")
ENGINE = Component(ComponentRef("engine", "one"), "Engine", running=True, files=(DATA, LOG), survives_power_cut=True)


def volume(name: str, provider: str = "through") -> Volume:
    return Volume(provider, f"id:{name}", name, f"/v/{name}", "0:40")


def grounds(component: Component = ENGINE, *volumes: Volume | None, **more: object) -> Grounds:
    placed = volumes or (volume("data"), volume("wal"))
    located = [
        Located(component, files, placed[min(i, len(placed) - 1)], "ext4") for i, files in enumerate(component.files)
    ]
    return Grounds([component], located, {"through": THROUGH, "below": BELOW}, **more)  # type: ignore[arg-type]


def plan(given: Grounds, check: str = "strict") -> Plan:
    return make_plan(given, configuration_check=check, limits=Limits())


def codes(made: Plan) -> set[str]:
    return {each.code for each in made.refusals}


STOPPED = replace(ENGINE, running=False)
FRAGILE = replace(ENGINE, survives_power_cut=False)
ONE, TWO = (volume("data"),), (volume("data"), volume("wal"))
UNDER = (volume("data", "below"), volume("wal", "below"))


@pytest.mark.parametrize(
    ("component", "volumes", "more", "hold", "refused"),
    [
        (ENGINE, ONE, {}, Hold.ATOMIC, set()),
        (ENGINE, TWO, {}, Hold.PROCESS_FREEZE, set()),
        (FRAGILE, ONE, {}, Hold.PROCESS_FREEZE, set()),
        (FRAGILE, TWO, {}, Hold.PROCESS_FREEZE, set()),
        (STOPPED, ONE, {}, Hold.COLD, set()),
        (STOPPED, TWO, {}, Hold.COLD, set()),
        (replace(FRAGILE, running=False), TWO, {}, Hold.COLD, set()),
        (STOPPED, ONE, {"outside_writers": ["Process 9 (postgres)"]}, Hold.ATOMIC, set()),
        (STOPPED, TWO, {"outside_writers": ["Process 9 (postgres)"]}, Hold.PROCESS_FREEZE, {"outside-writer"}),
        (replace(ENGINE, files=()), (None,), {}, None, {"no-files"}),
        (ENGINE, ONE, {"not_freezable": "why"}, Hold.ATOMIC, set()),
        (ENGINE, (volume("data", "below"),), {}, Hold.ATOMIC, set()),
        (ENGINE, TWO, {"not_freezable": "the shell is in it"}, Hold.PROCESS_FREEZE, {"not-freezable"}),
        (FRAGILE, ONE, {"not_freezable": "the shell is in it"}, Hold.PROCESS_FREEZE, {"not-freezable"}),
        (ENGINE, UNDER, {}, Hold.PROCESS_FREEZE, {"below-filesystem"}),
        (FRAGILE, (volume("data", "below"),), {}, Hold.PROCESS_FREEZE, {"below-filesystem"}),
        (ENGINE, TWO, {"outside_writers": ["Process 9 (cron)"]}, Hold.PROCESS_FREEZE, {"outside-writer"}),
        (ENGINE, (volume("data"), None), {}, None, {"no-provider"}),
        (ENGINE, (None,), {}, None, {"no-provider"}),
        (ENGINE, (volume("data"), replace(volume("data"), id="id:other")), {}, None, {"same-name"}),
    ],
)  # fmt: skip
def test_need_and_guarantee(
    component: Component,
    volumes: tuple[Volume | None, ...],
    more: dict[str, object],
    hold: Hold | None,
    refused: set[str],
) -> None:
    made = plan(grounds(component, *volumes, **more))
    assert codes(made) == refused
    if hold is not None:
        assert made.hold is hold
        assert made.reason
    if not refused:
        assert made.consistency is Consistency.APPLICATION
        assert {each.files for each in made.placements} == set(component.files)
        assert all(each.guarantee for each in made.placements)


@pytest.mark.parametrize(
    ("check", "entries", "refused", "warned"),
    [
        ("strict", ["notes.txt"], True, False),
        ("strict", ["other/"], True, False),
        ("strict", [], False, False),
        ("non-strict", ["notes.txt"], False, True),
        ("non-strict", ["other/"], True, False),
        ("disabled", ["other/", "notes.txt"], False, True),
    ],
)
def test_configuration_check(check: str, entries: list[str], refused: bool, warned: bool) -> None:
    made = plan(grounds(ENGINE, *ONE, foreign={"id:data": entries}), check)
    assert (codes(made) == {"foreign-files"}) is refused
    found = [each for each in made.findings if each.code == "foreign-files"]
    assert any(each.severity is Severity.WARNING for each in found) is warned
    if refused:
        assert entries[0] in found[0].sentence


def test_what_writers_and_providers_found_is_in_the_plan() -> None:
    warning = Finding("unlogged-tables", Severity.WARNING, "They come back empty.")
    refusal = Finding("nested-subvolume", Severity.REFUSAL, "One is nested.")
    made = plan(grounds(replace(ENGINE, findings=(warning,)), *ONE, checks=[refusal]))
    assert warning in made.findings
    assert codes(made) == {"nested-subvolume"}
