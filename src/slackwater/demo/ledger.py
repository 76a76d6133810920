# SPDX-License-Identifier: Apache-2.0
"""The tables of the load: what every transaction keeps true, so that an oracle can say what broke.

Each teller numbers its transactions 1, 2, 3 … without a gap and enters each into `commits`. The even ones also move
money from one account to another and enter both sides into `journal`. So, at any moment and in any copy of it:

* the numbers of a teller are 1 to n;
* the sum of all balances is fixed, and each balance is the sum of the account's journal entries;
* an even number has exactly two journal entries, which add up to nothing, and an odd one has none.

`epoch` says in which connection of the teller a commit was made: after a recovery the numbers are used again, and the
epoch tells the two apart.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

DATABASE = "ledger"
ACCOUNTS = 1000
OPENING = 1000
"""What every account holds at first."""

_SCHEMA = """
CREATE TABLE accounts (id integer PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE journal (teller integer, number bigint, account integer NOT NULL, delta bigint NOT NULL,
                      PRIMARY KEY (teller, number, account));
CREATE TABLE commits (teller integer, number bigint, epoch integer NOT NULL, PRIMARY KEY (teller, number));
"""


def prepare(connection: "psycopg.Connection[Any]") -> None:
    """Create the tables and open the accounts. Idempotent."""
    with connection.transaction():
        if connection.execute("SELECT to_regclass('commits')").fetchall() != [(None,)]:
            return
        connection.execute(_SCHEMA)
        connection.execute("INSERT INTO accounts SELECT id, %s FROM generate_series(1, %s) id", (OPENING, ACCOUNTS))
        connection.execute("INSERT INTO journal SELECT 0, id, id, balance FROM accounts")
        if connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'").fetchone():
            connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck")


def last(connection: "psycopg.Connection[Any]", teller: int) -> tuple[int, int]:
    """The epoch and number of the teller's last commit; zeros before the first."""
    row = connection.execute(
        "SELECT epoch, number FROM commits WHERE teller = %s ORDER BY number DESC LIMIT 1", (teller,)
    ).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def commit(
    connection: "psycopg.Connection[Any]", teller: int, number: int, epoch: int, move: tuple[int, int, int]
) -> None:
    """Make one transaction; returns when the engine acknowledged it.

    Args:
        connection: one in autocommit mode.
        teller: who.
        number: the teller's next.
        epoch: the teller's connection.
        move: from which account to which, how much; used by even numbers only.
    """
    with connection.transaction():
        connection.execute("INSERT INTO commits VALUES (%s, %s, %s)", (teller, number, epoch))
        if number % 2:
            return
        source, target, amount = move
        for account, delta in sorted([(source, -amount), (target, amount)]):  # in one order: no deadlocks
            connection.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (delta, account))
            connection.execute("INSERT INTO journal VALUES (%s, %s, %s, %s)", (teller, number, account, delta))
