# SPDX-License-Identifier: Apache-2.0
"""The log kept by a slot: whole from replica to replica, let go of at its bound, and taken back when a session dies."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slackwater.journal.effects import EffectKinds
from slackwater.journal.journal import Journal
from slackwater.model.component import Component, Credentials, Handling
from slackwater.model.facts import Severity
from slackwater.model.plan import LogKeeping
from slackwater.model.replica import ComponentRecord
from slackwater.system.processes import identity
from slackwater.writers._postgresql import slot
from slackwater.writers.postgresql import PostgresqlWriter
from tests.platform.crowd import eventually
from tests.platform.postgresql_support import identify, new_cluster
from tests.platform.test_postgresql_bridge import admit_root_as
from tests.platform.test_postgresql_bridge import new_world as bridge_world
from tests.platform.test_postgresql_roll import WRITER, Rolling

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

MIB = 1 << 20
KEEPING = LogKeeping("orders", 512 * MIB, owner="f00dcafe-1234")
NAME = "slackwater_log_f00dcafe_orders"
RECYCLED = 96
"""MiB of log: three times what the server keeps by itself."""


class Kept(Rolling):
    """A cluster whose log is kept, and what a session does for that."""

    def back_up(self) -> tuple[Path, ComponentRecord]:
        effect = WRITER.keep_log_effect(self.component, KEEPING)
        assert effect is not None
        effect.make()
        replica, record = self.replica()
        WRITER.advance_log(self.component, KEEPING, record.expected)
        return replica, record

    def write(self, mib: int) -> None:
        """So much log, with a checkpoint now and then, at which the server recycles what nobody keeps."""
        for _ in range(mib // 16):
            self.cluster.sql("select count(pg_logical_emit_message(false, 'x', repeat('x', 1048560))) "
                             "from generate_series(1, 16)")  # fmt: skip
            self.cluster.sql("checkpoint")

    def slots(self) -> dict[str, str]:
        rows = self.cluster.sql("select slot_name, wal_status from pg_replication_slots")
        return {str(name): str(status) for name, status in rows}

    def findings(self, keeping: LogKeeping = KEEPING) -> dict[str, Severity]:
        return {each.code: each.severity for each in WRITER.check_log(self.component, keeping)}


@contextmanager
def kept(bound: str = "512MB") -> Iterator[Kept]:
    with new_cluster() as cluster:
        cluster.initdb()
        cluster.configure(f"max_wal_size = 32MB\nmin_wal_size = 32MB\nfsync = off\nmax_slot_wal_keep_size = {bound}\n")
        cluster.start()
        cluster.sql("create table t (i int)")
        yield Kept(cluster)


@pytest.fixture
def one() -> Iterator[Kept]:
    with kept() as made:
        yield made


def test_what_the_server_would_have_recycled_is_there(one: Kept) -> None:
    replica, record = one.back_up()
    one.commit(1)
    one.write(RECYCLED)
    one.commit(2)
    xid = str(one.cluster.value("with gone as (delete from t returning 1) select pg_current_xact_id()::text"))
    one.recover(replica, record, f"before:{xid}")
    assert one.numbers == [1, 2]
    # The recovered server keeps what it has, and goes on keeping: the same replica again, further.
    assert one.slots() == {NAME: "extended"}
    one.commit(3)
    one.write(64)
    one.commit(4)
    one.recover(replica, record, "latest", *one.aside)
    assert one.numbers == [1, 2, 3, 4]


def test_the_log_since_the_replica_before_is_in_each_and_no_more_is_kept(one: Kept) -> None:
    older, its_record = one.back_up()
    one.commit(1)
    one.write(96)
    younger, _ = one.back_up()
    one.commit(2)
    one.write(96)
    names = [each for each in os.listdir(one.cluster.data / "pg_wal") if len(each) == 24]
    assert len(names) < (96 + 64) // 16  # what the younger one has is not kept any more
    assert one.reach(older, its_record, "latest").against
    one.recover(older, its_record, "latest", younger)
    assert one.numbers == [1, 2]


def test_a_slot_that_let_go_is_a_hole_and_no_loss(one: Kept) -> None:
    """Twins: one that was moved too far, and one that somebody dropped."""
    for sabotage in (
        f"select pg_replication_slot_advance('{NAME}', pg_current_wal_lsn())",
        f"select pg_drop_replication_slot('{NAME}')",
    ):
        replica, record = one.back_up()
        one.commit(1)
        one.cluster.sql("select pg_switch_wal()")
        one.commit(2)
        assert one.reach(replica, record, "latest").against == ""
        one.write(64)
        assert one.reach(replica, record, "latest").against == "", "nothing is wrong with it yet"
        one.cluster.sql(sabotage)
        one.write(96)
        assert "is missing or not whole" in one.reach(replica, record, "latest").against, sabotage


def test_at_the_bound_it_is_the_log_that_goes() -> None:
    with kept(bound="64MB") as one:
        replica, record = one.back_up()
        one.commit(1)
        one.write(192)
        one.commit(2)  # the server has gone on all the time
        used = sum(each.stat().st_size for each in (one.cluster.data / "pg_wal").iterdir() if each.is_file())
        assert used < 160 * MIB
        assert one.slots() == {NAME: "lost"}
        assert one.reach(replica, record, "latest").against
        assert one.findings() == {"log-lost": Severity.WARNING}
        replica, record = one.back_up()
        assert one.slots() == {NAME: "reserved"}
        assert one.findings() == {}
        one.commit(3)
        one.recover(replica, record, "latest")
        assert one.numbers == [1, 2, 3]


def test_what_stands_against_it_is_said_before(one: Kept) -> None:
    assert one.findings() == {}
    assert one.findings(replace(KEEPING, max_bytes=511 * MIB)) == {"log-unbounded": Severity.REFUSAL}
    one.cluster.sql("alter system set max_slot_wal_keep_size = -1")
    one.cluster.sql("select pg_reload_conf()")
    (found,) = WRITER.check_log(one.component, KEEPING)
    assert found.code == "log-unbounded"
    for order in found.hint.partition("; it")[0].split("; "):
        one.cluster.sql(order)
    assert one.findings() == {}
    assert "log-room" in one.findings(replace(KEEPING, max_bytes=1 << 50))
    for number in range(10):
        one.cluster.sql(f"select pg_create_physical_replication_slot('theirs{number}')")
    assert one.findings() == {"no-slot": Severity.REFUSAL}


def test_a_role_that_may_not_is_told_how() -> None:
    with bridge_world(max_slot_wal_keep_size="64MB") as world:
        admit_root_as(world, "slackwater")
        world.sql("create role slackwater login", "grant pg_monitor to slackwater", "select pg_reload_conf()")
        writer = PostgresqlWriter({world.cluster.name: Handling(Credentials(user="slackwater"))})
        (found,) = writer.check_log(world.component, replace(KEEPING, max_bytes=64 * MIB))
        assert found.code == "no-replication"
        world.sql("alter role slackwater replication")
        assert not writer.check_log(world.component, replace(KEEPING, max_bytes=64 * MIB))


def test_only_ours_that_nobody_wants_are_dropped(one: Kept) -> None:
    one.back_up()
    theirs = ("slackwater_log_ffffffff_orders", "slackwater_2026_11_22_1", "standby")
    for name in theirs:
        one.cluster.sql(f"select pg_create_physical_replication_slot('{name}')")
    assert not WRITER.drop_logs(one.component, KEEPING.owner, ["orders"])
    assert WRITER.drop_logs(one.component, KEEPING.owner, ["shop"]) == {NAME: "nobody asks for it"}
    assert set(one.slots()) == set(theirs)


@pytest.mark.parametrize(("bound", "why"), [("-1", "does not bound it"), ("'900TB'", "no room")])
def test_what_is_not_bounded_any_more_is_dropped(one: Kept, bound: str, why: str) -> None:
    one.back_up()
    assert not WRITER.drop_logs(one.component, KEEPING.owner, ["orders"])
    one.cluster.sql(f"alter system set max_slot_wal_keep_size = {bound}")
    one.cluster.sql("select pg_reload_conf()")
    assert eventually(lambda: one.cluster.value("show max_slot_wal_keep_size") == bound.strip("'"))
    assert why in WRITER.drop_logs(one.component, KEEPING.owner, ["orders"])[NAME]
    assert not one.slots()


@pytest.mark.parametrize("there", [False, True])
def test_a_session_killed_at_it_leaves_what_was_there(one: Kept, tmp_path: Path, there: bool) -> None:
    if there:
        one.back_up()
    before = set(one.slots())
    child = os.fork()
    if not child:  # dies with the slot made and nothing noted but the intent
        journal = Journal(str(tmp_path / "journal.sqlite"), EffectKinds([slot.KeepLog]))
        journal.begin("2026-11-22-1", "backup", identity(os.getpid()))
        effect = WRITER.keep_log_effect(one.component, KEEPING)
        assert effect is not None
        journal.intend("2026-11-22-1", [effect])
        effect.make()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert set(one.slots()) == {NAME}
    journal = Journal(str(tmp_path / "journal.sqlite"), EffectKinds([slot.KeepLog]))
    journal.take("2026-11-22-1")
    for _ in range(2):
        assert [each.error for each in journal.undo("2026-11-22-1") if each.error] == []
        assert set(one.slots()) == before


def test_names_are_an_engines_and_of_one_specification_only() -> None:
    names = ["orders", "Orders", "or-ders", "or.ders", "or_ders", "x" * 64, "x" * 63 + "y"]
    found = {slot.name_of(replace(KEEPING, specification=each)) for each in names}
    assert len(found) == len(names)
    assert all(len(each) <= 63 and each.replace("_", "").isalnum() and each == each.lower() for each in found)


def test_a_stopped_server_is_left_alone() -> None:
    with new_cluster() as cluster:
        cluster.initdb()
        cluster.start()
        component: Component = identify(WRITER, cluster)
        cluster.stop()
        assert WRITER.keep_log_effect(component, KEEPING) is None
        assert [each.code for each in WRITER.check_log(component, KEEPING)] == ["no-log-kept"]
