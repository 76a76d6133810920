# SPDX-License-Identifier: Apache-2.0
"""The planner: every pair of need and guarantee that this version knows, at least a third of them refusals."""

from dataclasses import replace

import pytest

from slackwater.coordinator.grounds import Grounds, Located
from slackwater.coordinator.plan import make_plan
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet
from slackwater.model.facts import Finding, Severity
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Plan, PlanOptions
from slackwater.model.storage import Capabilities, CommitForm, Filesystem, Volume

THROUGH = Capabilities(CommitForm.SYSTEM_CALL, "volume", reads_through_filesystem=True)
BY_FILE = Capabilities(CommitForm.SYSTEM_CALL, "file", reads_through_filesystem=True)
WHOLE = Capabilities(CommitForm.SYSTEM_CALL, "nothing", reads_through_filesystem=True)
BELOW = Capabilities(CommitForm.COMMAND, "volume", reads_through_filesystem=False)
ARRAY = Capabilities(CommitForm.HELPER, "volume", reads_through_filesystem=False)
IMAGE = Capabilities(CommitForm.SYSTEM_CALL, "volume", reads_through_filesystem=False)
PROVIDERS = {"through": THROUGH, "below": BELOW, "by-file": BY_FILE, "array": ARRAY, "image": IMAGE, "whole": WHOLE}
DATA = FileSet(FileRole.DATA, "/v/data")
LOG = FileSet(FileRole.LOG, "/v/wal", "pg_wal")
ENGINE = Component(ComponentRef("engine", "one"), "Engine", running=True, files=(DATA, LOG), survives_power_cut=True)


def volume(name: str, provider: str = "through", superblock: str = "0:40") -> Volume:
    return Volume(provider, f"id:{name}", name, f"/v/{name}", superblock)


def grounds(component: Component = ENGINE, *volumes: Volume | None, **more: object) -> Grounds:
    placed = volumes or (volume("data"), volume("wal"))
    located = [
        Located(component, files, placed[min(i, len(placed) - 1)], "ext4") for i, files in enumerate(component.files)
    ]
    return Grounds([component], located, PROVIDERS, **more)  # type: ignore[arg-type]


def plan(given: Grounds, check: str = "strict") -> Plan:
    return make_plan(given, PlanOptions(configuration_check=check))


def codes(made: Plan) -> set[str]:
    return {each.code for each in made.refusals}


STOPPED = replace(ENGINE, running=False)
FRAGILE = replace(ENGINE, survives_power_cut=False)
ONE, TWO = (volume("data"),), (volume("data"), volume("wal"))
FILES = (volume("data", "by-file"), volume("wal", "by-file"))
COPIED = (volume("data", "whole"), volume("wal", "whole"))
IN_USE = {"in_use": [ENGINE.ref]}
OTHERS = {"outside_writers": {ENGINE.ref: ["Process 9 (postgres)"]}}
SLOW = {"estimates": {"id:data": 4.0, "id:wal": 7.0}}
STUCK = {"not_freezable": {ENGINE.ref: "the shell is in it"}}
LOGGING = replace(ENGINE, offers=(Hold.LOG_BRIDGE,))
WITHIN = replace(LOGGING, files=(replace(DATA, log="pg_wal"), FileSet(FileRole.TABLESPACE, "/v/space", "pg_tblspc/1")))
LOCKED = replace(ENGINE, offers=(Hold.APPLICATION_LOCK,), survives_power_cut=False)
LOOSE = replace(ENGINE, best=Consistency.CRASH)
UNDER = (volume("data", "below"), volume("wal", "below"))
IMAGES = (volume("data", "image", "7:1"), volume("wal", "array", "7:2"))
FREEZABLE = {
    "filesystems": {"id:data": Filesystem("7:1", "a", "/v/data", 1), "id:wal": Filesystem("7:2", "b", "/v/wal")}
}


@pytest.mark.parametrize(
    ("component", "volumes", "more", "hold", "refused"),
    [
        (ENGINE, ONE, {}, Hold.ATOMIC, set()),
        (ENGINE, TWO, {}, Hold.PROCESS_FREEZE, set()),
        (FRAGILE, ONE, {}, Hold.PROCESS_FREEZE, set()),
        (FRAGILE, TWO, {}, Hold.PROCESS_FREEZE, set()),
        (STOPPED, ONE, {}, Hold.COLD, set()),
        (replace(FRAGILE, offers=(Hold.COLD,)), ONE, {}, Hold.PROCESS_FREEZE, set()),
        (replace(FRAGILE, offers=(Hold.COLD,)), ONE, STUCK, Hold.COLD, set()),
        (STOPPED, TWO, {}, Hold.COLD, set()),
        (replace(FRAGILE, running=False), TWO, {}, Hold.COLD, set()),
        (STOPPED, ONE, OTHERS, Hold.ATOMIC, set()),
        (STOPPED, TWO, OTHERS, Hold.PROCESS_FREEZE, {"outside-writer"}),
        (replace(ENGINE, files=()), (None,), {}, None, {"no-files"}),
        (ENGINE, ONE, {"not_freezable": {ENGINE.ref: "why"}}, Hold.ATOMIC, set()),
        (ENGINE, (volume("data", "below"),), {}, Hold.ATOMIC, set()),
        (ENGINE, TWO, {"not_freezable": {ENGINE.ref: "the shell is in it"}}, Hold.PROCESS_FREEZE, {"not-freezable"}),
        (FRAGILE, ONE, {"not_freezable": {ENGINE.ref: "the shell is in it"}}, Hold.PROCESS_FREEZE, {"not-freezable"}),
        (ENGINE, UNDER, {}, Hold.PROCESS_FREEZE, set()),
        (ENGINE, UNDER, FREEZABLE, Hold.PROCESS_FREEZE, set()),
        (ENGINE, UNDER, FREEZABLE | STUCK, Hold.PROCESS_FREEZE, {"not-freezable"}),
        (FRAGILE, (volume("data", "below"),), {}, Hold.PROCESS_FREEZE, set()),
        (ENGINE, IMAGES, FREEZABLE, Hold.FILESYSTEM_FREEZE, set()),
        (ENGINE, IMAGES, FREEZABLE | STUCK | OTHERS, Hold.FILESYSTEM_FREEZE, set()),
        (ENGINE, IMAGES, FREEZABLE | SLOW, Hold.FILESYSTEM_FREEZE, {"too-slow"}),
        (ENGINE, IMAGES[:1], FREEZABLE, Hold.ATOMIC, set()),
        (ENGINE, IMAGES, {}, Hold.PROCESS_FREEZE, set()),
        (ENGINE, IMAGES, {"not_freezable_volumes": {"id:data": "/ carries us"}} | STUCK, Hold.PROCESS_FREEZE,
         {"not-freezable"}),
        (FRAGILE, IMAGES, FREEZABLE, Hold.PROCESS_FREEZE, set()),
        (FRAGILE, IMAGES, FREEZABLE | OTHERS, Hold.PROCESS_FREEZE, {"outside-writer"}),
        (ENGINE, (IMAGES[0], volume("wal")), FREEZABLE, Hold.PROCESS_FREEZE, set()),
        (LOGGING, IMAGES, FREEZABLE, Hold.LOG_BRIDGE, set()),
        (LOCKED, IMAGES, FREEZABLE, Hold.APPLICATION_LOCK, set()),
        (STOPPED, IMAGES, FREEZABLE, Hold.COLD, set()),
        (STOPPED, IMAGES, FREEZABLE | OTHERS, Hold.FILESYSTEM_FREEZE, set()),
        (LOOSE, IMAGES, FREEZABLE, Hold.FILESYSTEM_FREEZE, set()),
        (ENGINE, TWO, OTHERS, Hold.PROCESS_FREEZE, {"outside-writer"}),
        (ENGINE, FILES, {}, Hold.PROCESS_FREEZE, set()),
        (ENGINE, FILES, SLOW, Hold.PROCESS_FREEZE, {"too-slow"}),
        (LOCKED, FILES, SLOW, Hold.APPLICATION_LOCK, {"too-slow"}),
        (LOGGING, FILES, SLOW, Hold.LOG_BRIDGE, set()),
        (STOPPED, FILES, SLOW, Hold.COLD, set()),
        (ENGINE, FILES, STUCK, Hold.PROCESS_FREEZE, {"not-freezable"}),
        (LOGGING, ONE, {}, Hold.ATOMIC, set()),
        (LOGGING, TWO, {}, Hold.LOG_BRIDGE, set()),
        (LOGGING, TWO, OTHERS, Hold.LOG_BRIDGE, set()),
        (LOGGING, TWO, STUCK, Hold.LOG_BRIDGE, set()),
        (LOGGING, UNDER, {}, Hold.LOG_BRIDGE, set()),
        (LOGGING, FILES, {}, Hold.LOG_BRIDGE, set()),
        (WITHIN, FILES, {}, Hold.LOG_BRIDGE, set()),
        (replace(LOGGING, running=False), FILES, {}, Hold.COLD, set()),
        (WITHIN, TWO, {}, Hold.PROCESS_FREEZE, set()),
        (WITHIN, TWO, STUCK, Hold.PROCESS_FREEZE, {"not-freezable"}),
        (LOCKED, ONE, {}, Hold.APPLICATION_LOCK, set()),
        (LOCKED, FILES, STUCK | OTHERS, Hold.APPLICATION_LOCK, set()),
        (LOCKED, UNDER, {}, Hold.APPLICATION_LOCK, set()),
        (LOOSE, ONE, {}, Hold.ATOMIC, set()),
        (LOOSE, FILES, {}, Hold.STILL, set()),
        (LOOSE, FILES, OTHERS | STUCK, Hold.PROCESS_FREEZE, {"not-freezable", "outside-writer"}),
        (LOOSE, TWO, OTHERS, Hold.PROCESS_FREEZE, {"outside-writer"}),
        (ENGINE, COPIED, IN_USE, None, {"copied-whole"}),
        (LOGGING, COPIED, IN_USE, None, {"copied-whole"}),
        (LOCKED, COPIED, IN_USE, None, {"copied-whole"}),
        (LOCKED, COPIED, {}, None, {"copied-whole"}),
        (ENGINE, (volume("data"), volume("wal", "whole")), IN_USE, None, {"copied-whole"}),
        (replace(ENGINE, can_stop=True), COPIED, IN_USE, None, {"copied-whole"}),
        (replace(FRAGILE, offers=(Hold.COLD,)), COPIED, IN_USE, Hold.COLD, set()),
        (STOPPED, COPIED, SLOW, Hold.COLD, set()),
        (STOPPED, COPIED, OTHERS, None, {"copied-whole"}),
        (LOOSE, COPIED, SLOW, Hold.STILL, set()),
        (LOOSE, COPIED, OTHERS, None, {"copied-whole"}),
        (LOOSE, COPIED, IN_USE, None, {"copied-whole"}),
        (ENGINE, COPIED, {}, Hold.STILL, set()),
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
        assert made.consistency is component.best
        assert {each.files for each in made.placements} == set(component.files)
        assert all(each.guarantee for each in made.placements)


ASKED = PlanOptions(hold=Hold.FILESYSTEM_FREEZE)


def test_filesystems_are_frozen_in_the_order_in_which_they_lie_on_each_other_each_once() -> None:
    made = plan(grounds(ENGINE, *IMAGES, **FREEZABLE))
    assert [each.mount for each in made.filesystems] == ["/v/wal", "/v/data"]
    assert "power cut" in made.reason
    one = {name: Filesystem("7:1", "a", "/v") for name in ("id:data", "id:wal")}
    assert plan(grounds(ENGINE, *IMAGES, filesystems=one)).filesystems == (one["id:data"],)
    assert plan(grounds(ENGINE, *UNDER, **FREEZABLE)).filesystems == (), "no command can be trusted not to write"


@pytest.mark.parametrize(
    ("volumes", "more", "why"),
    [
        (UNDER, FREEZABLE, "by a command"),
        (IMAGES, {"not_freezable_volumes": {"id:data": "/ carries the root filesystem"}}, "the root filesystem"),
    ],
)
def test_a_filesystem_freeze_that_is_asked_for_and_cannot_be_says_why(
    volumes: tuple[Volume, ...], more: dict[str, object], why: str
) -> None:
    made = make_plan(grounds(ENGINE, *volumes, **more), ASKED)
    assert codes(made) == {"filesystem-freeze"}
    assert why in " ".join(each.sentence for each in made.refusals)
    assert codes(make_plan(grounds(FRAGILE, *IMAGES, **FREEZABLE), ASKED)) == {"hold"}
    assert codes(make_plan(grounds(ENGINE, *TWO), ASKED)) == {"hold"}


def test_nobody_else_of_the_set_may_have_to_write_to_what_is_frozen() -> None:
    """A snapshot of a subvolume is a write to its filesystem, and would wait for the thaw."""
    two = replace(ENGINE, ref=ComponentRef("engine", "two"), files=(DATA,))
    located = [Located(ENGINE, files, each) for files, each in zip(ENGINE.files, IMAGES, strict=True)]
    for superblock, refused in (("7:2", {"filesystem-freeze"}), ("0:40", set())):
        beside = Located(two, DATA, volume("other", superblock=superblock))
        made = make_plan(Grounds([ENGINE, two], [*located, beside], PROVIDERS, **FREEZABLE), PlanOptions())  # type: ignore[arg-type]
        holds = [Hold.PROCESS_FREEZE if refused else Hold.FILESYSTEM_FREEZE, Hold.ATOMIC]
        assert [each.hold for each in made.holdings] == holds
        assert codes(made) == set()


def test_how_long_the_copies_take_is_told_where_it_is_felt() -> None:
    made = plan(grounds(ENGINE, *FILES, estimates={"id:data": 1.0, "id:wal": 0.5}))
    assert [(each.code, "1.5 s" in each.sentence) for each in made.findings] == [("duration", True)]
    assert plan(grounds(ENGINE, *FILES, estimates={"id:data": 0.01})).findings == ()


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


def test_the_log_is_taken_after_everything_else() -> None:
    bridged = plan(grounds(LOGGING, *TWO))
    assert [[take.volume.name for take in stage] for stage in bridged.stages] == [["data"], ["wal"]]
    assert {each.files.role: each.stage for each in bridged.placements} == {FileRole.DATA: 1, FileRole.LOG: 2}
    (first, second) = plan(grounds(WITHIN, *FILES)).stages
    assert [(take.trees, take.without) for take in first] == [
        (("/v/data",), ("/v/data/pg_wal",)),
        (("/v/space",), ()),
    ]
    assert [(take.trees, take.without) for take in second] == [(("/v/data/pg_wal",), ())]
    with_files = plan(grounds(replace(ENGINE, files=(replace(DATA, never=("a",), last=("b",)),)), *ONE))
    assert [(take.without, take.last) for take in with_files.stages[0]] == [(("/v/data/a",), ("/v/data/b",))]


@pytest.mark.parametrize(
    ("left", "where", "right", "there", "holds", "refused"),
    [
        (ENGINE, "data", ENGINE, "data", [Hold.ATOMIC, Hold.ATOMIC], set()),
        (ENGINE, "data", LOOSE, "data", [Hold.ATOMIC, Hold.ATOMIC], set()),
        (ENGINE, "data", ENGINE, "wal", [Hold.ATOMIC, Hold.PROCESS_FREEZE], set()),
        (ENGINE, "data", LOCKED, "wal", [Hold.ATOMIC, Hold.APPLICATION_LOCK], set()),
        (LOCKED, "data", LOCKED, "wal", [Hold.APPLICATION_LOCK, Hold.APPLICATION_LOCK], set()),
        (LOGGING, "data", STOPPED, "wal", [Hold.ATOMIC, Hold.COLD], set()),
        (FRAGILE, "data", LOCKED, "wal", [Hold.PROCESS_FREEZE, Hold.APPLICATION_LOCK], set()),
    ],
)
def test_a_set_has_one_moment(
    left: Component, where: str, right: Component, there: str, holds: list[Hold], refused: set[str]
) -> None:
    one, two = replace(left, files=(DATA,)), replace(right, ref=ComponentRef("engine", "two"), files=(DATA,))
    located = [Located(one, DATA, volume(where)), Located(two, DATA, volume(there))]
    made = plan(Grounds([one, two], located, {"through": THROUGH}))
    assert [each.hold for each in made.holdings] == holds
    assert codes(made) == refused
    lowest = Consistency.CRASH if Consistency.CRASH in (left.best, right.best) else Consistency.APPLICATION
    assert made.consistency is lowest


@pytest.mark.parametrize(("provider", "refused"), [("through", set()), ("by-file", {"not-freezable"})])
def test_a_directory_nobody_can_hold_gives_the_moment_over_which_others_are_held_or_there_is_none(
    provider: str, refused: set[str]
) -> None:
    """Its writers are not known; so it has to be of one instant by itself, and nothing else may be of another one."""
    loose = replace(LOOSE, ref=ComponentRef("files", "/v/f"), files=(FileSet(FileRole.DATA, "/v/f"),))
    other = replace(loose, ref=ComponentRef("files", "/v/g"), files=(FileSet(FileRole.DATA, "/v/g"),))
    located = [Located(ENGINE, DATA, volume("data")), Located(loose, loose.files[0], volume("f", provider))]
    stuck = {each.ref: "nobody is known to write it" for each in (loose, other)}
    given = {"through": THROUGH, "by-file": BY_FILE}
    made = plan(Grounds([ENGINE, loose], located, given, not_freezable=stuck))
    assert codes(made) == refused
    if not refused:
        assert [each.hold for each in made.holdings] == [Hold.PROCESS_FREEZE, Hold.ATOMIC]
    located.append(Located(other, other.files[0], volume("g", provider)))
    assert codes(plan(Grounds([ENGINE, loose, other], located, given, not_freezable=stuck))) == {"not-freezable"}


@pytest.mark.parametrize("hold", [Hold.ATOMIC, Hold.STILL, Hold.LOG_BRIDGE, Hold.APPLICATION_LOCK])
def test_a_hold_that_is_asked_for_and_not_to_be_had_is_refused(hold: Hold) -> None:
    made = make_plan(grounds(ENGINE, *TWO), PlanOptions(hold=hold))
    assert codes(made) == {"hold"}


@pytest.mark.parametrize("volumes", [ONE, FILES, COPIED])
def test_who_runs_is_stopped_where_that_is_asked_for_and_can_be(volumes: tuple[Volume, ...]) -> None:
    asked, only_cold = PlanOptions(hold=Hold.COLD, stop=True), PlanOptions(hold=Hold.COLD)
    stoppable = replace(ENGINE, can_stop=True)
    for component, options, held in (
        (stoppable, asked, True), (stoppable, only_cold, False), (ENGINE, asked, False), (STOPPED, only_cold, True),
    ):  # fmt: skip
        made = make_plan(grounds(component, *volumes, in_use=[ENGINE.ref] if component.running else []), options)
        assert (not made.refusals, made.hold) == (held, Hold.COLD)
        assert {each.code for each in made.findings} >= ({"downtime"} if held and component.running else set())


def test_nobody_is_held_while_another_is_copied_whole() -> None:
    """The copies of a set are made in one window: one that is long would be long for all."""
    other = replace(ENGINE, ref=ComponentRef("engine", "two"), files=(DATA,), can_stop=True)
    one = replace(LOCKED, files=(DATA,))
    located = [Located(one, DATA, volume("data")), Located(other, DATA, volume("two", "whole"))]
    given = Grounds([one, other], located, PROVIDERS, in_use=[one.ref, other.ref])
    for options in (PlanOptions(), PlanOptions(hold=Hold.COLD, stop=True)):
        assert codes(make_plan(given, options)) == {"copied-whole"}


def test_a_hold_that_is_asked_for_is_taken_where_a_cheaper_one_would_do() -> None:
    made = make_plan(grounds(LOGGING, *ONE), PlanOptions(hold=Hold.PROCESS_FREEZE))
    assert made.hold is Hold.PROCESS_FREEZE
    assert not made.refusals


def test_what_writers_and_providers_found_is_in_the_plan() -> None:
    warning = Finding("unlogged-tables", Severity.WARNING, "They come back empty.")
    refusal = Finding("nested-subvolume", Severity.REFUSAL, "One is nested.")
    made = plan(grounds(replace(ENGINE, findings=(warning,)), *ONE, checks=[refusal]))
    assert warning in made.findings
    assert codes(made) == {"nested-subvolume"}
