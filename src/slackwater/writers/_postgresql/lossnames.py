# SPDX-License-Identifier: Apache-2.0
"""What rows were lost of, by name: the numbers of the log, looked up in the catalog of the replica before it.

A table keeps its number for good, and has another file after each TRUNCATE or VACUUM FULL. So files are followed
through the log from the replica on. What cannot be followed (several tables in one transaction) is told from then on by
the locks that a transaction took. What has no rows of its own is left out: indexes, sequences, views, temporary and
unlogged tables (a recovery empties those), and the engine's catalogs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from slackwater.model.target import Loss
from slackwater.writers._postgresql.losses import Change, Key, key_of, listed, moment, stored, target

#: Tables and materialized views with rows that survive, and sequences; of a partition, the root of its tree.
TABLES = """
select c.oid::int8, c.relfilenode::int8, coalesce(pg_partition_root(c.oid)::oid, c.oid)::int8,
       quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.oid >= 16384 and c.relpersistence = 'p' and c.relkind in ('r', 'm', 'p', 'S')
"""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as a catalog knows it."""

    name: str
    file: int
    """0 for one that has partitions."""
    root: int
    """Number of the table that it is a part of; its own where it is none."""
    kind: str = "r"
    """`r`, `p` for one that has partitions, `m` for a materialized view, `S` for a sequence (pg_class.relkind)."""


@dataclass(slots=True)
class Catalog:
    """What a replica knew, and where the files of its tables have gone since."""

    databases: Mapping[int, str]
    tables: dict[Key, Table]
    made: set[Key] = field(default_factory=set)
    """Tables that were made since, and had rows."""
    files: dict[Key, Key] = field(default_factory=dict)
    """By file: whose it is now."""
    lost_sight_of: set[Key] = field(default_factory=set)
    """Tables whose file is not known any more."""
    sequences: set[Key] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Begin with the files of the replica."""
        self.sequences = {key for key, table in self.tables.items() if table.kind == "S"}
        self.tables = {key: table for key, table in self.tables.items() if key not in self.sequences}
        self.files = {(key[0], table.file): key for key, table in self.tables.items() if table.file}

    def knows(self, key: Key) -> bool:
        """Whether it is a table."""
        return key in self.tables or key in self.made


@dataclass(slots=True)
class _Verdict:
    """What one transaction did to tables."""

    dropped: list[Key]
    emptied: list[Key] = field(default_factory=list)
    doubtful: list[Key] = field(default_factory=list)
    """Emptied, or written anew with all their rows."""
    files: dict[Key, Key] = field(default_factory=dict)
    """The new ones of tables that have lost theirs."""


def name(evidence: str, catalog: Catalog) -> tuple[Loss, ...]:
    """Say by name what was lost; the newest first. What lost no rows is left out."""
    changes, filled = stored(evidence)
    found: list[Loss] = []
    for change in changes:
        verdict = _judge(change, catalog)
        if what := tuple(_in_words(change, verdict, catalog)):
            found.append(Loss(moment(change), target(change), what))
        _follow(change, verdict, catalog, filled)
    return tuple(reversed(found))


def _judge(change: Change, catalog: Catalog) -> _Verdict:
    verdict = _Verdict([each for each in change.dropped if catalog.knows(each)])
    hit = _without_files(change, catalog)
    rewritten = set(change.rewritten())
    if successors := change.successors(hit, catalog.sequences):
        verdict.files = dict(zip(hit, successors, strict=True))
        verdict.emptied = [each for each, file in verdict.files.items() if file not in rewritten]
    elif not rewritten:
        verdict.emptied = hit
    else:
        verdict.doubtful = hit
    verdict.emptied = [each for each in verdict.emptied if not _moved(each, change, catalog)]
    return verdict


def _without_files(change: Change, catalog: Catalog) -> list[Key]:
    """Tables that are still there and lost their file, in the order in which they were locked."""
    gone = [key_of(each) for each in change.gone()]
    hit = [catalog.files[each] for each in gone if each in catalog.files]
    if any(each not in catalog.files for each in gone):
        hit += [each for each in change.locked if each in catalog.lost_sight_of]
    order = {key: place for place, key in reversed(list(enumerate(change.locked)))}
    left = [each for each in dict.fromkeys(hit) if each not in change.dropped]
    return sorted(left, key=lambda each: order.get(each, len(order)))


def _moved(table: Key, change: Change, catalog: Catalog) -> bool:
    """Whether it went to another tablespace: no file was made where its own was."""
    known = [each for each in change.gone() if catalog.files.get(key_of(each)) == table]
    was = {each.rpartition("/")[0] for each in known or change.gone()}
    return bool(was) and was.isdisjoint(each.rpartition("/")[0] for each in change.created)


def _follow(change: Change, verdict: _Verdict, catalog: Catalog, filled: set[Key]) -> None:
    """Keep track of which file is whose."""
    hit = _without_files(change, catalog)
    for key in map(key_of, change.gone()):
        catalog.files.pop(key, None)
    catalog.lost_sight_of.update(hit)
    catalog.lost_sight_of.difference_update(verdict.files)
    catalog.files.update({file: table for table, file in verdict.files.items()})
    catalog.lost_sight_of.difference_update(verdict.dropped)
    made = set(map(key_of, change.created)) & set(change.fresh) & filled - set(change.rewritten())
    for database, number in made:
        # The number of a table is followed by two for its types, and then by that of its long values.
        if (database, number - 3) not in change.fresh:
            catalog.made.add((database, number))
            catalog.files[database, number] = (database, number)


def _in_words(change: Change, verdict: _Verdict, catalog: Catalog) -> Iterator[str]:
    for number in change.databases:
        yield f"dropped {_database(number, catalog)}"
    yield from _tables("dropped", _roots(verdict.dropped, catalog), catalog)
    yield from _tables("emptied", verdict.emptied, catalog)
    yield from _tables("emptied or wrote anew", verdict.doubtful, catalog)
    told = {*verdict.dropped, *verdict.emptied}
    for verb, counted in (("deleted", change.deleted), ("changed", change.updated)):
        for file, count in counted.items():
            key = catalog.files.get(file)
            if key is not None and key not in told and not (key in catalog.tables and catalog.tables[key].kind == "m"):
                yield f"{verb} {count:,} rows of {_table(key, catalog)}"


def _roots(dropped: list[Key], catalog: Catalog) -> list[Key]:
    """Without partitions that went with their table."""
    return [
        each
        for each in dropped
        if each not in catalog.tables
        or catalog.tables[each].root == each[1]
        or (each[0], catalog.tables[each].root) not in dropped
    ]


def _tables(verb: str, keys: list[Key], catalog: Catalog) -> Iterator[str]:
    by_database: dict[int, list[str]] = {}
    for key in keys:
        if key in catalog.tables:
            by_database.setdefault(key[0], []).append(catalog.tables[key].name)
        else:
            yield f"{verb} {_table(key, catalog)}"
    for database, names in by_database.items():
        yield f"{verb} {listed(sorted(names))} in {catalog.databases.get(database, f'database {database}')}"


def _table(key: Key, catalog: Catalog) -> str:
    database = catalog.databases.get(key[0], str(key[0]))
    if key in catalog.tables:
        return f"{catalog.tables[key].name} in {database}"
    return f"a table made since the replica (database {database}, file {key[1]})"


def _database(number: int, catalog: Catalog) -> str:
    if number in catalog.databases:
        return f"database {catalog.databases[number]}"
    return f"a database made since the replica (number {number})"
