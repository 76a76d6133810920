# SPDX-License-Identifier: Apache-2.0
"""The writer `postgresql`: PostgreSQL 15 to 18.

What an image must satisfy: nothing but one instant over all its files. PostgreSQL recovers from a power cut by its own
log, and an image of one instant is what a power cut leaves ("Reliability and the Write-Ahead Log"), so there is no
lock to take: `freeze` and `thaw` do nothing. Where the files lie on several volumes the plan makes the instant by
freezing the processes.

Servers and all their files are found by asking: the kernel who runs and where, the server for the rest. Logging in
needs nothing on an untouched cluster when we are root. Instead, a role of its own may be named in the settings; this is
all it needs, in every database that holds unlogged tables the last line too (CONNECT is granted to all by default):

    CREATE ROLE slackwater LOGIN;          -- and a password, or a map in pg_ident.conf for peer
    GRANT pg_monitor TO slackwater;        -- to see the settings
    GRANT pg_checkpoint TO slackwater;     -- to make a checkpoint before the window
    GRANT CONNECT ON DATABASE postgres TO slackwater;

A password comes from a file in the format of `.pgpass` (readable by its owner only, `*` in the first two fields since
a socket is no host), from a service file, or from a systemd credential. Socket and port are always those of the server
that was found, and the kernel is asked who listens there before anything is believed.

A recovered server is on a new timeline whose number nobody has used; see `_postgresql/rewrite.py`. Two things come
with that until its next restart: hot_standby shows as `pending_restart`, and its replication slots are gone.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from slackwater.errors import SlackwaterError
from slackwater.journal.effects import Effect
from slackwater.model.component import Component, Credentials
from slackwater.model.facts import Facts
from slackwater.writers._postgresql import debian, describe, rewrite
from slackwater.writers._postgresql.confirm import confirm, door_of
from slackwater.writers._postgresql.connect import connected
from slackwater.writers._postgresql.control import Control, control_fields
from slackwater.writers._postgresql.controlfile import read_control_file
from slackwater.writers._postgresql.effects import SettlePostgresql, StartPostgresql, StopPostgresql
from slackwater.writers._postgresql.find import postmaster_on, postmasters, processes_on

#: A checkpoint writes all that is in memory; nothing waits for it.
_CHECKPOINT_S = 3600.0


class PostgresqlWriter:
    """Speaks for PostgreSQL."""

    name: ClassVar[str] = "postgresql"
    effects: ClassVar[tuple[type[Effect], ...]] = (StopPostgresql, StartPostgresql, SettlePostgresql)

    def __init__(self, credentials: Mapping[str, Credentials] | None = None) -> None:
        self._credentials = dict(credentials or {})

    def identify(self) -> Sequence[Component]:
        """Find every server that runs, and Debian's stopped clusters. Servers are asked side by side."""
        servers = postmasters()
        with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
            found = list(pool.map(lambda each: describe.running(each, self._login(describe.name_of(each))), servers))
        names = {each.ref.name for each in found}
        found += [describe.stopped(each) for each in debian.clusters() if each.name not in names]
        return sorted(found, key=lambda each: each.ref)

    def processes(self, component: Component) -> frozenset[int]:
        """The postmaster and all that stem from it, and orphans it left on the data directory."""
        return processes_on(_directory(component))

    def prepare(self, component: Component) -> Facts:
        """Make a checkpoint, so that recovery is short; then commit a mark to the log and return its position.

        Returns: `lsn`, `timeline`, `system_identifier`. Everything acknowledged before the call is before `lsn`, and
            the log is flushed up to it; a position that the engine has only reserved could lie in a torn record.
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
            }
        if server is None:
            raise SlackwaterError(
                f"{component.ref} was stopped meanwhile.",
                data="Nothing was changed.",
                hint="Start it, or run it again.",
            )
        with connected(door_of(server), self._login(component.ref.name), deadline_s=_CHECKPOINT_S) as connection:
            connection.execute("checkpoint")
            with connection.transaction():
                connection.execute("set local synchronous_commit = 'local'")
                mark = connection.execute(
                    "select pg_logical_emit_message(true, 'slackwater', 'backup')::text"
                ).fetchone()
            row = connection.execute(
                "select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,"
                " system_identifier::text from pg_control_system()"
            ).fetchone()
        if mark is None or row is None:
            raise SlackwaterError(f"{component.ref} does not tell where it stands.", data="Nothing was changed.")
        return {"lsn": mark[0], "timeline": row[0], "system_identifier": row[1]}

    def freeze(self, component: Component) -> None:
        """Nothing: an image of one instant is enough, and the plan makes the instant."""

    def thaw(self, component: Component) -> None:
        """Nothing: there is no lock to give back."""

    def complete(self, component: Component, *, good: bool) -> None:
        """Nothing: the server keeps no log for a replica yet."""

    def rewrite(self, component: Component, trees: Mapping[str, str], known: Sequence[Facts], session: str) -> Facts:
        """Make a clone ready to recover onto a timeline of its own; see `_postgresql/rewrite.py`."""
        return rewrite.rewrite(component, trees, known)

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
        return confirm(control, self._login(component.ref.name), expected, timeout_s=timeout_s)

    def _login(self, name: str) -> Credentials:
        return self._credentials.get(name, Credentials())


def _directory(component: Component) -> str:
    return str(component.facts["data_directory"])
