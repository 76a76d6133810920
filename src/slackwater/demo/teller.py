# SPDX-License-Identifier: Apache-2.0
"""One teller: a process that commits without end, and writes down each commit after it was acknowledged.

It survives restarts, freezes and recoveries of the server: whatever fails, it connects anew and goes on from what the
tables hold. `python -m slackwater.demo.teller NUMBER SOCKET_DIR PORT FOLDER PAUSE_S` is how `load` starts it.
"""

import os
import random
import sys
import time
from contextlib import suppress
from typing import Any

import psycopg

from slackwater.demo import ledger
from slackwater.demo.cluster import connect
from slackwater.system.clock import SYSTEM_CLOCK

ACK = "%6d %12d %18.6f\n"
"""An acknowledged commit: epoch, number, seconds since boot when the answer had come. Always of one length."""
EPOCH = "%d %d %d %.6f\n"
"""A connection: its epoch, the epoch and number of the commit it goes on from, seconds since boot."""
RETRY_S = 0.05


class Teller:
    """Commits until its parent is gone."""

    def __init__(self, teller: int, socket_dir: str, port: int, folder: str, pause_s: float = 0.0) -> None:
        self._teller = teller
        self._address = (socket_dir, port)
        self._pause_s = pause_s
        self._pause, self._idle = os.path.join(folder, "pause"), os.path.join(folder, f"idle-{teller}")
        self._acks = os.open(os.path.join(folder, f"acks-{teller}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        path = os.path.join(folder, f"epochs-{teller}")
        self._epochs = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._epoch = os.pread(self._epochs, os.fstat(self._epochs).st_size, 0).count(b"\n")
        self._number = 0
        self._connection: psycopg.Connection[Any] | None = None
        self._random = random.Random(teller)  # noqa: S311

    def serve(self) -> None:
        """Commit, one after the other, until the parent is gone."""
        parent = os.getppid()
        while os.getppid() == parent:
            if os.path.exists(self._pause):
                self._rest()
                continue
            try:
                self._one()
                time.sleep(self._pause_s)
            except psycopg.Error as e:
                sys.stderr.write(f"{SYSTEM_CLOCK.boot_s():.3f} {e}\n")
                self._hang_up()
                time.sleep(RETRY_S)

    def _one(self) -> None:
        connection = self._connection or self._connect()
        source, target = self._random.sample(range(1, ledger.ACCOUNTS + 1), 2)
        move = source, target, self._random.randint(1, 100)
        ledger.commit(connection, self._teller, self._number + 1, self._epoch, move)
        self._number += 1
        os.write(self._acks, (ACK % (self._epoch, self._number, SYSTEM_CLOCK.boot_s())).encode())

    def _connect(self) -> "psycopg.Connection[Any]":
        connection = connect(*self._address, ledger.DATABASE, autocommit=True)
        self._connection = connection
        connection.execute("SET synchronous_commit = on")
        base_epoch, self._number = ledger.last(connection, self._teller)
        self._epoch += 1
        line = EPOCH % (self._epoch, base_epoch, self._number, SYSTEM_CLOCK.boot_s())
        os.write(self._epochs, line.encode())
        return connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None

    def _rest(self) -> None:
        """Say that nothing is under way, and wait a moment."""
        with suppress(FileExistsError):
            os.close(os.open(self._idle, os.O_CREAT | os.O_EXCL))
        time.sleep(0.01)


if __name__ == "__main__":
    Teller(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5])).serve()
