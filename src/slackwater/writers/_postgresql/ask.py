# SPDX-License-Identifier: Apache-2.0
"""What only the server knows: its settings, where it stands, and what a replica of it would lack."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slackwater.errors import RightsError, SlackwaterError
from slackwater.model.component import Credentials
from slackwater.model.facts import Finding, Severity
from slackwater.writers._postgresql.bridge import is_our_slot
from slackwater.writers._postgresql.connect import PATIENCE_S, Door, connected

if TYPE_CHECKING:
    from slackwater.writers._postgresql.connect import Connection

#: Settings that recovery, the plan or a finding needs. The second half of it the engine compares with the values at
#: the time of the backup when it recovers as a hot standby.
SETTINGS = (
    "data_directory", "config_file", "hba_file", "ident_file", "server_version", "wal_level", "archive_mode",
    "archive_command", "restore_command", "fsync", "full_page_writes", "synchronous_commit", "data_checksums",
    "max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions",
    "max_locks_per_transaction",
)  # fmt: skip
_NAMED = 20
_STANDBYS = (
    "select application_name || ' at ' || coalesce(host(client_addr), 'a socket') from pg_stat_replication"
    " where state <> 'backup' order by 1"
)
_SYNCHRONOUS = "select (count(*) > 0)::text from pg_stat_replication where sync_state in ('sync', 'quorum')"
_SLOTS = "select slot_name || ' (' || slot_type || ')' from pg_replication_slots where not temporary order by 1"


@dataclass(frozen=True, slots=True)
class Answers:
    """What a server said."""

    settings: Mapping[str, str]
    configuration: tuple[str, ...]
    standby: bool
    system_identifier: str
    timeline: int | None
    lossy: tuple[str, ...]
    """Where synchronous_commit is off: `the server`, `database shop`, `role batch`."""
    databases: tuple[str, ...]
    unbridged: str
    """Why the copies of its files cannot be bridged by its log; empty when they can."""
    standbys: tuple[str, ...] = ()
    """Who follows its log now: `name at address`."""
    synchronous: bool = False
    """Whether commits wait for one of them."""
    slots: tuple[str, ...] = ()
    """Its lasting replication slots that are not ours: `name (physical)`."""


def ask(door: Door, credentials: Credentials) -> Answers:
    """Ask a server about itself; at most 5 s.

    Raises:
        RightsError, SlackwaterError: see `connect.connected`; `no-right` when the role may not see the settings.
    """
    with connected(door, credentials) as connection:
        settings = _settings(connection)
        standby, timeline = _standing(connection)
        (system,) = _row(connection, "select system_identifier::text from pg_control_system()")
        return Answers(
            settings=settings,
            configuration=_configuration(connection, settings),
            standby=standby,
            system_identifier=system,
            timeline=timeline,
            lossy=_lossy(connection, settings),
            databases=_column(connection, "select datname from pg_database where datallowconn order by 1"),
            unbridged=_unbridged(connection),
            standbys=_column(connection, _STANDBYS),
            synchronous=_row(connection, _SYNCHRONOUS)[0] == "true",
            slots=tuple(each for each in _column(connection, _SLOTS) if not is_our_slot(each.split(" ")[0])),
        )


def unlogged(door: Door, credentials: Credentials, databases: Sequence[str], *, ends_s: float) -> tuple[Finding, ...]:
    """Name the unlogged tables of each database: the engine empties them when it recovers ("CREATE TABLE").

    A database that cannot be asked before `ends_s` (`time.monotonic()`) is named in a finding instead.
    """
    found: list[Finding] = []
    unseen: list[str] = []
    for database in databases:
        left_s = min(PATIENCE_S, ends_s - time.monotonic())
        try:
            if left_s <= 0.5:
                raise SlackwaterError("no time left")
            with connected(door, credentials, database=database, deadline_s=left_s) as connection:
                found.extend(_unlogged(connection, database))
        except SlackwaterError:
            unseen.append(database)
    if unseen:
        found.append(_unseen(unseen))
    return tuple(found)


def _settings(connection: "Connection") -> dict[str, str]:
    rows = connection.execute(
        "select name, setting from pg_settings where name = any(%s)"
        " and not (name = 'synchronous_commit' and source in ('database', 'user', 'database user'))",
        [list(SETTINGS)],
    ).fetchall()
    settings = {str(name): str(value) for name, value in rows}
    if "data_directory" not in settings:
        raise RightsError(
            "The database role may not see the server's settings.",
            data="Nothing was changed.",
            hint="GRANT pg_monitor TO the role that the settings name.",
            code="no-right",
        )
    return settings


def _configuration(connection: "Connection", settings: Mapping[str, str]) -> tuple[str, ...]:
    """The files named by settings, and every included file that a setting comes from."""
    included = _column(connection, "select distinct sourcefile from pg_settings where sourcefile is not null")
    return tuple({*included, *(settings.get(name, "") for name in ("config_file", "hba_file", "ident_file"))} - {""})


def _standing(connection: "Connection") -> tuple[bool, int | None]:
    (standby,) = _row(connection, "select pg_is_in_recovery()")
    if standby:
        return True, None
    (name,) = _row(connection, "select pg_walfile_name(pg_current_wal_lsn())")
    return False, int(str(name)[:8], 16)


def _unbridged(connection: "Connection") -> str:
    """What a log bridge lacks: it takes a slot that keeps the log, and the two functions that mark a backup in it."""
    level, free, replicates, marks = connection.execute(
        "select current_setting('wal_level'),"
        " current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots),"
        " (select rolsuper or rolreplication from pg_roles where rolname = current_user),"
        " has_function_privilege('pg_backup_start(text, boolean)', 'execute')"
        " and has_function_privilege('pg_backup_stop(boolean)', 'execute')"
    ).fetchall()[0]
    reasons = {
        "wal_level is minimal": level == "minimal",
        "no replication slot is free (max_replication_slots)": int(free) <= 0,
        "the database role lacks the attribute REPLICATION": not replicates,
        "the database role may not execute pg_backup_start and pg_backup_stop": not marks,
    }
    return "; ".join(reason for reason, true in reasons.items() if true)


def _lossy(connection: "Connection", settings: Mapping[str, str]) -> tuple[str, ...]:
    places = ["the server"] if settings.get("synchronous_commit") == "off" else []
    rows = connection.execute(
        "select d.datname, r.rolname from pg_db_role_setting s"
        " left join pg_database d on d.oid = s.setdatabase left join pg_roles r on r.oid = s.setrole"
        " where exists (select from unnest(s.setconfig) c where lower(c) in"
        " ('synchronous_commit=off', 'synchronous_commit=false', 'synchronous_commit=no', 'synchronous_commit=0'))"
        " order by 1, 2"
    ).fetchall()
    for database, role in rows:
        parts = [f"database {database}"] * bool(database) + [f"role {role}"] * bool(role)
        places.append(", ".join(parts) or "all roles")
    return tuple(places)


def _unlogged(connection: "Connection", database: str) -> list[Finding]:
    names = _column(
        connection,
        "select format('%%s.%%s', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where c.relpersistence = 'u' and c.relkind in ('r', 'm') order by 1",
        (),
    )
    if not names:
        return []
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return [
        Finding(
            "unlogged-tables", Severity.WARNING,
            f"{len(names)} unlogged tables of database {database} come back empty after a recovery: {shown}.",
            "ALTER TABLE … SET LOGGED makes a table part of every replica.",
        )
    ]  # fmt: skip


def _unseen(databases: Sequence[str]) -> Finding:
    shown = ", ".join(databases[:_NAMED])
    return Finding(
        "unlogged-unknown", Severity.WARNING,
        f"Unlogged tables, which come back empty, could not be looked for in {len(databases)} databases: {shown}.",
        "GRANT CONNECT on them to the role that the settings name.",
    )  # fmt: skip


def _row(connection: "Connection", query: str) -> tuple[str, ...]:
    row = connection.execute(query.encode()).fetchone()
    if row is None:
        raise SlackwaterError("The server gave no answer where it must.", code="server-error")
    return row


def _column(connection: "Connection", query: str, parameters: tuple[str, ...] | None = None) -> tuple[str, ...]:
    return tuple(str(row[0]) for row in connection.execute(query.encode(), parameters).fetchall())
