# SPDX-License-Identifier: Apache-2.0
"""The scenes of the demonstration. Begin with `Show.play`, which reads like the story that is told."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from glob import escape as glob_escape
from glob import glob

from slackwater.catalog.catalog import Catalog
from slackwater.config.places import Places
from slackwater.demo import oracle
from slackwater.demo.cluster import OWNER, DebianCluster
from slackwater.demo.inventory import memory_files
from slackwater.demo.lab import Lab
from slackwater.demo.load import Acknowledged, Load
from slackwater.demo.screen import Screen
from slackwater.demo.strike import Struck, kill_in_window
from slackwater.errors import SlackwaterError
from slackwater.model.session import Phase
from slackwater.system.clock import SYSTEM_CLOCK
from slackwater.system.command import Finished, run

NAME = "orders"
"""The specification that the demonstration writes."""
STORY = (
    "slackwater discover",
    f"slackwater spec create {NAME} postgresql:15/…",
    f"slackwater backup {NAME} --preview",
    f"slackwater backup {NAME}                      under a load that never stops",
    f"slackwater backup {NAME}                      killed with -9 while the application stands still",
    "slackwater reconcile",
    "DROP TABLE accounts; then every file of the database is overwritten",
    f"slackwater recover {NAME} --preview",
    f"slackwater recover {NAME} --yes               and the receipt: acknowledged, found, lost, torn",
    f"slackwater recover {NAME} --undo --yes        and back again",
    "slackwater status",
)
_DEADLINE_S = 10.0
"""What a specification allows writes to be held by default; the killed backup's counter must go on within it."""
_TRIES = 8
"""How often a window is waited for: it lasts some milliseconds, and may be over before it was seen."""


class DemoError(SlackwaterError):
    """The demonstration showed something that must not be."""

    code = "demo"


@dataclass
class Show:
    """The story, told on a world that is there."""

    screen: Screen
    lab: Lab
    cluster: DebianCluster
    load: Load
    memory: set[str] = field(default_factory=set)
    """Files of shared memory that the server has made so far: nothing of them may be left in the end."""
    replica: str = ""
    """What is recovered from: the newest backup that was let live."""
    before_window: Acknowledged = field(default_factory=dict)
    """What was acknowledged before its window, and therefore has to be in it."""

    def play(self) -> None:
        """Tell it from the first look to the last."""
        self.look()
        self.back_up()
        self.kill_a_backup()
        self.destroy()
        self.recover()
        self.undo()
        self.look_back()

    def look(self) -> None:
        """Find out what is here, and name it."""
        self.screen.title("What is here?")
        self.slackwater("discover")
        self.slackwater("spec", "create", NAME, self.cluster.ref)
        self._ask_for_a_freeze()
        self.slackwater("backup", NAME, "--preview")

    def _ask_for_a_freeze(self) -> None:
        """Choose the hold that has a window: a killed backup is to be shown."""
        path = os.path.join(self.lab.config_dir, "specs.d", f"{NAME}.toml")
        self.screen.say("  The log could bridge the two volumes. To be killed in its window, a backup has to have one:")
        self.screen.command("sed", "-i", 's/^hold = .*/hold = "process-freeze"/', path)
        run("sed", "-i", 's/^hold = .*/hold = "process-freeze"/', path)

    def back_up(self) -> None:
        """Take a replica under load."""
        self.screen.title("A backup, while the load goes on")
        self.slackwater("backup", NAME)
        self._note_backup()
        self.load.wait(200)

    def _note_backup(self) -> None:
        """Keep what was acknowledged before the newest backup's window."""
        with self._catalog() as catalog:
            (session,) = catalog.sessions.list(limit=1)
        began_s = _boot_s_of(next(each.started for each in session.phases if each.name is Phase.FREEZE))
        self.replica = session.id
        self.before_window = self.load.acknowledged(before=began_s)

    def kill_a_backup(self) -> None:
        """Kill the next one with -9 while the application stands still."""
        self.screen.title("kill -9 of a second backup, inside its window")
        struck = self._strike()
        before = self.load.count()
        self.load.wait(1, _DEADLINE_S)
        self.screen.say(f"  the guard's record {os.path.basename(struck.record)} named {', '.join(struck.cgroups)}")
        self.screen.good(
            f"killed while every process stood still; the guard let them go {struck.thawed_ms:.1f} ms later"
            f" (its deadline: {_DEADLINE_S:g} s)"
        )
        self.load.wait(100)
        pause_ms = self.load.longest_gap_s(after=struck.at_s - 1.0) * 1000
        more = self.load.count() - before
        self.screen.good(f"the counter goes on: {more} more commits, the longest pause was {pause_ms:.0f} ms")
        self.screen.say("  The next command puts right what was cut off:")
        self.slackwater("reconcile")
        self.slackwater("catalog", "check")

    def _strike(self) -> Struck:
        for _ in range(_TRIES):
            self.screen.command("slackwater", "backup", NAME, "&  # and kill -9 in the moment in which it stands still")
            with self._started("backup", NAME) as backup:
                try:
                    struck = kill_in_window(backup, f"{self.lab.run_dir}/guard", thaw_s=_DEADLINE_S)
                except TimeoutError as e:
                    raise DemoError(f"A killed backup left the application standing still: {e}.") from e
            if struck:
                return struck
            self.screen.say("  It was done before it could be killed. Once more:")
            self._note_backup()
        raise DemoError(f"None of {_TRIES} windows was long enough to be hit.")

    def destroy(self) -> None:
        """Drop a table, then overwrite the database's files below the running server."""
        self.screen.title("Two disasters")
        self.psql("DROP TABLE accounts")
        (oid,) = self.psql("SELECT oid FROM pg_database WHERE datname = 'ledger'", shown=False).output.split()
        files = sorted(glob(f"{glob_escape(self.cluster.data_dir)}/base/{oid}/*"))
        self.screen.command("shred", "-x", "-n", "1", f"{self.cluster.data_dir}/base/{oid}/*")
        run("shred", "-x", "-n", "1", *files)
        self.screen.output(f"{len(files)} files of the database hold garbage now.")
        self._see_it_broken()

    def _see_it_broken(self) -> None:
        if self.psql("SELECT count(*) FROM commits").status == 0:
            raise DemoError("The database's files are garbage, and it still answers: this would prove nothing.")

    def recover(self) -> None:
        """Turn it back, and count."""
        self.screen.title("Recovery")
        self.slackwater("recover", NAME, "--preview")
        self.slackwater("recover", NAME, "--yes")
        self.receipt()

    def undo(self) -> None:
        """Take the recovery back, which brings the disaster back, and recover again."""
        self.screen.title("The recovery undone, and made again")
        self.slackwater("recover", NAME, "--undo", "--yes")
        self.screen.say("  It is where it was before the recovery:")
        self._see_it_broken()
        self.slackwater("recover", NAME, "--yes")
        self.receipt()

    def receipt(self) -> None:
        """Ask the oracle, and say what was acknowledged, found and lost.

        Raises:
            DemoError: a commit is missing, or something is torn.
        """
        self.load.wait(50)
        acknowledged = sum(span.last - span.first + 1 for spans in self.before_window.values() for span in spans)
        with self.load.connect() as connection:
            verdict = oracle.check(connection, self.before_window)
        timeline = self.psql("SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)", shown=False).output
        with self._catalog() as catalog:
            window = catalog.replicas.get(self.replica).document.window
            down_s = catalog.sessions.list(limit=1)[0].document["downtime_ms"] / 1000
        self.screen.receipt(
            "The receipt",
            [
                ("acknowledged before the window", f"{acknowledged:,} commits"),
                ("found", f"{acknowledged - verdict.missing:,}"),
                ("lost", f"{verdict.missing:,}"),
                ("torn", f"{verdict.torn:,}"),
                ("window", f"{window.frozen_ms:.0f} ms"),
                ("down", f"{down_s:.1f} s"),
                ("timeline", f"{int(timeline, 16)}, which nobody had used"),
            ],
        )
        if not verdict.ok:
            raise DemoError("The oracle found: " + "; ".join(verdict.findings))

    def look_back(self) -> None:
        """See what there is now."""
        self.screen.title("Where do we stand?")
        self.slackwater("replica", "list")
        self.slackwater("status")

    # -- commands --------------------------------------------------------------------------------------------------

    def slackwater(self, *words: str) -> None:
        """Run a command as a user would, and show all that it says as it says it.

        Raises:
            DemoError: it failed.
        """
        self.memory |= memory_files(self.cluster.pids())
        self.screen.command("slackwater", *words)
        with self._started(*words) as process:
            for line in process.stdout or ():
                self.screen.output(line)
        if process.returncode != 0:
            raise DemoError(f"`slackwater {' '.join(words)}` ended with status {process.returncode}.")

    @contextmanager
    def _started(self, *words: str) -> "Iterator[subprocess.Popen[str]]":
        """A command of the lab's Slackwater that runs; it has ended when the context has."""
        environment = {**os.environ, **self.lab.environment(), "COLUMNS": str(self.screen.width)}
        process = subprocess.Popen(
            [sys.executable, "-m", "slackwater", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, encoding="utf-8", errors="replace", cwd="/", env=environment,
        )  # fmt: skip
        with process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise

    def psql(self, query: str, *, shown: bool = True) -> Finished:
        """Ask the server by its own client, as the owner of the cluster; it may refuse."""
        words = ["psql", "-p", str(self.cluster.port), "ledger"]
        if shown:
            self.screen.command("runuser -u postgres --", *words, "-c", f'"{query}"')
        done = run(*words, "-XAt", "-c", query, user=OWNER, group=OWNER, check=False)
        for line in f"{done.output}{done.complaint}".splitlines() if shown else ():
            self.screen.output(line)
        return done

    @contextmanager
    def _catalog(self) -> Iterator[Catalog]:
        """The lab's catalog, only to be looked at: what it knows need not be asked of one command after the other."""
        places = Places.from_environment(self.lab.environment())
        with Catalog.open(places.catalog_file, create=False, clock=SYSTEM_CLOCK) as catalog:
            yield catalog


def _boot_s_of(moment: datetime) -> float:
    """A time of day in seconds since boot; right as long as nobody has set the clock since."""
    return SYSTEM_CLOCK.boot_s() - (SYSTEM_CLOCK.now() - moment).total_seconds()
