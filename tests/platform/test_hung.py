# SPDX-License-Identifier: Apache-2.0
"""A snapshot that comes back long after its session gave it up: the next command removes it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack

import anyio
import pytest

from slackwater.demo.lab import Lab
from slackwater.hosts.local import LocalHost
from slackwater.model.session import SessionKind
from slackwater.model.storage import Take
from slackwater.system.cgroups import Freeze
from slackwater.system.processes import identity
from tests.platform.btrfs_support import OWNER, Ground, subvolumes

pytestmark = [pytest.mark.root]
SESSION = "2026-11-22-1"
DEAD = "999999999:1:00000000-0000-0000-0000-000000000000"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


def test_what_is_still_in_the_air_is_undone_when_its_process_is_gone(lab: Lab) -> None:
    ground = Ground(lab.btrfs(256 << 20))
    volume = ground.volume(ground.disk.subvolume("pg"))
    path = f"{lab.state_dir}/journal.sqlite"
    host = LocalHost(owner=OWNER, journal_file=path, guard_dir=lab.run_dir)
    journal = host._journal
    journal.begin(SESSION, SessionKind.BACKUP, identity(os.getpid()))
    journal.run(SESSION, ground.provider.place_effect(volume, SESSION))
    journal.intend(SESSION, [Freeze(SESSION, "/not/there"), ground.provider.snapshot_effect(volume, SESSION)])

    host._hung.add(SESSION)
    with ExitStack() as opened:
        commit = opened.enter_context(ground.provider.open(Take(volume), SESSION))
        undone = anyio.run(host.undo, SESSION)
        assert not undone.whole
        assert [each.effect for each in undone.mended if not each.error] == [Freeze(SESSION, "/not/there").describe()]
        commit()  # now the disk answers again
    assert f".slackwater/{SESSION}/pg" in subvolumes(ground.disk)

    journal._db.execute("UPDATE session SET process = ? WHERE id = ?", (DEAD, SESSION))
    (mended,) = anyio.run(LocalHost(owner=OWNER, journal_file=path, guard_dir=lab.run_dir).reconcile)
    assert mended.whole
    assert subvolumes(ground.disk) == {"pg"}
    assert journal.open_sessions() == []
    journal.close()
