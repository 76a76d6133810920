# SPDX-License-Identifier: Apache-2.0
"""A copy that is altered between the check and its clone is noticed before anything is stopped."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from slackwater.demo.lab import Lab
from slackwater.errors import SlackwaterError
from slackwater.journal.journal import Journal
from slackwater.model.component import Component, ComponentRef, FileRole, FileSet
from slackwater.model.replica import ComponentRecord
from slackwater.recovery.order import Hands, RecoveryOrder
from slackwater.recovery.steps import recover
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.command import run
from slackwater.system.story import Story
from tests.platform.btrfs_support import EFFECTS, OWNER, Ground, document, read, subvolumes, write

pytestmark = [pytest.mark.root]


class Untouched:
    """A writer whose application must not be touched."""

    def stop_effect(self, component: Component) -> Any:
        return None

    start_effect = settle_effect = stop_effect


@pytest.fixture
def ground() -> Iterator[Ground]:
    with Lab() as lab:
        yield Ground(lab.btrfs(256 << 20))


def test_a_copy_altered_after_the_check_is_not_switched_to(ground: Ground, tmp_path: Path) -> None:
    path = ground.disk.subvolume("pg")
    write(f"{path}/rows", "one")
    volume = ground.volume(path)
    copies = ground.backup([volume], "s1")
    write(f"{path}/rows", "live")
    component = Component(ComponentRef("app", "one"), "", True, (FileSet(FileRole.DATA, path),), True)
    source = replace(document("s1", copies), components=(ComponentRecord(component, {}),))
    order = RecoveryOrder(source, (component,), (volume,), {})
    hands = Hands(cast("Any", {"app": Untouched()}), {"btrfs": ground.provider}, SYSTEM_CLOCK)
    journal = Journal(str(tmp_path / "journal.sqlite"), EFFECTS)
    journal.begin("s2", "recovery", "1:1:1")
    assert ground.provider.altered(copies[0]) == ""

    copy = f"{ground.disk.path}/{copies[0].place}"
    run("btrfs", "property", "set", copy, "ro", "false")
    write(f"{copy}/rows", "altered")
    run("btrfs", "property", "set", copy, "ro", "true")

    async def attempt() -> None:
        await recover(order, "s2", OWNER, hands, journal, Story(SYSTEM_CLOCK), lambda facts: None, lambda: None)

    with pytest.raises(SlackwaterError) as refused:
        anyio.run(attempt)
    assert refused.value.reason == "replica-altered"
    assert [each.kind for each in journal.entries("s2")] == ["btrfs.place", "btrfs.clone"]
    assert not [each for each in journal.undo("s2") if each.error]
    assert (read(f"{path}/rows"), subvolumes(ground.disk)) == ("live", {"pg", copies[0].place})
