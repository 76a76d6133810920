# SPDX-License-Identifier: Apache-2.0
"""Backups that fail by something that passes: begun anew, whole, in the same session; and never otherwise."""

import errno
import os
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from slackwater.config.places import Places
from slackwater.demo.lab import Lab
from slackwater.errors import AbortedError, RefusedError, SlackwaterError
from slackwater.hosts.local import LocalHost
from slackwater.hosts.plugins import Plugins
from slackwater.model.component import Component
from slackwater.model.facts import Facts
from slackwater.model.session import Outcome, Session
from slackwater.providers._places import explained
from slackwater.providers.btrfs import BtrfsProvider
from slackwater.sessions.backup import BackupResult, backup
from slackwater.sessions.cell import Cell
from slackwater.system.story import Event
from tests.platform import sample_writer
from tests.platform.btrfs_support import subvolumes
from tests.platform.sample_writer import SampleWriter

pytestmark = [pytest.mark.root]
SPECIFICATION = """name = "one"
[[component]]
writer = "sample"
instance = "{path}"
[options]
retries = {retries}
retry_after = "{after}"
"""


class Moody(SampleWriter):
    """Fails at one point as often as it is told."""

    def __init__(self, at: str, times: int, *, retryable: bool) -> None:
        self.at, self.times, self.retryable = at, times, retryable
        self.called: list[str] = []

    def _fail(self, at: str) -> None:
        self.called.append(at)
        if at == self.at and self.called.count(at) <= self.times:
            raise SlackwaterError(f"Not now, at {at}.", code="moody", retryable=self.retryable)

    def prepare(self, component: Component) -> Facts:
        self._fail("prepare")
        return {"position": 1}

    def freeze(self, component: Component) -> None:
        self._fail("freeze")

    def thaw(self, component: Component) -> None:
        self._fail("thaw")


class World:
    """A sleeper on a subvolume, and a cell of its own."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.disk = lab, lab.btrfs(256 << 20)
        self.path = self.disk.subvolume("one")
        sample_writer.start(self.path)
        self.events: list[Event] = []

    def cell(self, writer: SampleWriter, *, retries: int, after: str = "10ms") -> Cell:
        specs = Path(self.lab.config_dir, "specs.d", "one.toml")
        specs.write_text(SPECIFICATION.format(path=self.path, retries=retries, after=after))
        cell = Cell(Places(self.lab.config_dir, self.lab.state_dir, self.lab.run_dir), writing=True, speaking_for="one")
        owner = cell.places.owner(create=True)
        cell.__dict__["host"] = LocalHost(
            owner=owner, journal_file=cell.places.journal_file, guard_dir=cell.places.guard_dir,
            plugins=Plugins({"sample": writer}, {"btrfs": BtrfsProvider(owner)}),
        )  # fmt: skip
        return cell

    def back_up(self, cell: Cell) -> BackupResult:
        self.events.clear()
        return anyio.run(partial(backup, cell, "one", listener=self.events.append))

    def nothing_is_left(self, cell: Cell, before: set[str]) -> None:
        assert subvolumes(self.disk) == before
        assert list(cell.host.dump()) == []


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Lab() as lab:
        made = World(lab)
        try:
            yield made
        finally:
            sample_writer.stop(made.path)


def session(cell: Cell) -> Session:
    return cell.catalog.sessions.find("latest")


def attempts(cell: Cell) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = session(cell).document.get("attempts", [])
    return found


@pytest.mark.parametrize("at", ["prepare", "freeze", "thaw"])
def test_what_passes_is_tried_again_until_it_works(world: World, at: str) -> None:
    writer = Moody(at, 2, retryable=True)
    cell = world.cell(writer, retries=2)
    before = subvolumes(world.disk)
    result = world.back_up(cell)
    assert result.outcome is Outcome.COMPLETED
    assert subvolumes(world.disk) - before == {f".slackwater/{result.replica}/one"}, "one copy, of the last attempt"
    assert writer.called.count("prepare") == 3
    assert [(each["attempt"], each["error"]["sentence"]) for each in attempts(cell)] == [
        (1, f"Not now, at {at}."),
        (2, f"Not now, at {at}."),
    ]
    told = [each.text for each in result.messages if each.severity == "warning"]
    assert [each.partition(" failed")[0] for each in told] == ["Attempt 1", "Attempt 2"]
    assert [each.name.value for each in result.phases].count("plan") == 3, "each attempt is a whole one"
    assert not cell.host.pending()


@pytest.mark.parametrize(("number", "passes"), [(errno.ENOSPC, True), (errno.EBUSY, True), (errno.EIO, False)])
def test_what_the_kernel_refuses_a_provider_passes_where_it_may(number: int, *, passes: bool) -> None:
    with pytest.raises(SlackwaterError) as caught, explained("making a place", "Nothing was touched.", {}):
        raise OSError(number, os.strerror(number))
    assert caught.value.retryable is passes


def test_what_was_made_is_undone_before_the_next_attempt(world: World) -> None:
    """By the storage itself, asked when the second attempt begins."""
    cell_made: list[set[str]] = []

    class Looking(Moody):
        def prepare(self, component: Component) -> Facts:
            cell_made.append(subvolumes(world.disk))
            return super().prepare(component)

    before = subvolumes(world.disk)
    world.back_up(world.cell(Looking("thaw", 1, retryable=True), retries=1))
    assert cell_made == [before, before]
    assert not list(Path(world.disk.path, ".slackwater").glob("*/partial*"))


def test_what_needs_somebody_is_not_tried_again(world: World) -> None:
    writer = Moody("prepare", 2, retryable=False)
    cell = world.cell(writer, retries=5)
    before = subvolumes(world.disk)
    with pytest.raises(SlackwaterError, match=r"^Not now, at prepare\.$"):
        world.back_up(cell)
    assert writer.called == ["prepare"]
    assert attempts(cell) == []
    world.nothing_is_left(cell, before)


def test_nothing_is_tried_again_where_nobody_asked_for_it(world: World) -> None:
    writer = Moody("prepare", 1, retryable=True)
    with pytest.raises(SlackwaterError) as failed:
        world.back_up(world.cell(writer, retries=0))
    assert failed.value.retryable
    assert writer.called == ["prepare"]


def test_the_last_error_says_how_often(world: World) -> None:
    writer = Moody("freeze", 99, retryable=True)
    cell = world.cell(writer, retries=2)
    before = subvolumes(world.disk)
    with pytest.raises(SlackwaterError, match=r"^Not now, at freeze, after 3 attempts\.$") as failed:
        world.back_up(cell)
    assert failed.value.reason == "moody"
    assert len(attempts(cell)) == 3
    assert session(cell).outcome is Outcome.FAILED
    assert session(cell).document["error"]["sentence"] == failed.value.sentence
    world.nothing_is_left(cell, before)


def test_it_ends_where_the_next_error_does_not_pass(world: World) -> None:
    class Changing(Moody):
        def _fail(self, at: str) -> None:
            self.retryable = "prepare" not in self.called
            super()._fail(at)

    writer = Changing("prepare", 99, retryable=True)
    with pytest.raises(SlackwaterError, match="after 2 attempts"):
        world.back_up(world.cell(writer, retries=5))


def test_what_could_not_be_undone_is_not_tried_again(world: World) -> None:
    writer = Moody("freeze", 99, retryable=True)
    cell = world.cell(writer, retries=5)
    host = cell.host
    undo, calls = host.undo, []

    async def half(name: str) -> Any:
        calls.append(name)
        found = await undo(name)
        if len(calls) > 1:
            return found
        object.__setattr__(found, "mended", (_unmended(name),))
        return found

    host.undo = half  # type: ignore[method-assign,assignment]
    with pytest.raises(SlackwaterError, match=r"^Not now, at freeze\.$"):
        world.back_up(cell)
    assert writer.called.count("prepare") == 1


def _unmended(name: str) -> Any:
    from slackwater.journal.journal import Decision, Mended

    return Mended(name, "put it back", Decision.UNDO, "it is held", done=False)


def test_a_request_to_stop_ends_the_waiting(world: World) -> None:
    writer = Moody("prepare", 99, retryable=True)
    cell = world.cell(writer, retries=5, after="1h")
    before = subvolumes(world.disk)

    def stop(event: Event) -> None:
        if event.kind == "warning":
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(AbortedError):
        anyio.run(partial(backup, cell, "one", listener=stop))
    assert (session(cell).outcome, len(attempts(cell))) == (Outcome.ABORTED, 1)
    world.nothing_is_left(cell, before)


def test_a_replica_that_is_kept_is_never_taken_again(world: World) -> None:
    """What fails after it (a catalog that is busy for the moment) is retryable, and yet no reason."""
    writer = Moody("prepare", 0, retryable=True)
    cell = world.cell(writer, retries=5)
    replicas = cell.catalog.replicas

    def busy(*_: object) -> None:
        raise RefusedError("Busy.", retryable=True)

    replicas.add = busy  # type: ignore[method-assign,assignment]
    with pytest.raises(RefusedError):
        world.back_up(cell)
    assert writer.called.count("prepare") == 1
    assert Path(world.disk.path, ".slackwater", session(cell).id, "components.json").exists()
