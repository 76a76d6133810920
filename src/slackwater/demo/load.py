# SPDX-License-Identifier: Apache-2.0
"""A load that never stops, and that knows at any moment which commits were acknowledged."""

import bisect
import contextlib
import operator
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from slackwater.demo import ledger
from slackwater.demo.cluster import Cluster
from slackwater.demo.inventory import MARK
from slackwater.demo.teller import ACK
from slackwater.errors import SlackwaterError
from slackwater.system.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    import psycopg

_ACK_BYTES = len(ACK % (0, 0, 0))


class LoadError(SlackwaterError):
    """The load does not do what it should."""

    code = "load"


@dataclass(frozen=True, slots=True)
class Span:
    """Commits of one teller in one epoch, both ends included."""

    epoch: int
    first: int
    last: int


Acknowledged = Mapping[int, Sequence[Span]]
"""For each teller the commits that have to be there, from number 1 on."""


class Load:
    """Tellers, each a process, writing into a cluster. A context: started at its beginning, stopped at its end."""

    def __init__(self, cluster: Cluster, folder: str, writers: int = 2, pause_s: float = 0.0) -> None:
        """Choose where; nothing is made before `start`.

        Args:
            cluster: the server, which may be restarted, frozen, killed and recovered meanwhile.
            folder: where the acknowledgements are kept: not on the server's volume, which is turned back.
            writers: how many tellers.
            pause_s: how long each rests after a commit.
        """
        self._cluster = cluster
        self._folder = folder
        self._tellers = range(1, writers + 1)
        self._pause_s = pause_s
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> Self:
        """Create the database where it is missing, start the tellers and wait for the first commit of each."""
        os.makedirs(self._folder, exist_ok=True)
        with self._cluster.connect(autocommit=True) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (ledger.DATABASE,)).fetchone()
            if known is None:
                connection.execute(f"CREATE DATABASE {ledger.DATABASE}")
        with self.connect() as connection:
            ledger.prepare(connection)
        self.resume()
        self._processes = [self._spawn(teller) for teller in self._tellers]
        self._wait(lambda: all(self._counts()), 120.0, "The load does not begin")
        return self

    def _spawn(self, teller: int) -> "subprocess.Popen[bytes]":
        where = (self._cluster.socket_dir, str(self._cluster.port), self._folder, str(self._pause_s))
        with open(os.path.join(self._folder, f"log-{teller}"), "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "slackwater.demo.teller", str(teller), *where],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env={**os.environ, MARK: self._cluster.tag},
            )  # fmt: skip

    def stop(self) -> None:
        """Kill the tellers, in the middle of whatever they do. Idempotent."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes = []

    def pause(self, timeout_s: float = 10.0) -> None:
        """Let no further transaction begin, and wait until none is under way.

        Raises:
            LoadError: one is still under way, since the server stands still.
        """
        for teller in self._tellers:
            _remove(self._path("idle", teller))
        with open(os.path.join(self._folder, "pause"), "wb"):
            pass
        idle = [self._path("idle", teller) for teller in self._tellers]
        self._wait(lambda: all(map(os.path.exists, idle)), timeout_s, "The load cannot be paused")

    def resume(self) -> None:
        """Go on after `pause`. Idempotent."""
        _remove(os.path.join(self._folder, "pause"))

    def count(self) -> int:
        """How many commits were acknowledged since the start, set-aside epochs included; costs microseconds."""
        return sum(self._counts())

    def wait(self, commits: int, timeout_s: float = 120.0) -> None:
        """Wait until so many more commits were acknowledged, and every teller had one of them.

        After a recovery a teller that has not yet connected anew would still speak of what was set aside.

        Raises:
            LoadError: not in time.
        """
        before = self._counts()

        def done() -> bool:
            counts = self._counts()
            return sum(counts) >= sum(before) + commits and all(map(operator.gt, counts, before))

        self._wait(done, timeout_s, f"The load stands still at {self.count()} commits")

    def acknowledged(self, before: float | None = None) -> Acknowledged:
        """The commits that must be there in the server's state of a moment: all that were acknowledged until then.

        Commits of an epoch that a recovery had set aside by then are not counted, and are again after its undo.

        Args:
            before: that moment, seconds since boot; now when left out.
        """
        moment = SYSTEM_CLOCK.boot_s() if before is None else before
        return {teller: self._until(teller, moment) for teller in self._tellers}

    def _until(self, teller: int, moment: float) -> list[Span]:
        """Follow the epochs back from the last thing the teller saw before the moment."""
        rows = _rows(self._path("epochs", teller))
        bases = {int(epoch): (int(base), int(number)) for epoch, base, number, _ in rows}
        seen = [(at, *bases[int(epoch)]) for epoch, _, _, at in rows if at <= moment]
        seen += self._last_ack(teller, moment)
        _, epoch, number = max(seen, default=(0.0, 0, 0))
        spans = []
        while number > 0:
            base, start = bases[epoch]
            if number > start:
                spans.append(Span(epoch, start + 1, number))
            epoch, number = base, start
        return spans[::-1]

    def _last_ack(self, teller: int, moment: float) -> list[tuple[float, int, int]]:
        """What was acknowledged last until then, if anything was; its lines are of one length, and in order of time."""
        path = self._path("acks", teller)
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as f:

            def line(number: int) -> tuple[float, int, int]:
                epoch, commit, at = os.pread(f.fileno(), _ACK_BYTES, number * _ACK_BYTES).split()
                return float(at), int(epoch), int(commit)

            count = bisect.bisect_right(range(_size(path) // _ACK_BYTES), moment, key=lambda number: line(number)[0])
            return [line(count - 1)] if count else []
        return []

    def longest_gap_s(self, after: float | None = None, until: float | None = None) -> float:
        """The longest time in which no commit of any teller was acknowledged.

        Args:
            after: from this moment on, seconds since boot; from the first acknowledgement when left out.
            until: up to this moment; now when left out.
        """
        end = SYSTEM_CLOCK.boot_s() if until is None else until
        times = [at for teller in self._tellers for _, _, at in self._acks(teller)]
        begin = after if after is not None else min(times, default=end)
        points = [begin, *sorted(at for at in times if begin <= at <= end), end]
        return max((later - earlier for earlier, later in pairwise(points)), default=0.0)

    def connect(self) -> "psycopg.Connection[Any]":
        """Connect to the load's database, for the oracle."""
        return self._cluster.connect(ledger.DATABASE, autocommit=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _path(self, kind: str, teller: int) -> str:
        return os.path.join(self._folder, f"{kind}-{teller}")

    def _counts(self) -> list[int]:
        return [_size(self._path("acks", teller)) // _ACK_BYTES for teller in self._tellers]

    def _acks(self, teller: int) -> list[list[float]]:
        return _rows(self._path("acks", teller))

    def _wait(self, done: Callable[[], bool], timeout_s: float, sentence: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                raise LoadError(f"{sentence}: {self._last_words()}")
            time.sleep(0.01)

    def _last_words(self) -> str:
        words = []
        for teller in self._tellers:
            with open(self._path("log", teller), encoding="utf-8", errors="replace") as f:
                words.append(f.read()[-300:].strip() or "nothing to say")
        return " · ".join(words)


def _rows(path: str) -> list[list[float]]:
    """The complete lines of a file of numbers; a line cut off by a kill is left out."""
    try:
        with open(path, encoding="ascii") as f:
            text = f.read()
    except FileNotFoundError:
        return []
    return [[float(field) for field in line.split()] for line in text[: text.rfind("\n") + 1].splitlines()]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
