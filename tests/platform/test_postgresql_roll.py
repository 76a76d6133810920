# SPDX-License-Identifier: Apache-2.0
"""A replica rolled forward through its log: to the last commit, to a time, to right before a mistake; or refused."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from slackwater.errors import RefusedError
from slackwater.model.facts import Facts
from slackwater.model.replica import ComponentRecord
from slackwater.model.target import LogSource, Reach, RecoveryTarget
from slackwater.system import reflink
from slackwater.writers._postgresql import chain, fetching, ground, roll, segments
from slackwater.writers._postgresql.directory import fill
from slackwater.writers.postgresql import PostgresqlWriter
from tests.platform.postgresql_support import VERSIONS, Cluster, as_owner, identify, new_cluster

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

WRITER = PostgresqlWriter()
SEGMENT, PAGE = 1 << 24, 8192


class Rolling:
    """A cluster with replicas of it, and what a session would do with them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.component = identify(WRITER, cluster)
        self.path = self.component.files[0].path
        self.known: list[Facts] = []
        self.places = 0
        self.aside: list[Path] = []

    def place(self, name: str) -> Path:
        self.places += 1
        return self.cluster.home / f"{name}{self.places}"

    def replica(self) -> tuple[Path, ComponentRecord]:
        """An image of one instant of a server that writes."""
        expected = WRITER.prepare(self.component)
        with self.cluster.still():
            return self.cluster.copy_to(self.place("replica")), ComponentRecord(self.component, expected)

    def commit(self, number: int) -> None:
        self.cluster.sql(f"insert into t values ({number})")

    def now(self) -> datetime:
        found = self.cluster.value("select clock_timestamp()")
        assert isinstance(found, datetime)
        return found

    def sources(self, replica: Path, *more: Path) -> list[LogSource]:
        """The replica, whatever else holds log, and the live server's directory, oldest first."""
        between = [LogSource(f"what was set aside in {each.name}", {self.path: str(each)}) for each in more]
        live = LogSource("the live volume", {self.path: str(self.cluster.data)}, live=True)
        return [LogSource("the replica", {self.path: str(replica)}), *between, live]

    def reach(self, replica: Path, record: ComponentRecord, target: str, *more: Path) -> Reach:
        return roll.reach(record, self.sources(replica, *more), RecoveryTarget.parse(target), datetime.now(UTC))

    def recover(
        self, replica: Path, record: ComponentRecord, target: str, *more: Path,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> Facts:  # fmt: skip
        """Clone, make ready, stop, take the rest of the log, switch, start, prove; `meanwhile` before the stop."""
        clone, data = self.place("clone"), self.cluster.data
        subprocess.run(["cp", "-a", "--", str(replica), str(clone)], check=True)
        trees = {self.path: str(clone)}
        learnt = WRITER.rewrite(self.component, trees, {}, self.known, "2026-11-22-1")
        self.known.append(learnt)
        sources, aim = self.sources(replica, *more), RecoveryTarget.parse(target)
        before = roll.roll(record, trees, sources, aim, datetime.now(UTC), {})
        meanwhile()
        WRITER.stop_effect(self.component).make()
        rolled = {**before, **roll.roll(record, trees, sources, aim, datetime.now(UTC), before)}
        self.aside.append(self.place("aside"))
        data.rename(self.aside[-1])
        clone.rename(data)
        WRITER.start_effect(self.component).make()
        reached = WRITER.confirm(self.component, {**record.expected, **learnt, **rolled}, timeout_s=20)
        WRITER.settle_effect(self.component).make()
        return reached

    @property
    def numbers(self) -> list[object]:
        return [row[0] for row in self.cluster.sql("select i from t order by i")]


@contextmanager
def rolling(version: int = 15) -> Iterator[Rolling]:
    with new_cluster(version) as cluster:
        cluster.initdb()
        cluster.configure("wal_keep_size = '1GB'\n")  # what a slot of ours does
        cluster.start()
        cluster.sql("create table t (i int)")
        yield Rolling(cluster)


@pytest.fixture(params=VERSIONS)
def any_version(request: pytest.FixtureRequest) -> Iterator[Rolling]:
    with rolling(request.param) as made:
        yield made


@pytest.fixture
def one() -> Iterator[Rolling]:
    with rolling() as made:
        yield made


def test_a_replica_goes_to_wherever_somebody_wants(any_version: Rolling) -> None:
    one = any_version
    one.commit(1)
    replica, record = one.replica()
    one.commit(2)
    time = one.now()
    one.commit(3)
    one.cluster.sql("select pg_switch_wal()")
    one.cluster.sql("select pg_create_restore_point('noon')")
    one.commit(4)
    xid = str(one.cluster.value("with gone as (delete from t returning 1) select pg_current_xact_id()::text"))
    one.commit(5)

    assert one.reach(replica, record, "latest").against == ""
    assert one.reach(replica, record, f"before:{int(xid) + (1 << 32)}").against == ""
    reached = one.recover(replica, record, f"before:{xid}")
    assert one.numbers == [1, 2, 3, 4]
    assert reached["timeline"] == 2
    one.commit(6)
    # What was set aside holds what came after the mistake; the present data went another way from the same replica.
    one.recover(replica, record, "latest", *one.aside)
    assert one.numbers == [1, 2, 3, 4, 6]
    one.recover(replica, record, time.isoformat(), *one.aside)
    assert one.numbers == [1, 2]
    one.recover(replica, record, "latest", *one.aside)
    assert one.numbers == [1, 2]
    left = {each.name for each in one.cluster.data.iterdir()}
    assert not left & {"slackwater.histories", "slackwater.log", "recovery.signal"}
    assert "slackwater" not in (one.cluster.data / "postgresql.auto.conf").read_text()
    assert "recovery_target_timeline" not in (one.cluster.data / "postgresql.auto.conf").read_text()


@pytest.mark.parametrize("shares", [False, True])
def test_log_that_has_to_be_copied_is_copied_only_where_there_is_room(
    one: Rolling, monkeypatch: pytest.MonkeyPatch, *, shares: bool
) -> None:
    """All that is free has to stay free: what can be shared takes nothing of it."""
    replica, record = one.replica()
    one.commit(1)
    one.cluster.sql("select pg_switch_wal()")
    one.commit(2)
    monkeypatch.setattr(fetching, "_LEFT_FREE", 100)
    if shares:
        monkeypatch.setattr(reflink, "clone", lambda to, fd: fill(fd, to, os.fstat(fd).st_size))
        one.recover(replica, record, "latest")
        assert one.numbers == [1, 2]
        return
    with pytest.raises(RefusedError) as refused:
        one.recover(replica, record, "latest")
    assert refused.value.reason == "log-room"


def test_a_name_and_a_position(one: Rolling) -> None:
    replica, record = one.replica()
    one.commit(1)
    one.cluster.sql("select pg_create_restore_point('noon')")
    one.commit(2)
    lsn = str(one.cluster.value("select pg_current_wal_lsn()"))
    one.commit(3)
    where = one.cluster.data
    one.recover(replica, record, f"lsn:{lsn}")
    assert one.numbers == [1, 2]
    # The present data has gone another way since; its own log still has the name.
    one.recover(replica, record, "name:noon")
    assert one.numbers == [1]
    assert where == one.cluster.data


def test_latest_from_what_is_left_of_a_destroyed_server(one: Rolling) -> None:
    replica, record = one.replica()
    for number in range(100):
        one.commit(number)
    one.cluster.stop("immediate")
    for each in one.cluster.data.iterdir():
        if each.name != "pg_wal":
            shutil.rmtree(each) if each.is_dir() else each.unlink()
    one.recover(replica, record, "latest")
    assert one.numbers == list(range(100))


def test_without_the_live_log_nobody_knows_what_was_committed(one: Rolling) -> None:
    replica, record = one.replica()
    one.commit(1)
    later, _ = one.replica()
    one.commit(2)
    now = one.now().isoformat()
    one.cluster.stop("immediate")
    for each in one.cluster.data.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    for target in ("latest", now):
        found = one.reach(replica, record, target, later)
        assert "nothing is left of that of the live volume" in found.against
    assert found.at is not None
    one.recover(replica, record, found.at.isoformat(), later)
    assert one.numbers == [1]


def test_another_cluster_in_the_place_of_the_lost_one_is_not_the_live_log(one: Rolling) -> None:
    """Its files have the same names; nothing of it tells how far the lost one had come."""
    one.cluster.sql("select pg_switch_wal()")
    replica, record = one.replica()
    one.commit(1)
    later, _ = one.replica()
    one.commit(2)
    one.cluster.stop("immediate")
    one.cluster.data.rename(one.place("lost"))
    as_owner(str(one.cluster.programs / "initdb"), "--no-sync", "-D", str(one.cluster.data))
    found = one.reach(replica, record, "latest", later)
    assert "another cluster lies there" in found.against
    assert found.at is not None
    assert one.reach(replica, record, found.at.isoformat(), later).against == ""
    (one.cluster.data / "global/pg_control").unlink()
    assert "another cluster lies there" in one.reach(replica, record, "latest", later).against


def test_of_two_histories_of_one_timeline_the_present_one_is_followed(one: Rolling) -> None:
    """The same replica was put back twice as it was: the engine wrote segments of the same names both times."""
    replica, record = one.replica()

    def put_back() -> Path:
        one.cluster.stop("immediate")
        aside = one.place("aside")
        one.cluster.data.rename(aside)
        subprocess.run(["cp", "-a", "--", str(replica), str(one.cluster.data)], check=True)
        one.cluster.start()
        return aside

    def go_on(first: int, segments: int) -> None:
        for number in range(first, first + segments):
            one.commit(number)
            one.cluster.sql("select pg_switch_wal()")
        one.commit(first + segments)

    go_on(1, 1)
    put_back()
    go_on(10, 6)
    held, of_held = one.replica()
    abandoned = put_back()
    go_on(20, 2)
    assert one.reach(held, of_held, "latest", abandoned).against.startswith("timeline 1 has two histories")
    one.recover(replica, record, "latest", held, abandoned)
    assert one.numbers == [20, 21, 22]


def test_no_timeline_is_chosen_where_an_older_one_was_gone_back_to(one: Rolling) -> None:
    """What an undo leaves behind has the higher number, and is not what the application was on."""
    replica, record = one.replica()
    one.commit(1)
    time = one.now()
    one.commit(2)
    one.recover(replica, record, time.isoformat())
    one.commit(3)
    one.cluster.stop()
    (undone,) = one.aside
    one.aside.append(one.place("aside"))
    one.cluster.data.rename(one.aside[-1])
    only = one.reach(replica, record, time.isoformat(), *one.aside)
    assert only.against == ""  # what was left behind is older than what came instead
    undone.rename(one.cluster.data)
    one.cluster.start()
    one.commit(4)
    one.cluster.stop()
    kept = one.place("kept")
    one.cluster.data.rename(kept)
    found = one.reach(replica, record, time.isoformat(), one.aside[-1], kept)
    assert "no live log tells which timeline was the last" in found.against
    assert "--replica" in found.against


def test_a_hole_in_the_log_is_refused_and_the_last_moment_named(one: Rolling) -> None:
    replica, record = one.replica()
    one.commit(1)
    before = one.now()
    one.cluster.sql("select pg_switch_wal()")
    one.commit(2)
    missing = str(one.cluster.value("select pg_walfile_name(pg_current_wal_lsn())"))
    one.cluster.sql("select pg_switch_wal()")
    one.commit(3)
    kept = one.cluster.home / "kept"
    os.rename(one.cluster.data / "pg_wal" / missing, kept)

    found = one.reach(replica, record, "latest")
    assert missing in found.against
    assert found.at is not None
    assert found.at <= before
    assert one.reach(replica, record, found.at.isoformat()).against == ""
    assert missing in one.reach(replica, record, (before + timedelta(seconds=0.1)).isoformat()).against
    with pytest.raises(RefusedError, match=missing):
        one.recover(replica, record, "latest")
    os.rename(kept, one.cluster.data / "pg_wal" / missing)
    assert one.reach(replica, record, "latest").against == ""


def test_a_hole_before_anything_was_committed_is_a_hole(one: Rolling) -> None:
    """Where nothing that is read follows the replica, the engine's tool ends at the missing segment without a line."""
    replica, record = one.replica()
    missing = str(one.cluster.value("select pg_walfile_name(pg_current_wal_lsn() + 16777216)"))
    one.cluster.sql(
        "select count(pg_logical_emit_message(false, 'x', repeat('x', 1048560))) from generate_series(1, 40)"
    )
    one.commit(1)
    os.unlink(one.cluster.data / "pg_wal" / missing)
    assert f"{missing} is missing or not whole" in one.reach(replica, record, "latest").against


def test_a_target_that_is_not_to_be_had_is_refused(one: Rolling) -> None:
    replica, record = one.replica()
    one.commit(1)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    for target, why in {
        tomorrow: "future",
        "before:4000000": "no transaction 4000000",
        "name:nothing": "nothing of that name",
        "lsn:FF/0": "the log ends at",
        "lsn:0/100": "the replica is later",
        "lsn:no": "no position",
        "before:x": "no transaction's number",
    }.items():
        assert why in one.reach(replica, record, target).against, target


def test_a_segment_of_the_future_is_not_taken_for_the_log(one: Rolling) -> None:
    """The engine keeps old segments under future names."""
    one.cluster.sql("alter system set wal_keep_size = 0")
    one.cluster.sql("select pg_reload_conf()")
    for _ in range(3):
        one.commit(1)
        one.cluster.sql("select pg_switch_wal()")
    one.cluster.sql("checkpoint")
    replica, record = one.replica()
    one.commit(2)
    names = sorted(each.name for each in (one.cluster.data / "pg_wal").iterdir() if len(each.name) == 24)
    assert names[-1] > str(one.cluster.value("select pg_walfile_name(pg_current_wal_lsn())"))
    one.recover(replica, record, "latest")
    assert one.numbers[-1] == 2


def test_a_damaged_record_is_no_end_of_the_log(one: Rolling) -> None:
    """An engine stops at it, and calls that a success."""
    replica, record = one.replica()
    one.commit(1)
    before = one.now()
    name, offset = one.cluster.sql(
        "select pg_walfile_name(l), (pg_walfile_name_offset(l)).file_offset from pg_current_wal_insert_lsn() l"
    )[0]
    one.commit(2)
    one.cluster.sql("create table pad as select repeat('x', 900) from generate_series(1, 200)")
    one.commit(3)
    with open(one.cluster.data / "pg_wal" / str(name), "r+b") as log:
        log.seek(int(str(offset)) + 40)
        (byte,) = log.read(1)
        log.seek(-1, os.SEEK_CUR)
        log.write(bytes([byte ^ 0xFF]))

    found = one.reach(replica, record, "latest")
    assert "the log is damaged behind" in found.against
    assert found.at is not None
    assert found.at <= before
    assert "the log is damaged behind" in one.reach(replica, record, one.now().isoformat()).against
    with pytest.raises(RefusedError, match="the log is damaged behind"):
        one.recover(replica, record, "latest")
    assert one.numbers == [1, 2, 3]  # the server was not stopped
    one.recover(replica, record, found.at.isoformat())
    assert one.numbers == [1]


def test_what_the_replica_holds_already_is_no_target(one: Rolling) -> None:
    """Between its mark and its instant the server goes on; a recovery that ends there would find files of later."""
    expected = WRITER.prepare(one.component)
    time = one.now().isoformat()
    xid = str(one.cluster.value("with one as (insert into t values (1) returning 1) select pg_current_xact_id()::text"))
    with one.cluster.still():
        replica, record = one.cluster.copy_to(one.place("replica")), ComponentRecord(one.component, expected)
    one.commit(2)
    assert "no transaction" in one.reach(replica, record, f"before:{xid}").against
    assert "the replica is later" in one.reach(replica, record, time).against
    one.recover(replica, record, "latest")
    assert one.numbers == [1, 2]


def test_a_log_that_may_have_gone_on_is_no_whole_log(one: Rolling) -> None:
    """The control file is lost, and so is the newest segment: what is left ends between two."""
    replica, record = one.replica()
    one.commit(1)
    one.cluster.sql("select pg_switch_wal()")
    one.commit(2)
    newest = str(one.cluster.value("select pg_walfile_name(pg_current_wal_lsn())"))
    one.cluster.stop("immediate")
    assert one.reach(replica, record, "latest").against == ""
    os.rename(one.cluster.data / "pg_wal" / newest, one.cluster.home / "kept")
    os.rename(one.cluster.data / "global" / "pg_control", one.cluster.home / "pg_control")
    for each in (one.cluster.data / "pg_wal").glob("0*"):
        if each.name > newest:
            each.unlink()
    found = one.reach(replica, record, "latest")
    assert "another segment followed" in found.against
    assert found.at is not None
    one.recover(replica, record, found.at.isoformat())
    assert one.numbers == [1]


def to_the_last_page(one: Rolling) -> None:
    """Write until the server is in the last page of a segment, which then looks as if all of it were there."""
    left = SEGMENT
    while left > PAGE - 1000:
        size = max(100, int((min(left, 1 << 20) - 5500) * 0.995) - 200)
        one.cluster.sql(f"select pg_logical_emit_message(false, 'x', repeat('x', {size}))")
        left = SEGMENT - int(str(one.cluster.value("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))) % SEGMENT
    assert left > 2000, left


def test_a_segment_that_a_replica_has_all_but_the_end_of(one: Rolling) -> None:
    """Its last page is in place, and was written to later: whoever has the next segment has all of it."""
    to_the_last_page(one)
    replica, record = one.replica()
    for number in range(100):
        one.commit(number)
    assert one.reach(replica, record, "latest").against == ""
    one.recover(replica, record, "latest")
    assert one.numbers == list(range(100))


def test_the_last_look_goes_on_where_the_one_before_had_come_to(one: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    """The segment that was half full grows, also in the page that was its last; those before it are ours already."""
    replica, record = one.replica()
    for _ in range(3):
        one.cluster.sql("select pg_switch_wal()")
        one.commit(1)
    to_the_last_page(one)
    one.commit(2)
    looked: list[str] = []
    extent = segments.extent

    def noted(fd: int, name: str, *words: Any, **options: Any) -> segments.Extent:
        looked.append(name)
        return extent(fd, name, *words, **options)

    def goes_on() -> None:
        for number in range(3, 300):
            one.commit(number)
        monkeypatch.setattr(segments, "extent", noted)

    first = str(one.cluster.value("select pg_walfile_name(pg_current_wal_lsn())"))
    one.recover(replica, record, "latest", meanwhile=goes_on)
    assert one.numbers == [1, 1, 1, *range(2, 300)]
    assert first in looked
    assert min(looked) == first


def test_taking_the_first_for_whole_the_end_of_its_last_page_is_missing(
    one: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of both: what came after it is in the last two pages of the log, so that nothing looks damaged."""
    to_the_last_page(one)
    replica, record = one.replica()
    for number in range(100):
        one.commit(number)
    monkeypatch.setattr(chain, "_has", lambda *_: True)
    one.recover(replica, record, "latest")
    assert len(one.numbers) < 100


def test_a_target_that_was_seen_is_not_looked_for_again(one: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    replica, record = one.replica()
    one.commit(1)
    xid = str(one.cluster.value("with gone as (delete from t returning 1) select pg_current_xact_id()::text"))
    one.commit(2)

    def fails(*_: object, **__: object) -> None:
        raise AssertionError("it was looked for again")

    one.recover(replica, record, f"before:{xid}", meanwhile=lambda: monkeypatch.setattr(ground, "walk", fails))
    assert one.numbers == [1]
