# SPDX-License-Identifier: Apache-2.0
"""All of our writers keep their contract, and each check of it catches a writer that does not."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from slackwater.demo.cluster import DebianCluster
from slackwater.journal.effects import Effect
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet, Handling
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.hold import Hold, Keeper
from slackwater.writers.conformance import CHECKS, examine
from slackwater.writers.contract import Writer
from slackwater.writers.files import FilesWriter
from slackwater.writers.postgresql import PostgresqlWriter
from slackwater.writers.sqlite import SqliteWriter
from tests.platform import sample_writer
from tests.platform.crowd import new_cgroup
from tests.platform.files_support import Uploads
from tests.platform.sample_writer import KEEPER, SampleWriter, StartSample, StopSample
from tests.platform.sqlite_support import application

pytestmark = [pytest.mark.root]


def falls_short(writer: Writer, name: str) -> list[str]:
    return [f"{each.demand} {each.why_not}" for each in examine(writer, name) if not each.kept]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[str]:
    sample_writer.start(str(tmp_path))
    try:
        yield str(tmp_path)
    finally:
        sample_writer.stop(str(tmp_path))


def test_sqlite_keeps_the_contract(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    path = tmp_path / "db" / "app.db"
    with application(path):
        pass
    assert falls_short(SqliteWriter(), str(path)) == []


def test_files_keep_the_contract(tmp_path: Path) -> None:
    with new_cgroup() as cgroup:
        app = Uploads(tmp_path / "uploads", tmp_path / "control", cgroup)
        commands: dict[str, Any] = {name: f"{app.control}/{name}" for name in ("stop", "start", "lock", "unlock")}
        app.run("start")
        try:
            writer = FilesWriter({str(app.directory): replace(Handling(cgroup=cgroup), **commands)})
            assert falls_short(writer, str(app.directory)) == []
            assert app.runs
            assert app.goes_on()
        finally:
            app.run("stop")


@pytest.mark.postgresql
def test_postgresql_keeps_the_contract(cluster: DebianCluster) -> None:
    assert falls_short(cast("Writer", PostgresqlWriter()), cluster.name) == []
    assert cluster.running


def test_what_is_not_there_or_refused_is_not_examined_further(sleeper: str) -> None:
    assert len(falls_short(SampleWriter(), f"{sleeper}/nothing")) == 1
    assert falls_short(SampleWriter(), sleeper) == []


# --- sabotaged twins ---------------------------------------------------------------------------------------------


LEFT_BEHIND = """
import os, sys
print("ready", flush=True)
for line in sys.stdin:
    os.close(os.open(sys.argv[1], os.O_CREAT | os.O_EXCL)) if line == "hold\\n" else os.unlink(sys.argv[1])
    print("held" if line == "hold\\n" else "released", flush=True)
"""


class Misnamed(SampleWriter):
    name = "other:sample"


class Undecided(SampleWriter):
    answers = None  # type: ignore[assignment]


class Fickle(SampleWriter):
    asked: ClassVar[list[int]] = []

    def find(self, name: str) -> Component | None:
        self.asked.append(1)
        found = super().find(name)
        path = f"{name}/{len(self.asked)}"
        return found and replace(found, files=(FileSet(FileRole.DATA, path),))


class Linked(SampleWriter):
    def find(self, name: str) -> Component | None:
        found = super().find(name)
        return found and replace(found, files=(FileSet(FileRole.DATA, f"{name}/../{os.path.basename(name)}"),))


class Deep(SampleWriter):
    def find(self, name: str) -> Component | None:
        found = super().find(name)
        return found and replace(found, facts={"list": [1]})  # type: ignore[dict-item]


class Dreamer(SampleWriter):
    def find(self, name: str) -> Component | None:
        return super().find(name) or Component(
            ComponentRef("sample", name), "", running=False, files=(), survives_power_cut=True
        )


class Silent(SampleWriter):
    def find(self, name: str) -> Component | None:
        found = super().find(name)
        return found and replace(found, findings=(Finding("no", Severity.REFUSAL, "No."),))


class Boaster(SampleWriter):
    def find(self, name: str) -> Component | None:
        found = super().find(name)
        return found and replace(found, offers=(Hold.ATOMIC,))


class Remembering(SampleWriter):
    known: ClassVar[set[str]] = set()

    def find(self, name: str) -> Component | None:
        return super().find(name) if name in self.known else None


class Suicidal(SampleWriter):
    def processes(self, component: Component) -> frozenset[int]:
        return super().processes(component) | {os.getpid()}


class Headless(SampleWriter):
    def processes(self, component: Component) -> frozenset[int]:
        return frozenset({1})


class Once(SampleWriter):
    def prepare(self, component: Component) -> Facts:
        if os.path.exists(f"{component.ref.name}/once"):
            raise ValueError("already")
        Path(component.ref.name, "once").touch()
        return {}


class Unprepared(SampleWriter):
    def prepare(self, component: Component) -> Facts:
        return {"position": (1, 2)}  # type: ignore[dict-item]


class Clingy(SampleWriter):
    def thaw(self, component: Component) -> None:
        raise ValueError("not frozen")


class Mute(SampleWriter):
    def keeper(self, component: Component) -> Keeper:
        return Keeper(
            (sys.executable, "-I", "-S", "-c", KEEPER.replace('"ready"', '"hello"'), f"{component.ref.name}/l")
        )


class Undying(SampleWriter):
    def keeper(self, component: Component) -> Keeper:
        code = f"{KEEPER}\nimport time; time.sleep(60)"
        return Keeper((sys.executable, "-I", "-S", "-c", code, f"{component.ref.name}/lock"))


class Outliving(SampleWriter):
    """Its lock is a file that nobody removes when its keeper is killed."""

    def keeper(self, component: Component) -> Keeper:
        return Keeper((sys.executable, "-I", "-S", "-c", LEFT_BEHIND, f"{component.ref.name}/locked"))


class Nowhere(SampleWriter):
    """Its bridge ends at no position."""

    def find(self, name: str) -> Component | None:
        found = super().find(name)
        return found and replace(found, offers=(Hold.LOG_BRIDGE,))

    @contextmanager
    def bridge(self, component: Component, session: str) -> Iterator[Any]:
        yield self

    def close(self) -> Facts:
        return {}


class Unknown(SampleWriter):
    effects = (StopSample,)


@dataclass(frozen=True, slots=True)
class ListedSample(StopSample):
    kind: ClassVar[str] = "sample.stop"
    things: Any = ("a",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "things", {*self.things})


class Unstorable(SampleWriter):
    effects = (ListedSample, StartSample)

    def stop_effect(self, component: Component) -> Effect | None:
        return ListedSample(component.ref.name, ran=True)


class HalfStop(StopSample):
    def make(self) -> Facts:
        return {}


class Staying(SampleWriter):
    def stop_effect(self, component: Component) -> Effect | None:
        return HalfStop(component.ref.name, ran=True)


class Starting(SampleWriter):
    def start_effect(self, component: Component) -> Effect | None:
        return LeavingStart(component.ref.name)


class LeavingStart(StartSample):
    def undo(self) -> None:
        """Leaves it running."""


class Unsure(SampleWriter):
    def confirm(self, component: Component, expected: Facts, *, timeout_s: float) -> Facts:
        return {"proof": object()}  # type: ignore[dict-item]


TWINS: Sequence[tuple[type[SampleWriter], str]] = (
    (Misnamed, "bear the writer's name"), (Undecided, "whether it answers"), (Fickle, "Asked twice"),
    (Linked, "without links"), (Deep, "Facts are flat"),
    (Dreamer, "not found"), (Silent, "refusal says what to do"), (Boaster, "It offers"),
    (Remembering, "Another process"), (Suicidal, "never ours"), (Headless, "never ours"), (Once, "prepare"),
    (Unprepared, "prepare"), (Clingy, "thaw"), (Mute, "answers every order"), (Undying, "ends with its input"),
    (Outliving, "outlive"), (Nowhere, "log bridge"), (Unknown, "stored and read"), (Unstorable, "stored and read"),
    (Staying, "every process is gone"), (Starting, "A start"), (Unsure, "confirmed"),
)  # fmt: skip


@pytest.mark.parametrize(("twin", "demand"), TWINS, ids=lambda each: each.__name__ if isinstance(each, type) else None)
def test_a_twin_that_falls_short_is_caught(sleeper: str, twin: type[SampleWriter], demand: str) -> None:
    Remembering.known.add(sleeper)
    component = SampleWriter().find(sleeper) if twin in (Fickle, Remembering, Dreamer) else twin().find(sleeper)
    assert component is not None
    (check,) = [check for sentence, check in CHECKS if demand in sentence]
    try:
        why = check(twin(), component)
    except Exception as e:  # noqa: BLE001  # raising is one way to fall short
        why = str(e)
    assert why


def test_every_check_has_a_twin() -> None:
    assert [sentence for sentence, _ in CHECKS if not any(demand in sentence for _, demand in TWINS)] == []
