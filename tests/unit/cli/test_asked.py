# SPDX-License-Identifier: Apache-2.0
"""The question before a recovery: whoever answers it was told everything that is touched."""

from dataclasses import replace

from slackwater.cli.recover import asked
from slackwater.cli.words import local
from slackwater.model.target import Reach, RecoveryTarget
from tests.unit.cli import samples


def test_services_that_stop_and_files_that_are_overwritten_are_named() -> None:
    shown = replace(samples.RECOVERY_PREVIEW, services=("the unit mail.service",), configuration=("/etc/pg_hba.conf",))
    lines = asked(shown, "orders")
    assert "Stops with it, and starts after it: the unit mail.service." in lines
    assert "Put back as well; what they hold now is kept in it, too: /etc/pg_hba.conf." in lines
    assert len(lines) == len(asked(samples.RECOVERY_PREVIEW, "orders")) + 2


def test_how_far_back_how_far_forward_and_for_how_long() -> None:
    preview = samples.RECOVERY_PREVIEW
    assert asked(preview, "orders")[:3] == [
        f"orders goes back 1h 2m, to 2026-11-22-1 ({local(samples.NOW)}).",
        f"Since then: 3 MiB of log of {samples.REF}, at most 12 transactions.",
        "Down for: about 2.3s, the longest of the last recoveries (2026-11-21-3).",
    ]
    latest = RecoveryTarget.parse("latest")
    forward = asked(replace(preview, target=latest, reach=Reach("0/3000148", at=samples.NOW, bytes=5 << 30)), "orders")
    assert forward[1].startswith(
        "From there it goes forward to latest, through 5 GiB of log; the last transaction is of"
    )
    assert forward[3].endswith("(2026-11-21-3), and the replay of 5 GiB of log.")
    unmeasured = asked(replace(preview, down=None), "orders")[2]
    assert unmeasured == "Down for: not measured yet; a verification or a recovery does."
