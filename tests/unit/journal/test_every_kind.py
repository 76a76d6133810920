# SPDX-License-Identifier: Apache-2.0
"""Every kind of effect that this host knows: plain fields, the same after JSON, and a test that kills at it."""

import json
import typing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pytest

from slackwater.hosts.local import LocalHost
from slackwater.journal.effects import Effect, EffectKinds, fields_of
from slackwater.model.facts import Facts

_KILLS = "e2e/test_kills.py::test_a_backup_killed_at_every_effect_leaves_a_database_that_writes"
_RECOVERIES = "e2e/test_kills.py::test_a_recovery_killed_at_every_step_is_undone_or_finished"
_MATRIX = "e2e/test_matrix_sqlite.py::test_a_session_killed_or_stopped_at_any_moment_costs_nothing"
_BTRFS = "platform/test_btrfs_switch.py::test_killed_at_any_moment_it_is_undone"
_REFLINK = "platform/test_reflink_killed.py::"
_KIT = "platform/test_provider_conformance.py::test_ours_keep_every_promise"
"""Its checks `killed-anywhere` and `killed-while-copying`."""
_FILES = "e2e/test_files.py::test_it_is_stopped_for_the_copies_and_started_again_whoever_is_killed"
_EXERCISE = "e2e/test_exercise.py::test_a_death"
_PROOF = "e2e/test_proof.py::test_what_is_killed_leaves_nothing"

KILLED_AT = {
    "btrfs.bar": _BTRFS,
    "btrfs.clone": _BTRFS,
    "btrfs.delete": "e2e/test_kills.py::test_a_backup_killed_while_it_rotates_leaves_no_part_of_the_old_replica",
    "btrfs.exchange": _BTRFS,
    "btrfs.fill": "e2e/test_full.py::test_a_command_cut_off_in_the_middle_of_a_copy_leaves_nothing",
    "btrfs.place": _BTRFS,
    "btrfs.seal": _BTRFS,
    "btrfs.snapshot": _KILLS,
    "btrfs.unbar": _BTRFS,
    "clone.vacate": "platform/test_vacate.py::test_killed_while_it_asks_somebody_to_end_the_next_one_ends_him",
    "configuration.forget": "platform/test_configuration.py::test_killed_anywhere_it_is_undone_or_finished",
    "configuration.put": "platform/test_configuration.py::test_killed_anywhere_it_is_undone_or_finished",
    "configuration.remove": "platform/test_configuration.py::test_a_removal_killed_anywhere_is_undone_or_finished",
    "files.start": _FILES,
    "files.stop": _FILES,
    "full.copy": "e2e/test_full.py::test_a_backup_killed_while_it_copies_leaves_nothing",
    "full.delete": _MATRIX,
    "full.place": "e2e/test_full.py::test_a_backup_killed_while_it_copies_leaves_nothing",
    "hook.pair": "e2e/test_hooks.py::test_hooks_run_in_pairs_whatever_happens",
    "mount.mount": _BTRFS,
    "mount.present": _PROOF,
    "mount.unmount": _BTRFS,
    "namespace.enclose": _PROOF,
    "plain.bar": _KIT,
    "plain.clone": f"{_REFLINK}test_a_switch",
    "plain.delete": f"{_REFLINK}test_a_deletion_goes_on",
    "plain.exchange": f"{_REFLINK}test_a_switch",
    "plain.fill": f"{_REFLINK}test_a_full_copy_that_is_brought_back",
    "plain.place": f"{_REFLINK}test_a_snapshot",
    "plain.seal": f"{_REFLINK}test_a_switch",
    "plain.snapshot": f"{_REFLINK}test_a_snapshot",
    "plain.unbar": _KIT,
    "postgresql.keep-log": "platform/test_postgresql_slot.py::test_a_session_killed_at_it_leaves_what_was_there",
    "postgresql.settle": _RECOVERIES,
    "postgresql.start": _RECOVERIES,
    "postgresql.stop": _RECOVERIES,
    "process.freeze": _KILLS,
    "process.gather": _KILLS,
    "reflink.bar": "platform/test_reflink_switch.py::test_cut_off_anywhere_it_is_undone_or_finished",
    "reflink.clone": f"{_REFLINK}test_a_switch",
    "reflink.delete": f"{_REFLINK}test_a_deletion_goes_on",
    "reflink.exchange": f"{_REFLINK}test_a_switch",
    "reflink.fill": f"{_REFLINK}test_a_full_copy_that_is_brought_back",
    "reflink.place": f"{_REFLINK}test_a_snapshot",
    "reflink.seal": f"{_REFLINK}test_a_switch",
    "reflink.snapshot": f"{_REFLINK}test_a_snapshot",
    "reflink.unbar": "platform/test_reflink_switch.py::test_cut_off_anywhere_it_is_undone_or_finished",
    "service.stop": "e2e/test_services.py::test_services_stop_before_and_start_after_whatever_happens",
    "sqlite.start": _MATRIX,
    "sqlite.stop": _MATRIX,
    "test.bar": _EXERCISE,
    "test.clone": _EXERCISE,
    "test.delete": _EXERCISE,
    "test.exchange": _EXERCISE,
    "test.fill": _EXERCISE,
    "test.place": _EXERCISE,
    "test.seal": _EXERCISE,
    "test.snapshot": _EXERCISE,
    "test.start": _EXERCISE,
    "test.stop": _EXERCISE,
    "test.unbar": _EXERCISE,
}
"""By kind: a test that ends the process in the middle of it, and has another one put things right."""

SAMPLES: dict[Any, Any] = {str: "1:2:3", int: 7, float: 1.5, bool: True, tuple[str, ...]: ("a", "b")}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, type[Effect]]:
    folder = tmp_path_factory.mktemp("host")
    host = LocalHost(owner="x", journal_file=f"{folder}/journal.sqlite", guard_dir=str(folder))
    return host._journal._kinds._kinds


def sample(kind: type[Any]) -> Effect:
    """One of its kind, with something in every field."""
    types = typing.get_type_hints(kind)
    effect: Effect = kind(**{each.name: SAMPLES[types[each.name]] for each in fields(kind)})
    return effect


def fault(kind: Any) -> str:  # also what is no effect
    """What is wrong with a kind; empty when nothing is."""
    if not kind.__dataclass_params__.frozen:
        return "it is no frozen dataclass"
    types = typing.get_type_hints(kind)
    if odd := [each.name for each in fields(kind) if types[each.name] not in SAMPLES]:
        return f"{', '.join(odd)} cannot be stored"
    effect = sample(kind)
    loaded = EffectKinds([kind]).load(effect.kind, json.loads(json.dumps(fields_of(effect))))
    return "" if loaded == effect and type(loaded) is kind else "it is another one when it was stored"


def test_each_is_the_same_when_it_was_stored(known: dict[str, type[Effect]]) -> None:
    assert {name: why for name, kind in known.items() if (why := fault(kind))} == {}


def test_each_is_killed_somewhere(known: dict[str, type[Effect]]) -> None:
    assert set(known) == set(KILLED_AT), "a new kind needs a test that kills at it"
    for name, test in KILLED_AT.items():
        path, _, function = test.partition("::")
        text = (Path(__file__).parents[2] / path).read_text()
        assert f"\ndef {function}(" in text, f"{name}: {test} is not there"


def test_what_cannot_be_stored_is_caught() -> None:
    @dataclass(frozen=True)
    class Nested:
        kind: ClassVar[str] = "twin.nested"
        inner: dict[str, str]

    @dataclass
    class Open:
        kind: ClassVar[str] = "twin.open"
        name: str

    @dataclass(frozen=True)
    class Forgetful:
        kind: ClassVar[str] = "twin.forgetful"
        name: str

        def __post_init__(self) -> None:
            object.__setattr__(self, "name", self.name + "!")

        def make(self) -> Facts:
            return {}

    assert "inner" in fault(Nested)
    assert "frozen" in fault(Open)
    assert "another" in fault(Forgetful)
