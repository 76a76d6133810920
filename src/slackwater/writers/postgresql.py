# SPDX-License-Identifier: Apache-2.0
"""The writer `postgresql`: PostgreSQL 15 to 18.

What an image must satisfy: nothing but one instant over all its files. PostgreSQL recovers from a power cut by its own
log, and an image of one instant is what a power cut leaves ("Reliability and the Write-Ahead Log"), so there is no
lock to take: `freeze` and `thaw` do nothing. Where the files lie on several volumes the log bridges them, see
`_postgresql/bridge.py`; where it cannot, the plan makes the instant by freezing the processes.

Servers and all their files are found by asking: the kernel who runs and where, the server for the rest. Logging in
needs nothing on an untouched cluster when we are root. Instead, a role of its own may be named in the settings; this is
all it needs, in every database that holds unlogged tables the last line too (CONNECT is granted to all by default):

    CREATE ROLE slackwater LOGIN;          -- and a password, or a map in pg_ident.conf for peer
    GRANT pg_monitor TO slackwater;        -- to see the settings
    GRANT pg_checkpoint TO slackwater;     -- to make a checkpoint before the window
    GRANT CONNECT ON DATABASE postgres TO slackwater;

For a log bridge also the attribute REPLICATION, and EXECUTE on pg_backup_start and pg_backup_stop.

A password comes from a file in the format of `.pgpass` (readable by its owner only, `*` in the first two fields since
a socket is no host), from a service file, or from a systemd credential. Socket and port are always those of the server
that was found, and the kernel is asked who listens there before anything is believed.

A recovered server is on a new timeline whose number nobody has used; see `_postgresql/rewrite.py`. Two things come
with that until its next restart: hot_standby shows as `pending_restart`, and its replication slots are gone.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import ClassVar

from slackwater.errors import RightsError, SlackwaterError
from slackwater.journal.effects import Effect
from slackwater.model.component import Component, Credentials, Handling
from slackwater.model.facts import Facts, Finding
from slackwater.model.hold import Keeper
from slackwater.model.plan import LogKeeping
from slackwater.model.replica import ComponentRecord
from slackwater.model.target import LogSource, Loss, Losses, Reach, RecoveryTarget
from slackwater.writers._postgresql import archiving, debian, describe, lossnames, rewrite, slot
from slackwater.writers._postgresql import clone as clones
from slackwater.writers._postgresql import losses as finding
from slackwater.writers._postgresql import roll as rolling
from slackwater.writers._postgresql import since as measured
from slackwater.writers._postgresql.bridge import LogBridge, bridged
from slackwater.writers._postgresql.confirm import Subject, confirm, confirm_by_files, door_of
from slackwater.writers._postgresql.connect import connected
from slackwater.writers._postgresql.control import Control, control_fields
from slackwater.writers._postgresql.controlfile import read_control_file
from slackwater.writers._postgresql.effects import SettlePostgresql, StartPostgresql, StopPostgresql
from slackwater.writers._postgresql.find import Postmaster, postmaster_on, postmasters, processes_on
from slackwater.writers.contract import Clone, Probe, Question

#: A checkpoint writes all that is in memory; nothing waits for it.
_CHECKPOINT_S = 3600.0


class PostgresqlWriter:
    """Speaks for PostgreSQL."""

    name: ClassVar[str] = "postgresql"
    effects: ClassVar[tuple[type[Effect], ...]] = (StopPostgresql, StartPostgresql, SettlePostgresql, slot.KeepLog)
    answers: ClassVar[bool] = True

    def __init__(self, handling: Mapping[str, Handling] | None = None) -> None:
        self._handling = dict(handling or {})

    def identify(self) -> Sequence[Component]:
        """Find every server that runs, and Debian's stopped clusters. Servers are asked side by side."""
        servers = postmasters()
        with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
            found = list(pool.map(lambda each: describe.running(each, self._login(describe.name_of(each))), servers))
        names = {each.ref.name for each in found}
        found += [describe.stopped(each) for each in debian.clusters() if each.name not in names]
        return sorted(found, key=lambda each: each.ref)

    def find(self, name: str) -> None:
        """None: `identify` finds all there are."""

    def processes(self, component: Component) -> frozenset[int]:
        """The postmaster and all that stem from it, and orphans it left on the data directory."""
        return processes_on(_directory(component))

    def prepare(self, component: Component) -> Facts:
        """Make a checkpoint, so that recovery is short; then commit a mark to the log and return its position.

        Returns: `lsn`, `timeline`, `system_identifier`, `log_from`, `next_xid` (of a server that runs). Everything
            acknowledged before the call is before `lsn`, and the log is flushed up to it; a position that the engine
            has only reserved could lie in a torn record. A recovery reads the log from `log_from` on, or from later.
        """
        server = postmaster_on(_directory(component))
        if not component.running:
            if server is not None:
                raise SlackwaterError(
                    f"{component.ref} was started meanwhile.", data="Nothing was changed.", hint="Run it again."
                )
            control = read_control_file(_directory(component))
            return {
                "lsn": control.checkpoint_lsn,
                "timeline": control.timeline,
                "system_identifier": control.system_identifier,
                "log_from": control.redo_lsn,
            }
        door, login = door_of(_running(component, server)), self._login(component.ref.name)
        with connected(door, login, deadline_s=_CHECKPOINT_S) as connection:
            connection.execute("checkpoint")
            with connection.transaction():
                connection.execute("set local synchronous_commit = 'local'")
                mark = connection.execute(
                    "select pg_logical_emit_message(true, 'slackwater', 'backup')::text"
                ).fetchone()
            row = connection.execute(
                "select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,"
                " system_identifier::text, redo_lsn::text, pg_snapshot_xmax(pg_current_snapshot())::text"
                " from pg_control_system(), pg_control_checkpoint()"
            ).fetchone()
        if mark is None or row is None:
            raise SlackwaterError(f"{component.ref} does not tell where it stands.", data="Nothing was changed.")
        names = ("timeline", "system_identifier", "log_from", "next_xid")
        return {"lsn": mark[0], **dict(zip(names, row, strict=True))}

    def freeze(self, component: Component) -> None:
        """Nothing: an image of one instant is enough, and the plan makes the instant."""

    def thaw(self, component: Component) -> None:
        """Nothing: there is no lock to give back."""

    def keeper(self, component: Component) -> Keeper:
        """Never asked for: no lock of PostgreSQL's keeps everybody from writing its files."""
        raise NotImplementedError

    @contextmanager
    def bridge(self, component: Component, session: str) -> Iterator[LogBridge]:
        """Keep the log by a temporary slot and begin a backup, both on one connection; see `_postgresql/bridge.py`."""
        door = door_of(_running(component, postmaster_on(_directory(component))))
        with bridged(component, door, self._login(component.ref.name), session) as opened:
            yield opened

    def complete(self, component: Component, *, good: bool) -> None:
        """Nothing: what is kept of the log changes by `advance_log`."""

    def rewrite(
        self, component: Component, trees: Mapping[str, str], expected: Facts, known: Sequence[Facts], session: str
    ) -> Facts:
        """Make a clone ready to recover onto a timeline of its own; see `_postgresql/rewrite.py`."""
        return rewrite.rewrite(component, trees, expected, known)

    def reach(
        self, record: ComponentRecord, sources: Sequence[LogSource], target: RecoveryTarget, now: datetime
    ) -> Reach:
        """Walk the segments, and read what happened; see `_postgresql/roll.py`."""
        return rolling.reach(record, sources, target, now)

    def horizon(self, record: ComponentRecord, sources: Sequence[LogSource]) -> Reach:
        """Look at the ends of each segment; see `_postgresql/roll.py`."""
        return rolling.horizon(record, sources)

    def losses(self, record: ComponentRecord, sources: Sequence[LogSource], until: str) -> Losses:
        """Read what was dropped, emptied, deleted and changed; see `_postgresql/losses.py`."""
        return finding.find(record, sources, until)

    def name_losses(self, clone: Clone, losses: Losses) -> Sequence[Loss]:
        """Look its numbers up in the clone's catalogs; see `_postgresql/lossnames.py`."""
        return lossnames.name(losses.evidence, clones.catalog(clone, self._login(clone.component.ref.name)))

    def taken(self, record: ComponentRecord, sources: Sequence[LogSource]) -> Facts:
        """Look for histories; see `_postgresql/roll.py`."""
        return rolling.taken(record, sources)

    def forgive(self, record: ComponentRecord, trees: Mapping[str, str], sources: Sequence[LogSource]) -> None:
        """Compare with the archive what waits to be archived; see `_postgresql/pending.py`."""
        rolling.forgive(record, trees, sources)

    def roll(
        self, record: ComponentRecord, trees: Mapping[str, str], sources: Sequence[LogSource], target: RecoveryTarget,
        now: datetime, before: Facts,
    ) -> Facts:  # fmt: skip
        """Lay segments and target into the clone; see `_postgresql/roll.py`."""
        return rolling.roll(record, trees, sources, target, now, before)

    def since(self, component: Component, expected: Facts) -> Facts:
        """Compare positions in the log; see `_postgresql/since.py`."""
        return measured.since(component, self._login(component.ref.name), expected)

    def check_log(self, component: Component, keeping: LogKeeping) -> Sequence[Finding]:
        """Ask for rights, free slots and the bound; or for archiving; see `slot.py` and `archiving.py`."""
        check = slot.check if keeping.archive is None else archiving.check
        return check(component, self._login(component.ref.name), keeping)

    def keep_log_effect(self, component: Component, keeping: LogKeeping) -> slot.KeepLog | None:
        """Plan a physical slot."""
        if keeping.archive is not None:
            return None
        return slot.plan(component, self._login(component.ref.name), keeping)

    def advance_log(self, component: Component, keeping: LogKeeping, expected: Facts) -> None:
        """Advance the slot to where a recovery of the replica begins to read."""
        if keeping.archive is None:
            slot.advance(component, self._login(component.ref.name), keeping, expected)

    def drop_logs(self, component: Component, owner: str, wanted: Collection[str]) -> Mapping[str, str]:
        """Drop slots of ours that nobody wants any more."""
        return slot.drop_others(component, self._login(component.ref.name), owner, wanted)

    def stop_effect(self, component: Component) -> StopPostgresql:
        """Plan to stop the server."""
        return StopPostgresql(**control_fields(component.ref.name, component.facts), was_running=component.running)

    def start_effect(self, component: Component) -> StartPostgresql:
        """Plan to start the server on whatever lies in its place then."""
        return StartPostgresql(**control_fields(component.ref.name, component.facts))

    def settle_effect(self, component: Component) -> SettlePostgresql:
        """Plan to remove the recovery's settings from the recovered server."""
        return SettlePostgresql(component.ref.name, _directory(component))

    def confirm(self, component: Component, expected: Facts, *, timeout_s: float) -> Facts:
        """Wait until the server has recovered, and prove it; see `_postgresql/confirm.py`."""
        control = Control(**control_fields(component.ref.name, component.facts))
        find = partial(postmaster_on, control.data_directory)
        subject = Subject(control.caption, f"{control.data_directory}/pg_wal", control.log_file, find)
        login = self._login(component.ref.name)
        try:
            return confirm(subject, login, expected, timeout_s=timeout_s)
        except RightsError as e:
            refused = e
        if login != Credentials():
            with suppress(RightsError):  # root may be its owner
                return confirm(subject, Credentials(), expected, timeout_s=timeout_s)
        return confirm_by_files(subject, _directory(component), expected, timeout_s=timeout_s, refused=refused)

    @contextmanager
    def probe(self, component: Component) -> Iterator[Probe]:
        """A connection that asks for a number."""
        server = postmaster_on(_directory(component))
        if server is None:
            raise SlackwaterError(f"{component.ref} does not run.", data="Nothing was changed.", code="gone")
        with connected(door_of(server), self._login(component.ref.name), deadline_s=_CHECKPOINT_S) as connection:

            def ask() -> None:
                connection.execute("select 1").fetchone()

            yield ask

    def start_clone(self, clone: Clone, expected: Facts, *, timeout_s: float) -> Facts:
        """Start a server on the clones and prove that it recovered; see `_postgresql/clone.py`."""
        return clones.start(clone, self._login(clone.component.ref.name), expected, timeout_s=timeout_s)

    def check_clone(self, clone: Clone, question: Question | None) -> Facts:
        """Read all of it: pg_amcheck, the question, and with the server stopped pg_checksums."""
        return clones.check(clone, self._login(clone.component.ref.name), question)

    def stop_clone(self, clone: Clone) -> None:
        """Stop the server on the clones."""
        clones.stop(clone)

    def _login(self, name: str) -> Credentials:
        return self._handling.get(name, Handling()).credentials


def _directory(component: Component) -> str:
    return str(component.facts["data_directory"])


def _running(component: Component, server: Postmaster | None) -> Postmaster:
    if server is None:
        raise SlackwaterError(
            f"{component.ref} was stopped meanwhile.",
            data="Nothing was changed.",
            hint="Start it, or run it again.",
        )
    return server
