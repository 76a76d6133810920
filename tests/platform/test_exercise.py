# SPDX-License-Identifier: Apache-2.0
"""The writer and the provider `test`: they keep the contracts, are silent without an exercise, and fail as told."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from slackwater.demo.lab import Lab
from slackwater.errors import BusyError, RefusedError, SlackwaterError, UsageError
from slackwater.exercise.faults import Defect
from slackwater.exercise.file import VARIABLE, current
from slackwater.hosts.exercise import announce, events
from slackwater.journal.effects import EffectKinds, fields_of
from slackwater.providers.conformance import examine as examine_provider
from slackwater.providers.contract import Clone, Exchange, Provider, Receiver
from slackwater.providers.test import ExerciseProvider
from slackwater.writers.conformance import examine as examine_writer
from slackwater.writers.contract import Writer
from slackwater.writers.test import ExerciseWriter

pytestmark = [pytest.mark.root]
SMALL = 512 << 20
OWNER = "b8f1b9a4-7a35-4b70-a5a1-5e3b3a0c9f10"
APPLICATIONS = """
[[component]]
name = "orders"
directory = "one"
offers = ["application-lock", "cold"]
[[component]]
name = "ledger"
directory = "two"
log = "log"
offers = ["log-bridge"]
[[volume]]
directory = "one"
[[volume]]
directory = "two"
"""


class Told:
    """An exercise whose file can be written again and again."""

    def __init__(self, folder: str, file: Path) -> None:
        self.folder, self.file = folder, file
        self.faults()

    def faults(self, *tables: str) -> None:
        faults = "".join(f"[[fault]]\n{table}\n" for table in tables)
        self.file.write_text(f'folder = "{self.folder}"\n{APPLICATIONS}\n{faults}', encoding="utf-8")

    @property
    def log(self) -> list[dict[str, Any]]:
        path = f"{self.folder}/exercise.jsonl"
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as f:
            return [json.loads(line) for line in f]


@pytest.fixture
def told(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Told:
    folder = lab.xfs(SMALL).directory("exercise")
    for name in ("one", "two/log"):
        os.makedirs(f"{folder}/{name}")
    file = tmp_path / "exercise.toml"
    monkeypatch.setenv(VARIABLE, str(file))
    return Told(folder, file)


def writer() -> Writer:
    return cast("Writer", ExerciseWriter())


def provider() -> Provider:
    return cast("Provider", ExerciseProvider(OWNER))


def test_without_faults_the_provider_keeps_every_promise(told: Told) -> None:
    os.rmdir(f"{told.folder}/two/log")
    paths = [f"{told.folder}/{name}" for name in ("one", "two")]
    verdicts = list(examine_provider(cast("Callable[[str], Provider]", ExerciseProvider), paths))
    assert [(each.check, each.why_not) for each in verdicts if not each.kept] == []
    assert len(verdicts) > 20
    assert told.log == []


@pytest.mark.parametrize("name", ["orders", "ledger"])
def test_without_faults_the_writer_keeps_the_contract(told: Told, name: str) -> None:
    verdicts = list(examine_writer(writer(), name))
    assert [each.why_not for each in verdicts if not each.kept] == []
    assert told.log == []


def test_a_fault_is_seen_by_the_kits(told: Told) -> None:
    told.faults('at = "writer.prepare"\ndo = "fail"')
    assert any("The exercise lets writer.prepare fail" in each.why_not for each in examine_writer(writer(), "orders"))


def test_its_effects_are_what_the_core_takes_them_for(told: Told) -> None:
    """Recoveries ask whether an effect is an exchange, or a clone that can be kept."""
    assert isinstance(ExerciseProvider(OWNER), Receiver)
    volume = provider().volume_of(f"{told.folder}/one")
    assert volume is not None
    copy = provider().copy(volume, "2026-01-01-1", {"identity": volume.facts["identity"]})
    switch = provider().switch([copy], [volume], "2026-01-01-2")
    assert [isinstance(each, Clone) for each in switch.clones] == [False, True]
    assert [isinstance(each, Exchange) for each in switch.exchange] == [True]
    for effect in (*switch.clones, *switch.exchange, *switch.seal):
        assert effect.kind.startswith("test.")
        assert EffectKinds(ExerciseProvider.effects).load(effect.kind, fields_of(effect)) == effect


# -- without an exercise -------------------------------------------------------------------------------------------


def test_without_the_variable_nothing_is_found_and_nothing_touched(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    component, volume = writer().identify()[0], provider().volume_of(f"{told.folder}/one")
    assert volume is not None
    effects = [writer().stop_effect(component), provider().place_effect(volume, "2026-01-01-1")]
    monkeypatch.delenv(VARIABLE)
    before = sorted(os.listdir(told.folder))
    assert (writer().identify(), writer().find("orders")) == ((), None)
    assert provider().volume_of(f"{told.folder}/one") is None
    assert provider().find() == ()
    for effect in effects:
        assert effect is not None
        for work in (effect.make, effect.undo):
            with pytest.raises(SlackwaterError) as caught:
                work()
            assert (caught.value.reason, VARIABLE in caught.value.hint) == ("exercise-off", True)
    with pytest.raises(SlackwaterError, match="is not touched"):
        writer().freeze(component)
    with pytest.raises(SlackwaterError, match="is not touched"):
        provider().pin([], "2026-01-01-1", pinned=True)
    assert sorted(os.listdir(told.folder)) == before
    assert announce() == ""


# -- the file ------------------------------------------------------------------------------------------------------


def test_a_file_that_others_could_have_written_is_refused(told: Told) -> None:
    turns: list[tuple[Callable[[], None], Callable[[], None]]] = [
        (lambda: os.chmod(told.file, 0o666), lambda: os.chmod(told.file, 0o600)),  # noqa: S103
        (lambda: os.chown(told.file, 1234, 0), lambda: os.chown(told.file, 0, 0)),
        (lambda: os.chmod(told.file.parent, 0o777), lambda: os.chmod(told.file.parent, 0o700)),  # noqa: S103
        (lambda: os.chmod(told.folder, 0o777), lambda: os.chmod(told.folder, 0o755)),  # noqa: S103
    ]
    for spoil, mend in turns:
        assert current() is not None
        spoil()
        told.faults()
        with pytest.raises(RefusedError, match="is refused"):
            current()
        mend()
        told.faults()


def test_what_lies_elsewhere_is_refused(told: Told, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, f"{told.folder}/link")
    for folder, directory, why in (
        (told.folder, "../outside", "does not lie in"), (told.folder, str(outside), "does not lie in"),
        (told.folder, "link", "does not lie in"), (os.path.dirname(told.folder), "x", "top of a filesystem"),
        (f"{told.folder}/link", "x", "reached by a link"),
    ):  # fmt: skip
        told.file.write_text(f'folder = "{folder}"\n[[volume]]\ndirectory = "{directory}"\n')
        with pytest.raises(RefusedError, match=why):
            current()


def test_what_it_does_not_know_it_refuses_by_name(told: Told) -> None:
    for fault, why in (
        ('at = "writer.nod"\ndo = "fail"', "no event writer.nod"),
        ('at = "provider.switch"\ndo = "lie"', "nobody can lie at provider.switch"),
        ('at = "writer.freeze"\ndo = "sulk"', "do"),
        ('at = "writer.freeze"\ndo = "fail"\nkind = "odd"', "no error odd"),
        ('at = "writer.freeze"\ndo = "fail"\nvolume = "one"', "components are a writer's"),
        ('at = "writer.freeze"\ndo = "delay"', "needs its seconds"),
        ('at = "writer.freeze"\ndo = "fail"\nmood = "bad"', "mood"),
    ):
        told.faults(fault)
        with pytest.raises(UsageError, match=why):
            announce()


# -- faults --------------------------------------------------------------------------------------------------------


def test_failures_are_of_the_kind_that_is_wanted(told: Told) -> None:
    component = writer().identify()[0]
    for kind, error in (("", SlackwaterError), ("busy", BusyError), ("defect", Defect), ("system", OSError)):
        told.faults(f'at = "writer.freeze"\ndo = "fail"\nkind = "{kind}"')
        with pytest.raises(error):
            writer().freeze(component)


def test_faults_concern_whom_they_name_and_are_counted(told: Told) -> None:
    orders, ledger = sorted(writer().identify(), key=lambda each: each.ref.name != "orders")
    told.faults('at = "writer.freeze"\ndo = "fail"\ncomponent = "orders"\ntimes = 2')
    writer().freeze(ledger)
    for _ in range(2):
        with pytest.raises(SlackwaterError):
            writer().freeze(orders)
    writer().freeze(orders)
    assert [(each["at"], each["component"]) for each in told.log] == [("writer.freeze", "orders")] * 2


def test_a_fault_of_a_volume_strikes_its_effects_only(told: Told) -> None:
    one, two = (provider().volume_of(f"{told.folder}/{name}") for name in ("one", "two"))
    assert one is not None
    assert two is not None
    provider().place_effect(one, "2026-01-01-1").make()
    told.faults('at = "provider.snapshot.undo"\ndo = "fail"\nvolume = "two"')
    provider().snapshot_effect(one, "2026-01-01-1").undo()
    with pytest.raises(SlackwaterError, match="lets provider"):
        provider().snapshot_effect(two, "2026-01-01-1").undo()
    provider().place_effect(one, "2026-01-01-1").undo()


def test_a_death_is_counted_over_the_end_of_the_process(told: Told) -> None:
    told.faults('at = "writer.identify"\ndo = "die"\ntimes = 1')
    code = "from slackwater.writers.test import ExerciseWriter; print(len(ExerciseWriter().identify()))"
    ran = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False) for _ in "12"]
    assert [(each.returncode, each.stdout) for each in ran] == [(-9, ""), (0, "2\n")]


def test_a_lie_says_what_the_contract_wants_and_does_nothing(told: Told) -> None:
    told.faults(*(f'at = "{event}"\ndo = "lie"' for event, can in events().items() if can))
    assert writer().identify() == ()
    told.faults('at = "writer.stop"\ndo = "lie"', 'at = "provider.find"\ndo = "lie"\nkind = "invent"')
    component = writer().identify()[0]
    stop = writer().stop_effect(component)
    assert stop is not None
    assert stop.make()
    assert writer().identify()[0].running
    assert [each.session for each in provider().find()] == ["2000-01-01-1"]


def test_the_command_says_that_an_exercise_is_on(lab: Lab, told: Told) -> None:
    told.faults('at = "writer.freeze"\ndo = "fail"')
    answer = lab.slackwater("discover")
    assert "warning: An exercise is on" in answer.complaint
    assert answer.document["exercise"] == str(told.file)
    assert {"test:orders", "test:ledger"} <= {each["component"] for each in answer.document["components"]}
    told.faults('at = "writer.nod"\ndo = "fail"')
    answer = lab.slackwater("status", check=False)
    assert (answer.status, answer.document["error"]["code"]) == (2, "usage")
