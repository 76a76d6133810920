# SPDX-License-Identifier: Apache-2.0
"""The time of day is set back and forth by years: before, between and after sessions, and inside a window.

Nothing expires, goes or is taken for the newest because of it, no id is given twice, and no deadline moves. In a
machine of its own, whose clock is nobody else's.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from slackwater.demo.lab import Lab
from slackwater.system.command import run
from tests.e2e.power_moments import Told
from tests.e2e.power_support import MIB, Guest
from tests.platform.crowd import eventually

pytestmark = [pytest.mark.root, pytest.mark.uml]

YEAR_S = 365 * 86400.0
SHOP = """\
name = "shop"
[[component]]
writer = "sqlite"
instance = "{place}/shop/shop.db"
[replica]
keep = 2
"""
SITE = """\
name = "site"
[[component]]
writer = "files"
instance = "{place}/site"
lock = "{folder}/lock"
unlock = "{folder}/unlock"
[options]
freeze_timeout = "5s"
"""
#: The lock sets the clock as it is told, says that it is there, and hangs if it is told to.
LOCK = """#!/bin/sh
date --set="@$(($(date +%s) + $(cat {folder}/by)))" >/dev/null
touch {folder}/locked
exec sleep $(cat {folder}/hang)
"""
UNLOCK = """#!/bin/sh
test ! -e {folder}/locked || date --set="@$(($(date +%s) - $(cat {folder}/by)))" >/dev/null
rm -f {folder}/locked
"""


class Desk:
    """A machine with a database of SQLite and a directory with a lock, and who works there."""

    def __init__(self, lab: Lab, image: str) -> None:
        self.place, self.folder = f"{lab.folder}/disk", f"{lab.folder}/control"
        self.guest = Guest(
            lab, image,
            {
                "environment": lab.environment() | {"SLACKWATER_STATE_DIR": f"{self.place}/state"},
                "sabotage": "",
                "cluster": ["none", "/none", 1, "/none", "/none", "/none"],
            },
        )  # fmt: skip
        self.guest.ask("mount", "btrfs", self.place)
        self.ids: list[str] = []

    def sell(self) -> None:
        self.guest.ask("sqlite", f"{self.place}/shop/shop.db", "INSERT INTO sales DEFAULT VALUES")

    def sold(self) -> int:
        ((count,),) = self.guest.ask("sqlite", f"{self.place}/shop/shop.db", "SELECT count(*) FROM sales")
        return int(count)

    def back_up(self) -> str:
        self.sell()
        self.ids.append(str(self.guest.command("backup", "shop")["replica"]))
        return self.ids[-1]

    def newest(self) -> str:
        """What a recovery would go back to."""
        return str(self.guest.command("recover", "shop", "--preview")["replica"])

    def kept(self) -> set[str]:
        listed = self.guest.command("replica", "list")["replicas"]
        return {each["id"] for each in listed if each["kind"] == "backup" and each["specification"] == "shop"}

    def lock(self, by_s: float, hang_s: float) -> Told:
        """Begin a backup whose lock sets the clock, and hangs; it is there when this returns."""
        self.guest.ask("shell", f"echo {by_s:.0f} >{self.folder}/by; echo {hang_s:.0f} >{self.folder}/hang")
        return Told(self.guest.share, self.guest.ask("spawn", "backup", "site", "--progress", "json"))

    def until_locked(self) -> None:
        wait = f"for n in $(seq 600); do test -e {self.folder}/locked && exit; sleep 0.1; done; exit 1"
        assert self.guest.ask("shell", wait)[0] == 0


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with Lab() as lab:  # not in memory: the machine has a /dev/shm of its own
        disk = lab.btrfs(512 * MIB)
        for name in ("shop", "site", "state"):
            disk.subvolume(name)
        run("bash", "-ec", f"echo one >{disk.path}/site/page")
        for path in (disk.path,):
            run("umount", path)
        run("losetup", "--detach", disk.device)
        place, folder = disk.path, f"{lab.folder}/control"
        os.mkdir(folder)
        for name, text in (("lock", LOCK), ("unlock", UNLOCK)):
            with open(f"{folder}/{name}", "w", encoding="utf-8") as f:
                f.write(text.format(folder=folder))
            os.chmod(f"{folder}/{name}", 0o755)  # noqa: S103
        for name, text in (("shop", SHOP), ("site", SITE)):
            with open(f"{lab.config_dir}/specs.d/{name}.toml", "w", encoding="utf-8") as f:
                f.write(text.format(place=place, folder=folder))
        made = Desk(lab, disk.image)
        try:
            made.guest.ask("sqlite", f"{place}/shop/shop.db", "CREATE TABLE sales (number integer PRIMARY KEY)")
            yield made
        finally:
            made.guest.machine.cut()


@contextlib.contextmanager
def clock_set(desk: Desk, by_s: float) -> Iterator[None]:
    desk.guest.ask("set_clock", by_s)
    yield
    desk.guest.ask("set_clock", -by_s)


def test_what_is_newest_is_what_was_made_last(desk: Desk) -> None:
    first = desk.back_up()
    desk.guest.command("clone", "create", first, "--name", "look", "--ttl", "1h")
    desk.guest.command("clone", "create", first, "--name", "short", "--ttl", "1s")
    with clock_set(desk, 3 * YEAR_S):
        ahead = desk.back_up()
        assert desk.newest() == ahead
        assert desk.guest.command("reconcile")["clones"] == [], "neither hour had passed; the second one has"
        assert _clones(desk) == {"look"}
    assert desk.newest() == ahead, "it is what was made last; only its date is wrong"
    second = desk.back_up()
    assert desk.newest() == second, "not what was made before, while the clock was ahead"
    with clock_set(desk, -5 * YEAR_S):
        behind = desk.back_up()
        assert desk.newest() == behind
        assert _clones(desk) == {"look"}
    assert desk.kept() == {first, ahead, second, behind}, "two are kept; those of a time to come do not count"
    third = desk.back_up()
    assert desk.newest() == third
    assert {third, ahead} < desk.kept()
    with clock_set(desk, -YEAR_S):
        assert desk.newest() == third, "all are of a time to come now, and one of them of a later one"
    before = desk.sold()
    desk.sell()
    with clock_set(desk, YEAR_S):
        undo = desk.guest.command("recover", "shop", "--yes")["undo_replica"]
        assert desk.sold() == before
    with clock_set(desk, 7200):
        assert desk.guest.command("recover", "shop", "--undo", "--yes")["replica"] == undo
    assert desk.sold() == before + 1
    sessions = [each["id"] for each in desk.guest.command("session", "list")["sessions"]]
    assert len(set(desk.ids)) == len(desk.ids)
    assert len(set(sessions)) == len(sessions)
    assert desk.guest.command("catalog", "check")["differences"] == []
    desk.guest.command("clone", "delete", "look", "--yes")


def _clones(desk: Desk) -> set[str]:
    return {each["name"] for each in desk.guest.command("clone", "list")["clones"]}


@pytest.mark.parametrize("by_s", [10 * YEAR_S, -10 * YEAR_S, 7200.0], ids=["years ahead", "years back", "hours ahead"])
def test_a_window_in_which_the_clock_is_set(desk: Desk, by_s: float) -> None:
    told = desk.lock(by_s, 0)
    assert desk.guest.ask("wait") == 0, told.text("output")
    done: dict[str, Any] = told.done or {}
    assert done["consistency"] == "application"
    assert 0 <= done["window"]["frozen_ms"] < 60_000, done["window"]
    assert desk.guest.command("reconcile")["unmended"] == []
    assert desk.guest.command("catalog", "check")["differences"] == []


@pytest.mark.parametrize("by_s", [10 * YEAR_S, -10 * YEAR_S], ids=["years ahead", "years back"])
def test_a_deadline_is_not_moved_by_the_clock(desk: Desk, by_s: float) -> None:
    begun_s = desk.guest.ask("clock")[1]
    told = desk.lock(by_s, 600)
    assert desk.guest.ask("wait") == 12, told.text("output")
    assert 5 <= desk.guest.ask("clock")[1] - begun_s < 300
    # By the guard, whose command may take longer on a busy machine than ours takes to say so.
    assert eventually(lambda: desk.guest.ask("shell", f"test ! -e {desk.folder}/locked")[0] == 0, 60.0), (
        "it is unlocked"
    )


def test_a_machine_that_stood_still_for_longer_than_the_deadline(desk: Desk) -> None:
    """All of it is stopped while the lock is held, as by who moves it to another host."""
    before = desk.guest.ask("clock")[1], time.monotonic()
    told = desk.lock(0, 600)
    desk.until_locked()
    kernel = desk.guest.machine.process.pid  # who traces all its programs; they stand still with it
    os.kill(kernel, signal.SIGSTOP)
    time.sleep(7)
    os.kill(kernel, signal.SIGCONT)
    assert desk.guest.ask("wait") == 12, told.text("output")
    after = desk.guest.ask("clock")[1], time.monotonic()
    print(f"inside {after[0] - before[0]:.1f} s, outside {after[1] - before[1]:.1f} s")
    assert desk.guest.ask("shell", f"test ! -e {desk.folder}/locked")[0] == 0, "it is unlocked"
    assert desk.guest.command("reconcile")["unmended"] == []
