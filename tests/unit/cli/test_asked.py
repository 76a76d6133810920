# SPDX-License-Identifier: Apache-2.0
"""The question before a recovery: whoever answers it was told everything that is touched."""

from dataclasses import replace

from slackwater.cli.recover import asked
from tests.unit.cli import samples


def test_services_that_stop_and_files_that_are_overwritten_are_named() -> None:
    shown = replace(samples.RECOVERY_PREVIEW, services=("the unit mail.service",), configuration=("/etc/pg_hba.conf",))
    lines = asked(shown, "orders")
    assert "Stops with it, and starts after it: the unit mail.service." in lines
    assert "Put back as well; what they hold now is kept in it, too: /etc/pg_hba.conf." in lines
    assert len(lines) == len(asked(samples.RECOVERY_PREVIEW, "orders")) + 2
