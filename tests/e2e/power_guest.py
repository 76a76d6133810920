# SPDX-License-Identifier: Apache-2.0
"""Inside the machine: does what it is asked for, in files of the folder that host and guest share, until it is cut off.

`python -m tests.e2e.power_guest SHARE` is how `power_support` starts it. What is written there is on the host at once
(hostfs writes through): so the host knows, after a cut, what was said before it, and nothing else.
"""

import contextlib
import gc
import json
import os
import signal
import sqlite3
import sys
import time
from datetime import UTC, datetime
from typing import Any

from slackwater.demo import oracle, teller
from slackwater.demo.cluster import WheelCluster, connect
from slackwater.demo.ledger import DATABASE
from slackwater.demo.load import Load, Span
from slackwater.errors import SlackwaterError
from slackwater.system.clock import SYSTEM_CLOCK, SystemClock
from slackwater.system.command import run
from tests.e2e import power_sabotage as sabotages
from tests.e2e import spawner
from tests.e2e.strikes import JournalWatch

LOOK_S = 0.003


class LaterClock(SystemClock):
    """The tellers' clock goes on where that of the machine's last life ended."""

    def __init__(self, offset_s: float) -> None:
        self._offset_s = offset_s

    def boot_s(self) -> float:
        return super().boot_s() + self._offset_s


class Forked:
    """A process, as far as `Load` wants to know one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


class ForkedLoad(Load):
    """Its tellers are forked, since starting Python takes seconds here, and leave the only processor to others."""

    def _spawn(self, teller_number: int) -> Any:
        pid = os.fork()
        if pid:
            return Forked(pid)
        log = os.open(f"{self._folder}/log-{teller_number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 2)
        with contextlib.suppress(BaseException):
            where = (self._cluster.socket_dir, self._cluster.port, self._folder)
            teller.Teller(teller_number, *where, pause_s=0.01).serve()
        os._exit(1)


class Runner:
    """A process that runs one command of ours after the other.

    A process of its own for each, even a forked one, takes seconds: every page that it is the first to touch is a fault
    that the machine's kernel has to have mended by the host's. That a command can be killed alone is of no use here.
    """

    def __init__(self, environment: dict[str, str], share: str, sabotage: str) -> None:
        self._share, self._count = share, 0
        asks, self._asks = os.pipe()
        self._tells, tells = os.pipe()
        spawner._import_everything()
        gc.collect()
        gc.freeze()
        if os.fork() == 0:
            os.environ.update(environment)
            if sabotage:
                getattr(sabotages, sabotage)()
            self._serve(asks, tells)
        os.close(asks)
        os.close(tells)

    def spawn(self, *words: str) -> int:
        """Begin a command with `--json`; it says what it says in `output-N` and `complaint-N` of the shared folder."""
        os.write(self._asks, json.dumps([self._count, *words]).encode() + b"\n")
        self._count += 1
        return self._count - 1

    def wait(self) -> int:
        """Wait for the end of the one that was begun first, and give its exit status."""
        return int(os.read(self._tells, 4).decode())

    def _serve(self, asks: int, tells: int) -> None:
        from slackwater.cli.main import main

        os.chdir("/")
        with open(asks, encoding="utf-8") as lines:
            for line in iter(lines.readline, ""):
                number, *words = json.loads(line)
                for fd, name in ((1, "output"), (2, "complaint")):
                    file = os.open(f"{self._share}/{name}-{number}", os.O_WRONLY | os.O_CREAT, 0o644)
                    os.dup2(file, fd)
                    os.close(file)
                status = main([*words, "--json"])
                sys.stdout.flush()
                os.write(tells, b"%4d" % status)
        os._exit(0)


class Agent:
    """What the host may ask for: every method without an underscore."""

    def __init__(self, share: str) -> None:
        self._share = share
        with open(f"{share}/settings.json", encoding="utf-8") as f:
            self._settings = json.load(f)
        os.makedirs(self._settings["environment"]["SLACKWATER_RUN_DIR"], exist_ok=True)
        self._cluster = WheelCluster(*self._settings["cluster"])
        self._runner = Runner(self._settings["environment"], share, self._settings["sabotage"])

    def mount(self, kind: str, target: str) -> None:
        # What nobody waits for stays in memory for longer than a test takes, also on a slow machine.
        later = ("-o", "commit=600") if kind == "btrfs" else ()
        run("mount", "-t", kind, *later, "/dev/ubda", target)

    def clock(self) -> tuple[str, float]:
        """Time of day and seconds since boot, of one moment."""
        return datetime.now(UTC).isoformat(), SYSTEM_CLOCK.boot_s()

    def start(self) -> str:
        """Start the server: nothing, or why it does not start."""
        try:
            self._cluster.start()
        except SlackwaterError as e:
            return str(e)
        return ""

    def running(self) -> bool:
        return self._cluster.running

    def load(self, folder: str, offset_s: float) -> None:
        """Start the load, whose moments are so much later than the kernel's."""
        setattr(teller, "SYSTEM_CLOCK", LaterClock(offset_s))  # noqa: B010
        ForkedLoad(self._cluster, folder, writers=1).start()

    def spawn(self, *words: str) -> int:
        """Begin a command, see `Runner`."""
        return self._runner.spawn(*words)

    def wait(self) -> int:
        """Wait for the end of a command, and give its exit status."""
        return self._runner.wait()

    def oracle(self, acknowledged: dict[str, list[list[int]]], socket_dir: str, port: int) -> list[str]:
        """What is wrong with the load's tables, here or on a clone."""
        wanted = {int(each): [Span(*span) for span in spans] for each, spans in acknowledged.items()}
        where = (socket_dir or self._cluster.socket_dir, port or self._cluster.port)
        with connect(*where, DATABASE, autocommit=True) as connection:
            return list(oracle.check(connection, wanted).findings)

    def sql(self, query: str) -> list[list[Any]]:
        with self._cluster.connect(DATABASE, autocommit=True) as connection:
            return [list(row) for row in connection.execute(query.encode()).fetchall()]

    def sqlite(self, path: str, statement: str) -> list[list[Any]]:
        """Do something in a database of SQLite, and commit it."""
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
            return [list(row) for row in database.execute(statement).fetchall()]

    def set_clock(self, by_s: float) -> None:
        """Set the time of day so much later, or earlier."""
        time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_REALTIME) + by_s)

    def shell(self, command: str) -> tuple[int, str]:
        done = run("bash", "-c", command, check=False)
        return done.status, done.output + done.complaint

    def terminate(self) -> None:
        """Ask all processes to end, as an init does first when the machine is to be switched off."""
        os.kill(-1, signal.SIGTERM)  # but this one and process 1, see kill(2)

    def halt(self, target: str) -> None:
        """The rest of it: whoever is left is killed, and the disk is unmounted."""
        os.kill(-1, signal.SIGKILL)
        ends_s = time.monotonic() + 20.0
        while run("umount", target, check=False).status != 0 and time.monotonic() < ends_s:
            time.sleep(0.1)
        os.sync()

    def watch(self) -> None:
        """Write down in `watched` each change of what the journal and the catalog say of sessions and deletions."""
        if os.fork():
            return
        state = self._settings["environment"]["SLACKWATER_STATE_DIR"]
        seen = ""
        with (
            open(f"{self._share}/watched", "w", encoding="utf-8", buffering=1) as told,
            JournalWatch(f"{state}/journal.sqlite") as journal,
        ):
            while True:
                now = journal.progress(begun=False)
                deleting = _deleting(f"{state}/catalog.sqlite")
                line = json.dumps({"effects": now.effects, "decided": now.decided, "deleting": deleting})
                if line != seen:
                    told.write(f"{line}\n")
                    seen = line
                time.sleep(LOOK_S)


def _deleting(catalog: str) -> list[str]:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as database,
    ):
        return [row[0] for row in database.execute("SELECT id FROM replicas WHERE state = 'deleting'")]
    return []


def serve(share: str) -> None:
    """Answer every `ask-N` by a `told-N`, in their order, until the power goes."""
    agent = Agent(share)
    number = 0
    while True:
        while not os.path.exists(f"{share}/ask-{number}"):
            time.sleep(LOOK_S)
        with open(f"{share}/ask-{number}", encoding="utf-8") as f:
            name, arguments = json.load(f)
        try:
            told = {"value": getattr(agent, name)(*arguments)}
        except Exception as e:  # noqa: BLE001
            told = {"error": f"{type(e).__name__}: {e}"}
        with open(f"{share}/telling", "w", encoding="utf-8") as f:
            json.dump(told, f)
        os.rename(f"{share}/telling", f"{share}/told-{number}")
        number += 1


if __name__ == "__main__":
    serve(sys.argv[1])
