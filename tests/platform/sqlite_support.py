# SPDX-License-Identifier: Apache-2.0
"""An application that keeps its money in SQLite, and an oracle of what every image of it must show."""

import contextlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Transfers between accounts, each with a number in a ledger; a number is acknowledged when its commit has returned.
APPLICATION = """
import os, random, sqlite3, sys, time
path, journal, style, acknowledged = sys.argv[1:]
ack = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def connect():
    c = sqlite3.connect(path, timeout=30, isolation_level=None)
    if journal == "exclusive":
        c.execute("PRAGMA locking_mode = EXCLUSIVE")
    c.execute("PRAGMA wal_autocheckpoint = 50")
    c.execute("PRAGMA synchronous = NORMAL")
    return c
db = connect()
print("open", flush=True)
while True:
    db.execute("BEGIN IMMEDIATE")
    a, b = random.sample(range(ACCOUNTS), 2)
    db.execute("UPDATE account SET balance = balance - 1 WHERE id = ?", (a,))
    db.execute("UPDATE account SET balance = balance + 1 WHERE id = ?", (b,))
    n = db.execute("INSERT INTO ledger (n) SELECT coalesce(max(n), 0) + 1 FROM ledger RETURNING n").fetchone()[0]
    db.execute("COMMIT")
    os.write(ack, b"%d\\n" % n)
    if style == "request":
        db.close()
        time.sleep(0.002)
        db = connect()
    time.sleep(0.0005)
""".replace("ACCOUNTS", "2000")
ACCOUNTS = 2000


@dataclass
class Application:
    """A running one."""

    path: Path
    process: subprocess.Popen[str]
    acknowledged: Path

    def last(self) -> int:
        """The last number that was acknowledged."""
        lines = self.acknowledged.read_text().rpartition("\n")[0].splitlines() if self.acknowledged.exists() else []
        return int(lines[-1]) if lines else 0

    def goes_on(self, within_s: float = 10.0) -> bool:
        """It acknowledges something new."""
        before, ends_s = self.last(), time.monotonic() + within_s
        while self.last() <= before:
            if time.monotonic() >= ends_s:
                return False
            time.sleep(0.01)
        return True

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def create(path: Path, journal: str) -> None:
    """A database with its accounts, all empty."""
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA journal_mode = {'wal' if journal == 'wal' else 'delete'}")
    db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER, padding TEXT)")
    db.execute("CREATE TABLE ledger (n INTEGER PRIMARY KEY)")
    db.executemany("INSERT INTO account VALUES (?, 0, ?)", ((n, "x" * 400) for n in range(ACCOUNTS)))
    db.commit()
    db.close()


@contextmanager
def application(path: Path, journal: str = "wal", style: str = "persistent") -> Iterator[Application]:
    """An application at work on the database of this path; made when it is not there."""
    if not path.exists():
        create(path, journal)
    acknowledged = path.parent.parent / f"{path.name}.acknowledged"
    process = subprocess.Popen(
        [sys.executable, "-c", APPLICATION, str(path), journal, style, str(acknowledged)],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    made = Application(path, process, acknowledged)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert made.goes_on()
        yield made
    finally:
        made.stop()


def copy(path: Path, target: Path, pause_s: float = 0.0) -> Path:
    """Copy a database file by file, as a storage with an instant for each file does, with time between the files."""
    target.mkdir()
    shutil.copyfile(path, target / path.name)
    time.sleep(pause_s)
    for name in (f"{path.name}-journal", f"{path.name}-wal"):
        with contextlib.suppress(FileNotFoundError):  # a journal comes and goes with each transaction
            shutil.copyfile(path.parent / name, target / name)
    return target / path.name


def complaints(path: Path, at_least: int) -> list[str]:
    """The oracle: what an image of the application's database does not show as it must."""
    db = sqlite3.connect(path)
    try:
        found = [row[0] for row in db.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
        (total,) = db.execute("SELECT sum(balance) FROM account").fetchone()
        count, last = db.execute("SELECT count(*), coalesce(max(n), 0) FROM ledger").fetchone()
    except sqlite3.DatabaseError as e:
        return [str(e)]
    finally:
        db.close()
    found += [f"the accounts sum up to {total}"] if total else []
    found += [f"{last - count} numbers are missing"] if count != last else []
    found += [f"{at_least} was acknowledged, and {last} is the last"] if last < at_least else []
    return found
