# SPDX-License-Identifier: Apache-2.0
"""The catalog as a file: it comes back as it went, and nothing else is taken for it."""

import errno
import json
import os
import stat
from pathlib import Path

import anyio
import pytest

from slackwater.catalog.catalog import Catalog
from slackwater.config.places import Places
from slackwater.errors import RefusedError, RightsError, SlackwaterError, UsageError
from slackwater.model.clone import Clone, CloneDocument, CloneKind
from slackwater.model.replica import ReplicaState, Verification
from slackwater.model.session import Outcome, SessionKind
from slackwater.sessions import transfer
from slackwater.sessions.cell import Cell
from slackwater.sessions.transfer import CatalogDocument
from tests.unit.catalog.samples import StandingClock
from tests.unit.cli.samples import replica

pytestmark = [pytest.mark.root]
OWNER = replica().document.owner
CLOCK = StandingClock()
CLONE = Clone(
    "2026-11-22-8", "trial", CloneKind.ENGINE, "2026-11-22-7", "orders", CLOCK.time, None,
    CloneDocument("2026-11-22-8", "/run/x", "mark", (), replica().document.copies, reached={"x": {"port": 1}}),
)  # fmt: skip


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return new_cell(tmp_path / "one")


def new_cell(folder: Path) -> Cell:
    return Cell(Places(*(str(folder / name) for name in ("etc", "state", "run"))), writing=True)


@pytest.fixture
def exported(cell: Cell, tmp_path: Path) -> str:
    cell.places.take_owner(OWNER)
    session = cell.catalog.sessions.begin(SessionKind.BACKUP, "orders", "")
    cell.catalog.sessions.finish(session, Outcome.COMPLETED)
    cell.catalog.replicas.add(replica(session.id))
    cell.catalog.replicas.pin(session.id)
    cell.catalog.replicas.set_verified(session.id, Verification("2026-11-22-9", CLOCK.time, True, 1.0, 2.0))
    cell.catalog.replicas.add(replica("2026-11-22-7"))
    cell.catalog.replicas.set_state("2026-11-22-7", ReplicaState.DELETING)
    cell.catalog.clones.add(CLONE)
    cell.catalog.clones.set_deleting(CLONE.id)
    path = str(tmp_path / "catalog.json")
    assert transfer.export(cell, path) == transfer.Exported(path, 1, 2)
    return path


def test_a_new_installation_becomes_the_old_one(cell: Cell, exported: str, tmp_path: Path) -> None:
    assert stat.S_IMODE(os.stat(exported).st_mode) == 0o600
    other = new_cell(tmp_path / "two")
    before = cell.catalog.replicas.list()
    done = anyio.run(transfer.take_in, other, exported)
    assert other.places.owner(create=False) == OWNER
    assert other.catalog.sessions.list() == cell.catalog.sessions.list()
    assert set(done.replicas) == set(done.missing) == {each.id for each in before}, "this storage is nowhere"
    assert other.catalog.clones.list() == (CLONE,), "and not about to be deleted"
    taken = {each.id: each for each in other.catalog.replicas.list()}
    for each in before:
        now = taken[each.id]
        assert (now.document, now.pinned, now.verified) == (each.document, each.pinned, each.verified)
        assert now.state is ReplicaState.MISSING, "also what was being deleted: an import deletes nothing later"
    again = anyio.run(transfer.take_in, other, exported)
    assert (again.sessions, again.replicas, again.missing) == ((), (), ())
    assert other.catalog.days() == cell.catalog.days()


def test_what_the_catalog_knows_is_newer(cell: Cell, exported: str) -> None:
    cell.catalog.replicas.remove("2026-11-22-7")
    known = cell.catalog.replicas.list()
    cell.catalog.replicas.unpin(known[0].id)
    anyio.run(transfer.take_in, cell, exported)
    assert not cell.catalog.replicas.get(known[0].id).pinned


def test_another_installation_refuses_it(exported: str, tmp_path: Path) -> None:
    other = new_cell(tmp_path / "two")
    other.places.owner()
    with pytest.raises(RefusedError) as refused:
        anyio.run(transfer.take_in, other, exported)
    assert refused.value.reason == "other-owner"
    assert other.catalog.replicas.list() == ()


def test_it_never_replaces_a_file_or_follows_a_link(cell: Cell, exported: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there already"):
        transfer.export(cell, exported)
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="there already"):
        transfer.export(cell, str(link))
    with pytest.raises(SlackwaterError, match="cannot be written"):
        transfer.export(cell, str(tmp_path / "none" / "catalog.json"))
    assert sorted(os.listdir(tmp_path)) == ["catalog.json", "link.json", "one"]


def test_it_can_be_written_where_there_are_no_hard_links(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a vfat stick, which this kernel may not know."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = str(tmp_path / "catalog.json")
    cell.places.take_owner(OWNER)
    transfer.export(cell, path)
    assert transfer.read(path).owner == OWNER
    with pytest.raises(UsageError, match="there already"):
        transfer.export(cell, path)
    assert sorted(os.listdir(tmp_path)) == ["catalog.json", "one"]


def test_a_newer_one_is_refused_and_says_so(cell: Cell, exported: str) -> None:
    document = json.loads(Path(exported).read_text(encoding="utf-8"))
    Path(exported).write_text(json.dumps({**document, "schema_version": 2, "catalog": {"new": 1}}), encoding="utf-8")
    with pytest.raises(UsageError, match="newer version") as refused:
        transfer.read(exported)
    assert refused.value.reason == "newer-catalog"


def test_one_that_others_may_write_is_refused(exported: str) -> None:
    Path(exported).chmod(0o622)
    with pytest.raises(RightsError):
        transfer.read(exported)


def test_no_flipped_bit_is_taken_in(exported: str) -> None:
    whole = Path(exported).read_bytes()
    right = transfer.parse(whole, exported)
    for at in range(0, len(whole), 29):
        altered = bytearray(whole)
        altered[at] ^= 1 << at % 8
        try:
            assert transfer.parse(bytes(altered), exported) == right, at  # a blank, or the head's words
        except UsageError:
            continue


def test_replicas_of_another_owner_are_no_part_of_it() -> None:
    document = CatalogDocument("other", "0", CLOCK.time, {}, (), (replica(),))
    with pytest.raises(UsageError):
        transfer.parse(transfer.write(document).encode(), "x")


def test_an_empty_catalog_is_a_catalog(cell: Cell, tmp_path: Path) -> None:
    with Catalog.open(str(tmp_path / "none.sqlite"), create=False, clock=CLOCK) as catalog:
        assert catalog.days() == {}
    assert transfer.contents(cell).replicas == ()
