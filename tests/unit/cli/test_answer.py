# SPDX-License-Identifier: Apache-2.0
"""JSON as the contract says it: names, units, times."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slackwater.cli.answer import answer
from tests.unit.cli import samples

MANUAL = (Path(__file__).parents[3] / "docs/reference/json.md").read_text(encoding="utf-8")


def _walk(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            if key not in ("facts", "expected", "reached", "found", "document"):
                yield from _walk(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk(inner, name)


@pytest.mark.parametrize("command", samples.EACH)
def test_every_value_is_one_json_object(command: str) -> None:
    document = answer(samples.EACH[command])
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize("command", samples.EACH)
def test_every_name_is_in_the_manual(command: str) -> None:
    missing = {name for name, _ in _walk(answer(samples.EACH[command])) if f"`{name}`" not in MANUAL}
    assert not missing


@pytest.mark.parametrize("command", samples.EACH)
def test_times_are_rfc_3339_in_utc(command: str) -> None:
    names = {"at", "started", "ended", "created", "verified", "last_good_at", "recoverable_from", "recoverable_to"}
    for name, value in _walk(answer(samples.EACH[command])):
        if name in names and value is not None:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value), name


def test_a_backup_has_what_the_contract_names() -> None:
    document = answer(samples.BACKUP)
    assert {"session", "outcome", "consistency", "replica", "plan", "window", "phases"} <= document.keys()
    assert document["window"] == {"frozen_ms": 0.0, "held_ms": 0.0}
    assert document["phases"][0] == {"name": "identify", "started": "2026-11-22T19:41:07.123Z", "duration_ms": 12.345}
    assert [each["name"] for each in document["phases"]] == [
        "identify", "select", "plan", "prepare", "freeze", "snapshot", "thaw", "record",
    ]  # fmt: skip
    placement = document["plan"]["placements"][0]
    assert set(placement) == {"component", "role", "path", "volume", "provider", "stage", "guarantee"}
    assert document["plan"]["limits"] == {"freeze_ms": 60_000.0, "hold_ms": 10_000.0}
    assert document["rotated"] == [{"replica": "2026-11-15-1", "reason": "older than the newest 6"}]


def test_a_list_of_replicas_has_what_the_contract_names() -> None:
    first = answer(samples.EACH["replica list"])["replicas"][0]
    wanted = {"id", "kind", "specification", "created", "consistency", "state", "read_only", "presented", "verified"}
    assert wanted | {"pinned", "volumes"} <= first.keys()
    assert (first["id"], first["kind"], first["state"], first["verified"]) == ("2026-11-22-1", "backup", "good", None)


def test_a_recovery_has_what_the_contract_names() -> None:
    document = answer(samples.RECOVERY)
    assert {"session", "outcome", "replica", "undo_replica", "downtime_ms", "phases"} <= document.keys()
    assert document["downtime_ms"] == 2345.678


def test_a_value_that_nobody_thought_of_is_a_defect() -> None:
    with pytest.raises(TypeError, match="object"):
        answer(object())
