# SPDX-License-Identifier: Apache-2.0
"""The bank with its Slackwater: two volumes on Btrfs or XFS, and another disk for full copies."""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.luck_support import MIB, in_memory
from tests.e2e.spawner import Spawner
from tests.matrix.bank import SIDES, Ack, Bank, complaints, image_complaints
from tests.matrix.site import BACK_S, GOES_ON_S, Site

_COMPONENT = """\
[[component]]
writer = "sqlite"
instance = "{path}"
stop = "{control}/stop"
start = "{control}/start"
"""
_TAIL = """\
[replica]
{replica}
[options]
hold = "{hold}"
freeze_timeout = "10s"
hold_timeout = "2s"
[verify]
query = "select sum(balance) + (select count(*) from ledger) from account"
expect = "0"
component = "sqlite:{left}"
"""


@dataclass
class BankSite(Site):
    """A site whose application is the bank."""

    bank: Bank | None = None

    @property
    def application(self) -> Bank:
        assert self.bank is not None
        return self.bank

    def floor(self) -> Ack:
        return self.application.acknowledged()

    def kept_floor(self, floor: Any) -> Ack:
        """Where it ran on the clones, as the second of three processes, also all that it acknowledged there."""
        ran = self.application.since(floor)
        return ran[1] if len(ran) > 2 else self.floors[self.source]

    def goes_on(self, within_s: float = GOES_ON_S) -> bool:
        return self.application.goes_on(within_s)

    def live_complaints(self, floor: Any) -> list[str]:
        return complaints({side: self.application.path(side) for side in SIDES}, floor)

    def replica_complaints(self, replica: str, folders: dict[str, str], floor: Any) -> list[str]:
        scratch = f"{self.lab.folder}/image"
        return image_complaints(folders, scratch, floor or Ack(0, 0), cut_off=replica in self.cut_off)

    def pids(self) -> list[int]:
        return [self.application.pid] if self.application.runs else []

    def revive(self) -> None:
        self.application.command("start")

    def specify(self, name: str, replica: str, hold: str = "application-lock") -> None:
        """Write a specification of both databases."""
        control, paths = self.application.control, {side: self.application.path(side) for side in SIDES}
        parts = "".join(_COMPONENT.format(path=path, control=control) for path in paths.values())
        text = f'name = "{name}"\n{parts}{_TAIL.format(replica=replica, hold=hold, left=paths["left"])}'
        Path(f"{self.lab.config_dir}/specs.d/{name}.toml").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def bank_site(storage: str, sabotage: str = "") -> Iterator[BankSite]:
    """A busy bank; what becomes of it when a command is sabotaged is for the twins."""
    with in_memory() as lab, Spawner({**lab.environment(), "SLACKWATER_TEST_SABOTAGE": sabotage}) as spawner:
        if storage == "btrfs":
            disk, other = lab.btrfs(1024 * MIB), lab.xfs(512 * MIB).path
            path, folders = disk.path, {side: disk.subvolume(side) for side in SIDES}
        else:
            xfs = lab.xfs(512 * MIB)
            other = lab.btrfs(512 * MIB).path
            path, folders = xfs.path, {side: xfs.directory(side) for side in SIDES}
        bank = Bank(folders, Path(lab.folder, "bank"), lab.environment())
        bank.command("start")
        try:
            assert bank.goes_on(BACK_S)
            volumes = tuple(folders.values())
            site = BankSite(lab, spawner, "sqlite", storage, (path, other), volumes, bank=bank)
            site.specify("plain", "keep = 500")
            site.specify("rotating", "keep = 1")
            site.specify("full", f'type = "full"\nto = "{other}"\nkeep = 2')
            site.run("reconcile")
            site.untouched = frozenset(each for each in site.look() if not each.startswith("place "))
            yield site
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(bank.pid, signal.SIGCONT)
            bank.command("stop")
