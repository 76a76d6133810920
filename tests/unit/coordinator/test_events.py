# SPDX-License-Identifier: Apache-2.0
"""The order of events, with parts that fail at every event: every freeze has its thaw, and a late one is no success."""

import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import anyio
import pytest

from slackwater.coordinator import window
from slackwater.coordinator.events import Taken, take
from slackwater.coordinator.parts import Parts
from slackwater.errors import DeadlineError, SlackwaterError
from slackwater.guard.client import Guard, Released
from slackwater.journal.effects import EffectKinds
from slackwater.journal.journal import Journal
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet
from slackwater.model.facts import Facts
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Holding, Limits, Placement, Plan, Window
from slackwater.model.storage import Capabilities, CommitForm, ShadowCopy, Take, Volume
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.story import Story

WINDOW = ("writer.freeze", "guard.freeze", "commit", "guard.release", "writer.thaw")
EVENTS = ("writer.prepare", "hook", "place", "open", "arm", *WINDOW)
SINK: list["Stage"] = []


@dataclass
class Stage:
    """What was called, in order, and where it shall fail."""

    fails: str = ""
    told: list[str] = field(default_factory=list)
    defect: type[BaseException] | None = None
    """What it fails with instead of what it may fail with."""
    hangs: str = ""
    back: threading.Event = field(default_factory=threading.Event)
    """Set when what hangs is to come back."""

    def call(self, name: str, error: type[Exception] = SlackwaterError) -> None:
        self.told.append(name)
        if name == self.hangs:
            self.back.wait()
        if name == self.fails:
            raise (self.defect or error)(name)


@dataclass(frozen=True)
class Made:
    kind: ClassVar[str] = "test.made"
    name: str

    def describe(self) -> str:
        return self.name

    def make(self) -> Facts:
        SINK[-1].call(self.name)
        return {"made": self.name}

    def undo(self) -> None:
        SINK[-1].told.append(f"undo {self.name}")


class FakeWriter:
    def prepare(self, component: Component) -> Facts:
        SINK[-1].call("writer.prepare")
        return {"lsn": "0/1"}

    def processes(self, component: Component) -> frozenset[int]:
        return frozenset()

    def freeze(self, component: Component) -> None:
        SINK[-1].call("writer.freeze")

    def thaw(self, component: Component) -> None:
        SINK[-1].call("writer.thaw")

    @contextmanager
    def bridge(self, component: Component, session: str) -> Iterator["FakeBridge"]:
        SINK[-1].call("bridge.open")
        yield FakeBridge()
        SINK[-1].told.append("bridge.left")


class FakeBridge:
    def close(self) -> Facts:
        SINK[-1].call("bridge.close")
        return {"lsn": "0/2", "backup_label": "here"}

    def prove(self, trees: Mapping[str, str]) -> None:
        assert trees == {"/v/a": "/reached/a", "/v/b/log": "/reached/b/log"}
        SINK[-1].call("bridge.prove")


class FakeProvider:
    capabilities = Capabilities(CommitForm.SYSTEM_CALL, "volume", reads_through_filesystem=True)

    def place_effect(self, volume: Volume, session: str) -> Made:
        return Made("place")

    def snapshot_effect(self, volume: Volume, session: str) -> Made:
        return Made(f"read {volume.name}")

    @contextmanager
    def open(self, take: Take, session: str) -> Iterator[Any]:
        SINK[-1].call("open")
        yield lambda: SINK[-1].call("commit", OSError)
        SINK[-1].told.append("closed")

    def copy(self, volume: Volume, session: str, facts: Facts) -> ShadowCopy:
        return ShadowCopy(volume, f"place/{volume.name}", facts)

    @contextmanager
    def reach(self, copy: ShadowCopy) -> Iterator[str]:
        yield f"/reached/{copy.volume.name}"


class FakeGuard:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        SINK[-1].told.append("guard.close")

    def freeze(self) -> None:
        SINK[-1].call("guard.freeze", DeadlineError)

    def release(self) -> Released:
        SINK[-1].call("guard.release", DeadlineError)
        return Released(held_ms=5.0, frozen_ms=7.0)


REF = ComponentRef("engine", "one")
COMPONENT = Component(REF, "Engine", running=True, files=(FileSet(FileRole.DATA, "/v/a"),), survives_power_cut=True)
VOLUMES = (Volume("fake", "id:a", "a", "/v/a", "0:1"), Volume("fake", "id:b", "b", "/v/b", "0:1"))
HOLDING = Holding(REF, Hold.PROCESS_FREEZE, Consistency.APPLICATION, "why")
PLAN = Plan(
    (COMPONENT,), VOLUMES, (), (HOLDING,), (tuple(Take(each) for each in VOLUMES),),
    Hold.PROCESS_FREEZE, "why", Consistency.APPLICATION, Limits(),
)  # fmt: skip

BRIDGE = replace(HOLDING, hold=Hold.LOG_BRIDGE)
BRIDGED = replace(
    PLAN, hold=Hold.LOG_BRIDGE, holdings=(BRIDGE,), stages=tuple((Take(each),) for each in VOLUMES),
    placements=(
        Placement(REF, FileSet(FileRole.DATA, "/v/a"), VOLUMES[0], 1, ""),
        Placement(REF, FileSet(FileRole.LOG, "/v/b/log", "log"), VOLUMES[1], 2, ""),
    ),
)  # fmt: skip


@asynccontextmanager
async def hooked() -> AsyncIterator[None]:
    try:
        SINK[-1].call("hook")
        yield
    finally:
        SINK[-1].told.append("hook after")


def run(
    tmp_path: Path, fails: str = "", *, stage: Stage | None = None, plan: Plan = PLAN, **options: bool
) -> tuple[Stage, Taken | Exception, Journal]:
    stage = stage or Stage(fails)
    SINK.append(stage)
    journal = Journal(str(tmp_path / "journal.sqlite"), EffectKinds([Made]))
    journal.begin("s", "backup", "1:1:1")

    def arm(session: str, cgroups: object, keepers: object, filesystems: object, limits: Limits) -> Guard:
        stage.call("arm")
        return cast("Guard", FakeGuard())

    parts = Parts(
        writers=cast("Any", {"engine": FakeWriter()}),
        providers=cast("Any", {"fake": FakeProvider()}),
        journal=journal,
        clock=SYSTEM_CLOCK,
        gather=lambda session, pids: ("/cgroup", (Made("gather"),)),
        arm=arm,
        hooked=hooked,
    )
    try:
        return stage, anyio.run(lambda: take(plan, "s", parts, Story(SYSTEM_CLOCK), **options)), journal
    except Exception as e:  # noqa: BLE001
        return stage, e, journal


def check(stage: Stage, result: Taken | Exception) -> list[str]:
    """The oracle: what is wrong with how a set was taken."""
    told = stage.told
    wrong = []
    pairs = (("writer.freeze", "writer.thaw"), ("guard.freeze", "guard.release"), ("hook", "hook after"))
    for asked, answered in pairs:
        if asked in told and answered not in told[told.index(asked) :]:
            wrong.append(f"{asked} without {answered}")
    if "commit" in told and ("guard.freeze" not in told or told.index("commit") < told.index("guard.freeze")):
        wrong.append("a commit before everything stood still")
    if isinstance(result, Taken):
        wrong += [f"good in spite of {stage.fails}"] if stage.fails in told else []
        last_commit = len(told) - 1 - told[::-1].index("commit")
        released = told.index("guard.release") if "guard.release" in told else len(told)
        if told.count("commit") != len(VOLUMES) or last_commit > released:
            wrong.append("good without every commit inside the hold")
    return wrong


def test_the_order_of_events(tmp_path: Path) -> None:
    stage, result, journal = run(tmp_path)
    assert isinstance(result, Taken)
    assert check(stage, result) == []
    assert [each for each in stage.told if each in EVENTS] == [
        "writer.prepare", "hook", "place", "open", "open", "arm",
        "writer.freeze", "guard.freeze", "commit", "commit", "guard.release", "writer.thaw",
    ]  # fmt: skip
    assert stage.told.index("undo gather") > stage.told.index("hook after") > stage.told.index("writer.thaw")
    assert result.window == Window(frozen_ms=7.0, held_ms=5.0)
    assert result.expected == {REF: {"lsn": "0/1"}}
    assert [copy.facts for copy in result.copies] == [{"made": "read a"}, {"made": "read b"}]
    assert [each.state for each in journal.entries("s")] == ["done", "done", "done", "undone"]


@pytest.mark.parametrize("fails", EVENTS)
def test_whatever_fails_everything_is_thawed_and_nothing_is_good(tmp_path: Path, fails: str) -> None:
    stage, result, journal = run(tmp_path, fails)
    assert isinstance(result, SlackwaterError)
    assert check(stage, result) == []
    if "arm" in stage.told and fails != "arm":
        assert "guard.close" in stage.told
    journal.undo("s")
    assert "undo place" in stage.told or fails in ("writer.prepare", "hook")


def test_intents_of_the_window_are_committed_before_it(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    class Spy(FakeGuard):
        def freeze(self) -> None:
            seen.append([each.fields["name"] for each in used[-1].entries("s")])

    used: list[Journal] = []
    stage = Stage()
    SINK.append(stage)
    journal = Journal(str(tmp_path / "journal.sqlite"), EffectKinds([Made]))
    used.append(journal)
    journal.begin("s", "backup", "1:1:1")
    parts = Parts(
        cast("Any", {"engine": FakeWriter()}), cast("Any", {"fake": FakeProvider()}), journal, SYSTEM_CLOCK,
        lambda session, pids: ("/c", (Made("gather"),)), lambda *_: cast("Guard", Spy()),
    )  # fmt: skip
    anyio.run(lambda: take(PLAN, "s", parts, Story(SYSTEM_CLOCK)))
    assert seen == [["place", "read a", "read b", "gather"]]


def test_nothing_is_told_inside_the_window(tmp_path: Path) -> None:
    told_at: list[str] = []
    stage = Stage()
    SINK.append(stage)
    journal = Journal(str(tmp_path / "journal.sqlite"), EffectKinds([Made]))
    journal.begin("s", "backup", "1:1:1")
    parts = Parts(
        cast("Any", {"engine": FakeWriter()}), cast("Any", {"fake": FakeProvider()}), journal, SYSTEM_CLOCK,
        lambda session, pids: ("/c", ()), lambda *_: cast("Guard", FakeGuard()),
    )  # fmt: skip
    story = Story(SYSTEM_CLOCK, lambda event: told_at.append(f"{event.text} after {stage.told[-1:]}"))
    anyio.run(lambda: take(PLAN, "s", parts, story))
    assert "freeze after ['writer.thaw']" in told_at
    assert [each.name for each in story.phases] == ["prepare", "freeze", "snapshot", "thaw"]


@pytest.mark.parametrize("fails", ["writer.prepare", "hook", "writer.freeze"])
def test_a_failure_costs_the_consistency_only_where_that_was_accepted(tmp_path: Path, fails: str) -> None:
    stage, result, _ = run(tmp_path, fails, accept_crash=True)
    assert isinstance(result, Taken)
    assert result.consistency is Consistency.CRASH
    assert [each.consistency for each in result.holdings] == [Consistency.CRASH]
    assert "guard.freeze" in stage.told
    assert check(stage, result) == [f"good in spite of {fails}"]


@pytest.mark.parametrize("fails", ["place", "open", "arm", "guard.freeze", "commit", "guard.release", "writer.thaw"])
def test_what_makes_the_image_is_never_accepted(tmp_path: Path, fails: str) -> None:
    _, result, _ = run(tmp_path, fails, accept_crash=True)
    assert isinstance(result, SlackwaterError)


@pytest.mark.parametrize("hold", [Hold.APPLICATION_LOCK, Hold.LOG_BRIDGE])
def test_what_the_writer_holds_together_is_no_image_without_it(tmp_path: Path, hold: Hold) -> None:
    _, result, _ = run(
        tmp_path, "writer.prepare", plan=replace(PLAN, holdings=(replace(HOLDING, hold=hold),)), accept_crash=True
    )
    assert str(result) == "writer.prepare"


def test_the_oracle_catches_a_skipped_thaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def idle(plan: Plan, parts: Parts, guard: Guard | None) -> Window:
        return Window()

    monkeypatch.setattr(window, "_thaw", idle)
    stage, result, _ = run(tmp_path)
    assert "writer.freeze without writer.thaw" in check(stage, result)
    assert "guard.freeze without guard.release" in check(stage, result)


def test_the_oracle_catches_a_late_thaw_that_is_reported_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = window._thaw

    async def lying(plan: Plan, parts: Parts, guard: Guard | None) -> Window:
        try:
            return await honest(plan, parts, guard)
        except DeadlineError:
            return Window(frozen_ms=1.0, held_ms=1.0)

    monkeypatch.setattr(window, "_thaw", lying)
    stage, result, _ = run(tmp_path, "guard.release")
    assert check(stage, result) == ["good in spite of guard.release"]


IN_ORDER = ["bridge.open", "commit", "bridge.close", "commit", "bridge.prove", "bridge.left"]


def test_a_bridge_is_closed_between_the_stages_and_proven_while_it_is_open(tmp_path: Path) -> None:
    stage, result, _ = run(tmp_path, plan=BRIDGED)
    assert isinstance(result, Taken)
    assert [each for each in stage.told if each in IN_ORDER] == IN_ORDER
    assert not [each for each in stage.told if each.startswith("guard")], "nothing is held"
    assert result.expected == {REF: {"lsn": "0/2", "backup_label": "here"}}


@pytest.mark.parametrize("fails", [each for each in IN_ORDER if each != "bridge.left"])
def test_a_bridge_that_fails_fails_the_session(tmp_path: Path, fails: str) -> None:
    stage, result, _ = run(tmp_path, fails, plan=BRIDGED)
    assert isinstance(result, SlackwaterError)
    assert stage.told.count("commit") <= (1 if fails in ("commit", "bridge.close") else 2)
