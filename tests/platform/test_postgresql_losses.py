# SPDX-License-Identifier: Apache-2.0
"""Which transactions lost rows, by the log of each version that is here: all of these, and none of the others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from slackwater.system.credentials import as_user
from slackwater.writers._postgresql import lossnames
from slackwater.writers._postgresql.losses import Change
from slackwater.writers._postgresql.lossnames import TABLES, Catalog, Table
from tests.platform.postgresql_support import OWNER, VERSIONS, new_cluster
from tests.platform.test_postgresql_roll import WRITER, Rolling

pytestmark = [pytest.mark.root, pytest.mark.postgresql]

SETTINGS = "wal_keep_size = '1GB'\nmax_prepared_transactions = 2\n"
BEFORE = (
    "create table orders as select i, 'x' || i as t, i as n from generate_series(1, 3000) i",
    "create index by_number on orders (i)",
    "create table payments (id serial primary key, t text)",
    "insert into payments (t) select 'x' from generate_series(1, 50)",
    "create table parted (i int, n int) partition by range (i)",
    "create table parted1 partition of parted for values from (0) to (10000)",
    "create table parted2 partition of parted for values from (10000) to (20000)",
    "insert into parted select i, i from generate_series(1, 12000) i",
    "create table small as select 1 as i",
    "create table other as select 1 as i",
    'create table "Odd ""one""" as select 1 as i',
    "create materialized view seen as select count(*) from orders",
    "create unlogged table fleeting as select 1 as i",
    "create sequence counted",
    "create schema s create table a (i int) create table b (i int) create table c (i int) create table d (i int)",
)
HARMLESS = (
    "vacuum full orders",
    "vacuum full pg_class",
    "reindex table orders",
    "cluster orders using by_number",
    "alter table orders alter n type bigint",
    "begin; alter table payments alter id type bigint; alter table parted alter n type bigint; commit",
    "refresh materialized view seen",
    "alter table fleeting set logged",
    "set allow_in_place_tablespaces = on; create tablespace elsewhere location ''",
    "alter table payments set tablespace elsewhere",
    "alter table payments set tablespace pg_default",
    "drop index by_number",
    "drop sequence counted",
    "begin; create temp table passing as select generate_series(1, 5000); delete from passing; commit",
    "begin; drop table small; rollback",
    "begin; savepoint one; delete from orders; rollback to one; commit",
    "begin; create table passing as select generate_series(1, 10) as i; drop table passing; commit",
    "create table late as select i, 'x' || i as t from generate_series(1, 1500) i",
    "delete from orders where i <= 900",
    "update orders set n = 0 where i > 2500",
    "vacuum",
)
MISTAKES = (
    ("truncate payments restart identity", ["emptied public.payments in postgres"]),
    ("begin; truncate small, other; insert into small values (2); commit",
     ["emptied public.other, public.small in postgres"]),
    ("truncate small", ["emptied public.small in postgres"]),
    ("begin; truncate payments; alter table orders alter n type int; commit",
     ["emptied public.payments in postgres"]),
    ("begin; savepoint one; delete from orders; release one; commit",
     ["deleted 2,100 rows of public.orders in postgres"]),
    ("update parted1 set i = i - 1", ["changed 9,999 rows of public.parted1 in postgres"]),
    ("begin; savepoint one; drop table small; release one; commit", ["dropped public.small in postgres"]),
    ("drop table parted", ["dropped public.parted in postgres"]),
    ("drop schema s cascade", ["dropped s.a, s.b, s.c and 1 more in postgres"]),
    ("begin; drop table other; prepare transaction 'one'; commit prepared 'one'", ["dropped public.other in postgres"]),
    ('drop table "Odd ""one""", orders cascade',
     ['dropped public."Odd ""one""", public.orders, public.seen in postgres']),
    ("truncate late", ["emptied a table made since the replica (database postgres, file {late})"]),
    ("insert into late select 1; drop table late",
     ["dropped a table made since the replica (database postgres, file {late})"]),
    ("drop database shop", ["dropped database shop"]),
)  # fmt: skip


@pytest.fixture(params=VERSIONS)
def rolling(request: pytest.FixtureRequest) -> Iterator[Rolling]:
    with new_cluster(request.param) as cluster:
        cluster.initdb()
        cluster.configure(SETTINGS)
        cluster.start()
        cluster.sql("create database shop")
        made = Rolling(cluster)
        with doing(made) as do:
            for each in BEFORE:
                do(each)
        yield made


@contextmanager
def doing(rolling: Rolling) -> Iterator[Callable[[str], int]]:
    """Do one order after the other on one connection; gives the next transaction's number before each."""
    cluster = rolling.cluster
    with as_user(OWNER.pw_uid, OWNER.pw_gid):
        connection = psycopg.connect(
            host=str(cluster.home), port=cluster.port, dbname="postgres", user="postgres", autocommit=True
        )

    def do(orders: str) -> int:
        row = connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
        for each in orders.split(";"):
            connection.execute(each.encode())
        assert row is not None
        return int(row[0])

    with connection:
        yield do


def catalog_of(rolling: Rolling) -> Catalog:
    """What a clone of the replica would answer."""
    names = {
        int(str(number)): str(name)
        for number, name in rolling.cluster.sql("select oid::int8, datname from pg_database")
    }
    tables = {}
    for number, name in names.items():
        if name in ("postgres", "shop"):
            for oid, file, root, table, kind in rolling.cluster.sql(TABLES, database=name):
                tables[number, int(str(oid))] = Table(str(table), int(str(file)), int(str(root)), str(kind))
    return Catalog(names, tables)


def catalog_again(known: Catalog) -> Catalog:
    """As the replica has it: what is read changes it."""
    return Catalog(known.databases, {**known.tables, **{key: Table("", 0, 0, "S") for key in known.sequences}})


TWINS: tuple[tuple[str, tuple[object, str, object]], ...] = (
    ("VACUUM FULL is taken for TRUNCATE", (Change, "rewritten", lambda _: [])),
    ("what goes to another tablespace is taken for emptied", (lossnames, "_moved", lambda *_: False)),
    ("files are not followed", (Change, "successors", lambda *_: [])),
)


def test_each_loss_is_named_and_nothing_else(rolling: Rolling) -> None:
    replica, record = rolling.replica()
    known = catalog_of(rolling)
    expected = []
    with doing(rolling) as do:
        for order in HARMLESS:
            do(order)
        late = rolling.cluster.value("select 'late'::regclass::oid::int8")
        for order, what in MISTAKES:
            expected.append((do(order), [each.format(late=late) for each in what]))
    found = WRITER.losses(record, rolling.sources(replica), "")
    named = list(reversed(lossnames.name(found.evidence, catalog_again(known))))
    assert [list(each.what) for each in named] == [what for _, what in expected]
    for each, (before, _) in zip(named, expected, strict=True):
        assert before <= int(each.target.value) <= before + 3
    for twin, sabotage in TWINS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*sabotage)
            blind = lossnames.name(found.evidence, catalog_again(known))
            assert [each.what for each in reversed(blind)] != [each.what for each in named], twin
    # Its files are removed in the log before it commits, and an engine that stops there has a database without files.
    rolling.recover(replica, record, str(named[-1].target))
    assert rolling.cluster.sql("select 1", database="shop")
