# SPDX-License-Identifier: Apache-2.0
"""A bank that keeps its money in two databases of SQLite, transfers between them, and an oracle over both.

A transfer takes money from an account of the left database and gives it to one of the right one, under a number that
both ledgers bear together with a tag of the process that made it. It is acknowledged when both have committed. One that
was cut off between its two commits is completed at the next start.
"""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slackwater.system.processes import stat_of

ACCOUNTS = 40
SIDES = ("left", "right")
JOURNALS = {"left": "wal", "right": "delete"}
PROGRAM = """
import fcntl, os, random, secrets, signal, sqlite3, sys, time
acknowledged, *paths = sys.argv[1:]
here = os.path.dirname(acknowledged)
alone = open(here + "/alone", "w")
def runs():
    try:
        with open(here + "/pid") as f, open("/proc/" + f.read() + "/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
ends_s = time.monotonic() + 10
while True:
    try:
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except OSError:
        if runs() or time.monotonic() > ends_s:
            sys.exit(not runs())
        time.sleep(0.01)
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
waits, told = os.pipe()
if os.fork():
    os.close(told)
    sys.exit(os.read(waits, 1) != b"1")
os.setsid()
with open(here + "/pid.new", "w") as f:
    f.write(str(os.getpid()))
os.replace(here + "/pid.new", here + "/pid")
os.write(told, b"1")
os.close(told)
ack = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
tag = secrets.randbits(40)
left, right = sides = [sqlite3.connect(path, timeout=30, isolation_level=None) for path in paths]
for db in sides:
    db.execute("PRAGMA wal_autocheckpoint = 50")
def begin():
    for db in sides:
        db.execute("BEGIN IMMEDIATE")
def last(db):
    return db.execute("SELECT coalesce(max(n), 0) FROM ledger").fetchone()[0]
def book(db, n, by, account, amount):
    db.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, account))
    db.execute("INSERT INTO ledger VALUES (?, ?, ?)", (n, by, account))
begin()
if last(left) == last(right) + 1:
    book(right, *left.execute("SELECT * FROM ledger ORDER BY n DESC LIMIT 1").fetchone(), 1)
for db in sides:
    db.execute("COMMIT")
while not ending:
    begin()
    n, account = last(left) + 1, random.randrange(ACCOUNTS)
    for db, amount in ((left, -1), (right, 1)):
        book(db, n, tag, account, amount)
    for db in sides:
        db.execute("COMMIT")
    os.write(ack, b"%d %d\\n" % (n, tag))
    time.sleep(0.02)
""".replace("ACCOUNTS", str(ACCOUNTS))
#: What a user would write: each may be run when there is nothing to do, and be killed. Whoever starts it, there is one.
START = """#!/bin/sh
grep -qs "^State:.[^ZX]" /proc/$(cat {c}/pid 2>/dev/null)/status && exit 0
exec {python} -I -S -B {c}/bank.py {c}/acknowledged {left} {right} >{c}/log 2>&1
"""
STOP = """#!/bin/sh
kill -TERM $(cat {c}/pid) 2>/dev/null
flock -w 10 {c}/alone true
for n in $(seq 1000); do grep -qs "^State:.[^ZX]" /proc/$(cat {c}/pid)/status || exit 0; sleep 0.01; done
exit 1
"""


@dataclass(frozen=True, slots=True)
class Ack:
    """A transfer that was acknowledged."""

    number: int
    tag: int


@dataclass
class Bank:
    """The application: one process over `FOLDER/left/left.db` and `FOLDER/right/right.db`."""

    folders: dict[str, str]
    """Of each side."""
    control: Path
    environment: dict[str, str]

    def __post_init__(self) -> None:
        self.control.mkdir()
        (self.control / "bank.py").write_text(PROGRAM)
        for side in SIDES:
            create(self.path(side), JOURNALS[side])
        for name, text in (("start", START), ("stop", STOP)):
            script = self.control / name
            paths = {side: self.path(side) for side in SIDES}
            script.write_text(text.format(c=self.control, python=sys.executable, **paths))
            script.chmod(0o755)

    def path(self, side: str) -> str:
        """Where the database of a side is."""
        return f"{self.folders[side]}/{side}.db"

    @property
    def pid(self) -> int:
        return int((self.control / "pid").read_text())

    @property
    def runs(self) -> bool:
        stat = stat_of(self.pid)
        return stat is not None and not stat.dead

    def command(self, name: str) -> None:
        """Run `start` or `stop`."""
        subprocess.run([self.control / name], check=True, env={**os.environ, **self.environment})

    def acknowledged(self) -> Ack:
        """The last transfer that was acknowledged."""
        with contextlib.suppress(FileNotFoundError), open(self.control / "acknowledged", "rb") as f:
            f.seek(max(0, os.fstat(f.fileno()).st_size - 200))
            *_, last, _ = [b"0 0", *f.read().split(b"\n")]
            number, tag = last.split()
            return Ack(int(number), int(tag))
        return Ack(0, 0)

    def since(self, floor: Ack) -> list[Ack]:
        """The last transfer of each process that acknowledged one from then on, in the order of their starts."""
        lines = (self.control / "acknowledged").read_text().splitlines()
        wanted = f"{floor.number} {floor.tag}"
        last = {int(line.split()[1]): Ack(*map(int, line.split())) for line in lines[lines.index(wanted) :]}
        return list(last.values())

    def goes_on(self, within_s: float) -> bool:
        """It acknowledges something new in time."""
        before, ends_s = self.acknowledged(), time.monotonic() + within_s
        while self.acknowledged() == before:
            if time.monotonic() >= ends_s:
                return False
            time.sleep(0.002)
        return True


def create(path: str, journal: str) -> None:
    """A database with its accounts, all empty."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA journal_mode = {journal}")
        db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER)")
        db.execute("CREATE TABLE ledger (n INTEGER PRIMARY KEY, tag INTEGER, account INTEGER)")
        db.executemany("INSERT INTO account VALUES (?, 0)", ((n,) for n in range(ACCOUNTS)))
        db.commit()


def complaints(paths: dict[str, str], at_least: Ack, *, cut_off: bool = False) -> list[str]:
    """The oracle: what the databases do not show as they must.

    Args:
        paths: of both, alive or images of them: they are looked at in the order in which a transfer locks them.
        at_least: must be there, and be what was acknowledged and no other transfer of that number.
        cut_off: the application was killed, so that one transfer may have come to the left and not yet to the right.
    """
    try:
        with _both(paths) as db:
            return [*_each(db, "left", -1), *_each(db, "right", 1), *_together(db, at_least, cut_off=cut_off)]
    except sqlite3.DatabaseError as e:
        return [str(e)]


@contextlib.contextmanager
def _both(paths: dict[str, str]) -> Iterator[sqlite3.Connection]:
    """Both databases, with nobody writing to them: locked in the order in which a transfer locks them."""
    with contextlib.closing(sqlite3.connect(":memory:", timeout=10.0, isolation_level=None, uri=True)) as db:
        for side in SIDES:
            db.execute(f"ATTACH 'file:{paths[side]}?mode=rw' AS {side}_db")
        db.execute("BEGIN IMMEDIATE")
        yield db


def _each(db: sqlite3.Connection, side: str, sign: int) -> Iterator[str]:
    for (said,) in db.execute(f"PRAGMA {side}_db.integrity_check(3)"):
        if said != "ok":
            yield f"{side}: {said}"
    count, last = db.execute(f"SELECT count(*), coalesce(max(n), 0) FROM {side}_db.ledger").fetchone()
    if count != last:
        yield f"{side}: {last - count} transfers are missing"
    ((wrong,),) = db.execute(
        f"SELECT count(*) FROM {side}_db.account LEFT JOIN"
        f" (SELECT account, count(*) AS moved FROM {side}_db.ledger GROUP BY account) ON account = id"
        " WHERE balance != ? * coalesce(moved, 0)",
        (sign,),
    )
    if wrong:
        yield f"{side}: {wrong} accounts do not show what the ledger says"


def _together(db: sqlite3.Connection, at_least: Ack, *, cut_off: bool) -> Iterator[str]:
    ahead = db.execute("SELECT * FROM left_db.ledger EXCEPT SELECT * FROM right_db.ledger").fetchall()
    behind = db.execute("SELECT * FROM right_db.ledger EXCEPT SELECT * FROM left_db.ledger").fetchall()
    ((last,),) = db.execute("SELECT max(n) FROM left_db.ledger")
    if ahead and not (cut_off and [row[0] for row in ahead] == [last]):
        yield f"{len(ahead)} transfers are on the left only"
    if behind:
        yield f"{len(behind)} transfers are on the right only"
    totals = "SELECT (SELECT sum(balance) FROM left_db.account) + (SELECT sum(balance) FROM right_db.account)"
    ((total,),) = db.execute(totals)
    if total != -len(ahead):
        yield f"the total is {total}"
    known = "SELECT count(*) FROM left_db.ledger JOIN right_db.ledger USING (n, tag) WHERE n = ? AND tag = ?"
    ((there,),) = db.execute(known, (at_least.number, at_least.tag))
    if at_least.number and not there:
        yield f"transfer {at_least.number} was acknowledged and is not there; the last is {last}"


def image_complaints(folders: dict[str, str], scratch: str, at_least: Ack, *, cut_off: bool = False) -> list[str]:
    """The oracle over copies of both volumes, each recovered by SQLite in a scratch folder, which is removed."""
    os.mkdir(scratch)
    try:
        paths = {}
        for side, folder in folders.items():
            os.mkdir(f"{scratch}/{side}")
            for name in os.listdir(folder):
                if not name.endswith("-shm"):
                    shutil.copyfile(f"{folder}/{name}", f"{scratch}/{side}/{name}")
            paths[side] = f"{scratch}/{side}/{side}.db"
        return complaints(paths, at_least, cut_off=cut_off)
    finally:
        shutil.rmtree(scratch)
