# SPDX-License-Identifier: Apache-2.0
"""Whether everything that was acknowledged is there, and whole."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slackwater.demo.ledger import ACCOUNTS, OPENING
from slackwater.demo.load import Acknowledged

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the oracle found."""

    findings: tuple[str, ...]
    """What is wrong, a sentence each."""
    missing: int
    """Acknowledged commits that are not there."""
    found: int
    """Commits that are there, those included that nobody had been told of yet."""
    torn: int
    """Rows, pages or transactions that contradict each other."""

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.findings


def check(connection: "psycopg.Connection[Any]", acknowledged: Acknowledged) -> Verdict:
    """Check the load's tables, each question in one view; writes nothing, and the load may go on meanwhile.

    Indexes are compared with their tables, and tables looked through, by the extension amcheck
    (https://www.postgresql.org/docs/15/amcheck.html) where `ledger.prepare` found it.

    Args:
        connection: to the load's database, in autocommit mode, outside a transaction.
        acknowledged: what must be there, as `Load.acknowledged` gives it.
    """
    missing, missing_why = _attempt(connection, _missing, acknowledged)
    found, found_why = _attempt(connection, _found)
    torn, torn_why = _attempt(connection, _torn)
    corrupt, corrupt_why = _attempt(connection, _corrupt)
    findings = (*missing_why, *found_why, *torn_why, *corrupt_why)
    return Verdict(findings, missing, found, torn + corrupt)


Found = tuple[int, list[str]]
"""How many, and what to say about it."""


def _attempt(connection: "psycopg.Connection[Any]", question: Callable[..., Found], *about: Any) -> Found:  # noqa: ANN401
    """Ask in one consistent view; an engine that cannot answer is an answer too: its tables are broken, once."""
    import psycopg

    try:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            for way in ("indexscan", "indexonlyscan", "bitmapscan"):  # what the tables hold, not what an index says
                connection.execute(f"SET LOCAL enable_{way} = off")
            return question(connection, *about)
    except psycopg.Error as e:
        return 1, [f"The engine cannot read the tables: {e}"]


def _missing(connection: "psycopg.Connection[Any]", acknowledged: Acknowledged) -> Found:
    lost = {
        f"teller {teller}, epoch {span.epoch}, {span.first} to {span.last}": span.last - span.first + 1 - there
        for teller, spans in acknowledged.items()
        for span in spans
        if (there := _number(connection, _THERE, (teller, span.epoch, span.first, span.last))) <= span.last - span.first
    }
    return sum(lost.values()), [f"{count} acknowledged commits are missing: {where}" for where, count in lost.items()]


def _found(connection: "psycopg.Connection[Any]") -> Found:
    return _number(connection, "SELECT count(*) FROM commits"), []


def _torn(connection: "psycopg.Connection[Any]") -> Found:
    counts = {sentence: _number(connection, query) for sentence, query in _CONTRADICTIONS.items()}
    return sum(counts.values()), [f"{sentence}: {count}" for sentence, count in counts.items() if count]


def _corrupt(connection: "psycopg.Connection[Any]") -> Found:
    if _number(connection, "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'") == 0:
        return 0, []
    lines = connection.execute(
        "SELECT c.relname, v.msg FROM pg_class c, verify_heapam(c.oid) v"
        " WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
    ).fetchall()
    for (index,) in connection.execute(
        "SELECT oid::regclass FROM pg_class WHERE relkind = 'i' AND relnamespace = 'public'::regnamespace"
    ).fetchall():
        connection.execute("SELECT bt_index_check(%s::regclass, heapallindexed => true)", (index,))
    return len(lines), [f"{table} is corrupt: {message}" for table, message in lines]


def _number(connection: "psycopg.Connection[Any]", query: str, values: tuple[int, ...] | None = None) -> int:
    row = connection.execute(query, values).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


_THERE = "SELECT count(*) FROM commits WHERE teller = %s AND epoch = %s AND number BETWEEN %s AND %s"

_CONTRADICTIONS = {
    "Numbers that a teller's sequence skips or holds twice": """
        SELECT sum(abs(greatest(last - first + 1, last) - there) + abs(there - each))
        FROM (SELECT min(number) AS first, max(number) AS last, count(*) AS there, count(DISTINCT number) AS each
              FROM commits GROUP BY teller) AS sequence""",
    "Accounts too many or too few": f"SELECT abs(count(*) - {ACCOUNTS}) FROM accounts",  # noqa: S608 - constants
    "Money that came or went": f"SELECT abs(sum(balance) - {ACCOUNTS * OPENING}) FROM accounts",  # noqa: S608
    "Accounts whose balance is not the sum of their journal entries": """
        SELECT count(*) FROM accounts FULL JOIN (SELECT account AS id, sum(delta) AS total FROM journal GROUP BY 1) AS j
        USING (id) WHERE balance IS DISTINCT FROM total""",
    "Transactions that are there in part": """
        SELECT count(*) FROM (SELECT * FROM commits WHERE number % 2 = 0) AS c
        FULL JOIN (SELECT teller, number, count(*) AS entries, sum(delta) AS total FROM journal WHERE teller > 0
                   GROUP BY 1, 2) AS j USING (teller, number)
        WHERE c.epoch IS NULL OR entries IS DISTINCT FROM 2 OR total <> 0""",
}
