# SPDX-License-Identifier: Apache-2.0
"""What somebody writes behind `--to`: a time without a zone is the machine's, and is shown with it."""

from datetime import timedelta, timezone

import pytest

from slackwater.model.target import RecoveryTarget, TargetKind

BERLIN = timezone(timedelta(hours=1), "CET")


def test_a_time_without_a_zone_gets_the_machines() -> None:
    local = RecoveryTarget.parse("2026-11-22T14:31:07", BERLIN)
    assert str(local) == "2026-11-22T14:31:07+01:00"
    assert local.time == RecoveryTarget.parse("2026-11-22T13:31:07Z").time
    assert RecoveryTarget.parse("2026-11-22 14:31:07").time.tzinfo is not None


def test_a_time_with_a_zone_keeps_it() -> None:
    assert str(RecoveryTarget.parse("2026-11-22T14:31:07.25Z", BERLIN)) == "2026-11-22T14:31:07.250000+00:00"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("latest", TargetKind.LATEST, ""),
        ("replica", TargetKind.REPLICA, ""),
        ("before:4711", TargetKind.BEFORE, "4711"),
        ("lsn:0/3000148", TargetKind.LSN, "0/3000148"),
        ("name:before: lunch", TargetKind.NAME, "before: lunch"),
    ],
)
def test_the_others_are_taken_as_they_are_and_shown_so(text: str, kind: TargetKind, value: str) -> None:
    target = RecoveryTarget.parse(text, BERLIN)
    assert (target.kind, target.value, str(target)) == (kind, value, text)


@pytest.mark.parametrize("text", ["", "yesterday", "before:", "lsn", "2026-13-01", "tomorrow:1"])
def test_what_is_none_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ValueError, match="neither replica nor latest, nor before:XID"):
        RecoveryTarget.parse(text)
