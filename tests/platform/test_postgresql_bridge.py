# SPDX-License-Identifier: Apache-2.0
"""The log bridge by itself, over the worst of copies: `cp`, file by file, of a server that writes and recycles its log.

What the order of the copies and the label are for is shown by leaving them out.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from slackwater.demo import oracle
from slackwater.demo.cluster import Cluster, give_to_owner
from slackwater.demo.lab import Lab
from slackwater.demo.load import Acknowledged, Load
from slackwater.errors import SlackwaterError
from slackwater.model.component import Component, Credentials, Handling
from slackwater.model.facts import Fact, Facts
from slackwater.model.hold import Hold
from slackwater.system.command import run
from slackwater.writers._postgresql.bridge import LogBridge
from slackwater.writers._postgresql.controlfile import parse_lsn
from slackwater.writers.postgresql import PostgresqlWriter
from tests.platform.storm import storm

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

SMALL_LOG = {
    "max_wal_size": "32MB", "min_wal_size": "32MB", "archive_mode": "on", "archive_command": "false",
    "max_connections": "40",
}  # fmt: skip
"""Segments are recycled at each checkpoint, and nothing is ever archived."""
PARTS = ("data", "log", "space")


@dataclass
class World:
    """A cluster with data, log and a tablespace in folders of their own."""

    lab: Lab
    cluster: Cluster
    writer: PostgresqlWriter = field(default_factory=PostgresqlWriter)

    def path(self, part: str) -> str:
        return f"{self.lab.folder}/{part}"

    @property
    def component(self) -> Component:
        (found,) = [each for each in self.writer.identify() if each.ref.name == self.cluster.name]
        return found

    def sql(self, *queries: str) -> list[tuple[object, ...]]:
        with self.cluster.connect(autocommit=True) as connection:
            for query in queries:
                answer = connection.execute(query)
            return answer.fetchall() if answer.description else []

    def slots(self) -> list[str]:
        return [str(name) for (name,) in self.sql("select slot_name from pg_replication_slots")]

    # -- copies ----------------------------------------------------------------------------------------------------

    def copy(self, *parts: str) -> None:
        """As they are at this moment, each file at its own; what vanishes meanwhile is left out."""
        for part in parts:
            run("cp", "-a", self.path(part), self.path(f"{part}.copy"), check=False)

    def trees(self) -> dict[str, str]:
        return {self.path(part): self.path(f"{part}.copy") for part in PARTS}

    def put_in_place(self) -> None:
        """The live folders go, the copies take their places."""
        for part in PARTS:
            shutil.rmtree(self.path(part))
            os.rename(self.path(f"{part}.copy"), self.path(part))

    def rewrite(self, component: Component, expected: Facts) -> Facts:
        return self.writer.rewrite(component, self.trees(), expected, (), "2026-11-22-2")

    def recover(self, component: Component, expected: Facts) -> Facts:
        """As a session does it."""
        learnt = self.rewrite(component, expected)
        self.writer.stop_effect(component).make()
        self.put_in_place()
        self.writer.start_effect(component).make()
        reached = self.writer.confirm(component, {**expected, **learnt}, timeout_s=60)
        self.writer.settle_effect(component).make()
        return reached


@contextlib.contextmanager
def new_world(major: int = 15, **options: str) -> Iterator[World]:
    folder = tempfile.mkdtemp(prefix="sw-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    os.chmod(folder, 0o755)  # noqa: S103
    try:
        with Lab(folder) as lab:
            data, log, space = (f"{lab.folder}/{part}" for part in PARTS)
            settings = {**SMALL_LOG, **options}
            cluster: Cluster = (
                lab.cluster(data, log, options=settings)
                if major == 15
                else lab.wheel_cluster(major, data, log, options=settings)
            )
            give_to_owner(space)
            cluster.start()
            world = World(lab, cluster)
            world.sql(f"create tablespace space location '{space}'")
            yield world
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def load_on(world: World) -> Iterator[Load]:
    """A load with half of its tables in the tablespace."""
    with Load(world.cluster, f"{world.lab.folder}/load", writers=2) as load:
        with load.connect() as connection:
            connection.execute("alter table accounts set tablespace space")
            connection.execute("alter table commits set tablespace space")
        load.wait(50)
        yield load


def bridged(world: World, component: Component, order: tuple[str, ...] = ("data", "space", "close", "log")) -> Facts:
    """Copy in an order, and return what the record of a replica would hold."""
    expected = dict(world.writer.prepare(component))
    with world.writer.bridge(component, "2026-11-22-1") as bridge:
        for step in order:
            if step == "close":
                expected |= bridge.close()
            else:
                world.copy(step)
        bridge.prove(world.trees())
    return expected


def check(load: Load, acknowledged: Acknowledged) -> oracle.Verdict:
    with load.connect() as connection:
        return oracle.check(connection, acknowledged)


@pytest.mark.parametrize("major", [15, 18])
def test_copies_of_different_moments_are_bridged_while_the_log_is_recycled(major: int) -> None:
    with new_world(major) as world, load_on(world) as load:
        component = world.component
        assert component.offers == (Hold.LOG_BRIDGE,)
        assert component.facts["max_connections"] == 40
        first = world.sql("select pg_walfile_name(pg_current_wal_lsn())")
        with storm(world.cluster):
            before = load.acknowledged()
            expected = bridged(world, component)
        ((failed,),) = world.sql("select failed_count from pg_stat_archiver")
        assert isinstance(failed, int), "the archiver fails, and nobody waited for it"
        assert str(expected["stop_segment"]) > str(expected["start_segment"]) > str(first[0][0])
        load.pause()
        with load.connect() as connection:
            connection.execute("drop table commits")
        reached = world.recover(component, expected)
        assert parse_lsn(str(reached["lsn"])) >= parse_lsn(str(expected["lsn"]))
        assert reached["timeline"] == 2
        verdict = check(load, before)
        assert verdict.ok, verdict.findings
        assert world.slots() == []
        left = set(os.listdir(world.path("data")))
        assert not {each for each in left if "label" in each or "_map" in each or "signal" in each}
        assert os.readlink(f"{world.path('data')}/pg_tblspc/{oid_of(world)}") == world.path("space")
        load.resume()
        load.wait(20)


def oid_of(world: World) -> int:
    ((oid,),) = world.sql("select oid::bigint from pg_tablespace where spcname = 'space'")
    return int(str(oid))


def test_the_log_taken_first_is_caught_and_refused_by_the_engine_when_forced() -> None:
    with new_world() as world, load_on(world):
        component = world.component
        expected: dict[str, Fact] = dict(world.writer.prepare(component))
        with world.writer.bridge(component, "2026-11-22-1") as bridge:
            world.copy("log", "data", "space")
            expected |= bridge.close()
            with pytest.raises(SlackwaterError) as caught:
                bridge.prove(world.trees())
        assert caught.value.reason == "log-incomplete"
        assert (
            str(expected["stop_segment"]) in caught.value.sentence or "does not hold the log" in caught.value.sentence
        )
        with pytest.raises(SlackwaterError):
            world.recover(component, expected)
        assert "WAL ends before end of online backup" in world.cluster.log_tail(40)


def test_without_label_and_order_the_engine_opens_what_is_torn() -> None:
    """The sabotaged twin: what the bridge is for, and that the oracle sees it, in five tries at the latest.

    Where all pages that are too old are written again after the checkpoint, and by that whole, nothing is torn.
    """
    torn = 0
    for _ in range(5):
        with new_world() as world, load_on(world) as load:
            component = world.component
            expected = world.writer.prepare(component)
            before = load.acknowledged()
            world.copy("space")
            load.wait(200)
            world.sql("checkpoint")
            world.copy("data", "log")
            load.pause()
            reached = world.recover(component, {"system_identifier": expected["system_identifier"]})
            assert reached["timeline"] == 2, "the engine says nothing"
            torn += check(load, before).torn
        if torn:
            break
    assert torn


def test_a_hole_in_the_copied_log_is_found() -> None:
    with new_world() as world, load_on(world):
        component = world.component
        with world.writer.bridge(component, "2026-11-22-1") as bridge:
            world.sql("select pg_switch_wal()", "checkpoint", "select pg_switch_wal()", "checkpoint")
            world.copy("data", "space")
            facts = bridge.close()
            world.copy("log")
            bridge.prove(world.trees())
            start = f"{world.path('log')}.copy/{facts['start_segment']}"
            stop = f"{world.path('log')}.copy/{facts['stop_segment']}"
            control = f"{world.path('data')}.copy/global/pg_control"
            for path, what in (
                (start, remove), (stop, remove), (start, cut), (start, blank), (stop, renamed_to(start)),
                (start, flip(24)), (control, flip(100)), (control, flip(2)), (control, flip(33)),
            ):  # fmt: skip
                with damaged(path, what), pytest.raises(SlackwaterError) as caught:
                    bridge.prove(world.trees())
                assert caught.value.reason == "log-incomplete", (path, what)
            bridge.prove(world.trees())
        a_log_that_the_server_gave_up(world, component)


def a_log_that_the_server_gave_up(world: World, component: Component) -> None:
    """max_slot_wal_keep_size bounds what a slot keeps: beyond it the server lets the slot, or its connection, go."""
    world.sql("alter system set max_slot_wal_keep_size = '1MB'", "select pg_reload_conf()")
    with pytest.raises(SlackwaterError):
        bridged_over_much(world, component)


def bridged_over_much(world: World, component: Component) -> None:
    with world.writer.bridge(component, "2026-11-22-2") as bridge:
        for _ in range(4):
            world.sql("select pg_switch_wal()", "checkpoint")
        bridge.close()
        shutil.rmtree(world.path("log.copy"))
        world.copy("log")
        bridge.prove(world.trees())


@contextlib.contextmanager
def damaged(path: str, damage: "Damage") -> Iterator[None]:
    """A file with something done to it; put right afterwards."""
    shutil.copy2(path, f"{path}.kept")
    damage(path)
    yield
    os.replace(f"{path}.kept", path)


class Damage:
    """Something that happens to a file."""

    def __init__(self, name: str, script: str) -> None:
        self._name, self._script = name, script

    def __call__(self, path: str) -> None:
        subprocess.run(["sh", "-ec", self._script, "-", path], check=True, capture_output=True)

    def __repr__(self) -> str:
        return self._name


remove = Damage("removed", 'rm "$1"')
cut = Damage("cut short", 'truncate -s -8192 "$1"')
blank = Damage("a page of zeros", 'dd if=/dev/zero of="$1" bs=8192 count=1 seek=5 conv=notrunc')


def renamed_to(other: str) -> Damage:
    return Damage("an old segment under a new name", f'cp "{other}" "$1"')


def flip(at: int) -> Damage:
    return Damage(f"byte {at} overwritten", f'printf "\\125" | dd of="$1" bs=1 count=1 seek={at} conv=notrunc')


def test_whatever_happens_to_the_connection_nothing_is_believed_and_nothing_is_left() -> None:
    with new_world(idle_session_timeout="2s") as world:
        component = world.component

        def ours(act: str) -> None:
            query = f"select {act}(pid) from pg_stat_activity where application_name = 'slackwater'"
            assert world.sql(query) == [(True,)]

        with world.writer.bridge(component, "2026-11-22-1") as bridge:
            ours("pg_cancel_backend")  # nothing is under way: no harm is done
            time.sleep(3)  # longer than a session may be idle
            assert world.slots() == ["slackwater_2026_11_22_1"]
            assert "backup_label" in bridge.close()
        give_to_owner(world.path("more"))
        add = f"create tablespace more location '{world.path('more')}'"
        fails(world, component, lambda _: world.sql(add), "tablespaces-changed")
        component = world.component
        cancelled_at_its_beginning(world, component)
        fails(world, component, lambda _: ours("pg_terminate_backend"))
        fails(world, component, lambda _: world.cluster.kill9())
        assert not world.cluster.running
        world.cluster.start()
        assert world.slots() == []


def fails(world: World, component: Component, act: Callable[[LogBridge], object], reason: str = "server-error") -> None:
    with world.writer.bridge(component, "2026-11-22-1") as bridge:
        act(bridge)
        with pytest.raises(SlackwaterError) as caught:
            bridge.close()
        assert caught.value.reason == reason
        assert bridge.facts is None or reason == "tablespaces-changed"


def cancelled_at_its_beginning(world: World, component: Component) -> None:
    """The checkpoint of the beginning takes for ever, until somebody has had enough."""
    ((pid,),) = world.sql("select pid from pg_stat_activity where backend_type = 'checkpointer'")
    os.kill(int(str(pid)), signal.SIGSTOP)

    def order() -> None:
        where = "application_name = 'slackwater' and query like '%pg_backup_start%' and state = 'active'"
        query = f"select pg_cancel_backend(pid) from pg_stat_activity where {where}"
        while world.sql(query) != [(True,)]:
            time.sleep(0.02)

    thread = threading.Thread(target=order)
    thread.start()
    try:
        with pytest.raises(SlackwaterError, match="cancel"), world.writer.bridge(component, "2026-11-22-1"):
            pass
    finally:
        os.kill(int(str(pid)), signal.SIGCONT)
        thread.join()


def test_it_is_offered_only_where_it_can_be_had() -> None:
    with new_world(max_replication_slots="1") as world:
        assert Hold.LOG_BRIDGE in world.component.offers
        admit_root_as(world, "slackwater")
        world.sql("create role slackwater login", "grant pg_monitor to slackwater", "select pg_reload_conf()")
        world.writer = PostgresqlWriter({world.cluster.name: Handling(Credentials(user="slackwater"))})
        marks = "the database role may not execute pg_backup_start and pg_backup_stop"
        assert missing(world) == f"the database role lacks the attribute REPLICATION; {marks}"
        world.sql("alter role slackwater replication")
        assert missing(world) == marks
        world.sql(
            "grant execute on function pg_backup_start(text, boolean) to slackwater",
            "grant execute on function pg_backup_stop(boolean) to slackwater",
        )
        component = world.component
        assert component.offers == (Hold.LOG_BRIDGE,)
        with world.writer.bridge(component, "2026-11-22-1") as bridge:
            assert bridge.close()["start_segment"]
        world.sql("select pg_create_physical_replication_slot('theirs')")
        assert missing(world) == "no replication slot is free (max_replication_slots)"
        with pytest.raises(SlackwaterError), world.writer.bridge(component, "2026-11-22-1"):
            pass


def admit_root_as(world: World, role: str) -> None:
    """By peer with a map, as docs/how-to/postgresql-role.md says; in force after the next reload."""
    ((hba, ident),) = world.sql("select current_setting('hba_file'), current_setting('ident_file')")
    for path, line in ((hba, f"local all {role} peer map=slackwater\n"), (ident, f"slackwater root {role}\n")):
        file = Path(str(path))
        file.write_text(line + file.read_text())


def missing(world: World) -> str:
    component = world.component
    (found,) = [each for each in component.findings if each.code == "no-log-bridge"]
    assert component.offers == ()
    return found.sentence.split(": ")[1].split(". ")[0]
