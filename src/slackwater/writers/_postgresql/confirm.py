# SPDX-License-Identifier: Apache-2.0
"""The proof that a server has recovered. That it was started, or lets somebody in, proves nothing."""

import time
from typing import TYPE_CHECKING

from slackwater.errors import RightsError, SlackwaterError
from slackwater.model.component import Credentials
from slackwater.model.facts import Fact, Facts
from slackwater.writers._postgresql.connect import Door, connected
from slackwater.writers._postgresql.control import Control, last_words
from slackwater.writers._postgresql.controlfile import format_lsn, parse_lsn
from slackwater.writers._postgresql.find import Postmaster, postmaster_on

if TYPE_CHECKING:
    from slackwater.writers._postgresql.connect import Connection

_POLL_S = 0.05
#: How long the comparison and one commit may take on a busy disk.
_PROOF_S = 30.0


def door_of(server: Postmaster) -> Door:
    """Where to knock for a server that was found."""
    return Door(server.pid, server.lock.socket_directory, server.lock.port, server.uid, server.gid)


def confirm(control: Control, credentials: Credentials, expected: Facts, *, timeout_s: float) -> Facts:
    """Wait for the end of recovery, then compare and commit; see the contract.

    Returns: `lsn` (where the recovered history begins its new life), `timeline`, `pid`, `recovered_ms` (from this
        call until it was out of recovery).
    """
    began_s = time.monotonic()
    server = _server(control)
    while not _out_of_recovery(control, credentials, server.pid):
        if time.monotonic() - began_s >= timeout_s:
            raise _error(control, f"is still in recovery after {timeout_s:g} s", "recovering")
        time.sleep(_POLL_S)
    recovered_ms = round((time.monotonic() - began_s) * 1000, 3)
    with connected(door_of(_server(control)), credentials, deadline_s=_PROOF_S) as connection:
        _compare(control, "system identifier", _one(connection, _SYSTEM), expected.get("system_identifier"))
        timeline = int(_one(connection, "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), 16)
        _check_timeline(control, timeline, expected)
        lsn = _reached(control, connection, timeline, expected)
        _check_lsn(control, lsn, expected)
        _commit(control, connection)
    if _server(control).pid != server.pid:
        raise _error(control, "was replaced by another process while it was looked at", "restarted")
    return {"lsn": lsn, "timeline": timeline, "pid": server.pid, "recovered_ms": recovered_ms}


_SYSTEM = "select system_identifier::text from pg_control_system()"


def _out_of_recovery(control: Control, credentials: Credentials, pid: int) -> bool:
    server = _server(control)
    if server.pid != pid:
        raise _error(control, "ended and was started again by somebody else", "restarted")
    if server.lock.status in {"", "starting"}:
        return False
    try:
        with connected(door_of(server), credentials) as connection:
            return _one(connection, "select pg_is_in_recovery()::text") == "false"
    except RightsError:
        raise
    except SlackwaterError:
        return False  # not yet, or gone: the next look at the process tells


def _reached(control: Control, connection: "Connection", timeline: int, expected: Facts) -> str:
    """Where recovery ended. The position now is past that: recovery writes records of its own."""
    if expected.get("timeline_switch"):
        path = f"{control.data_directory}/pg_wal/{timeline:08X}.history"
        try:
            with open(path, encoding="utf-8", errors="replace") as f:
                lines = [line.split("\t") for line in f if line.strip() and not line.startswith("#")]
            return format_lsn(parse_lsn(lines[-1][1].strip()))
        except (OSError, IndexError, ValueError) as e:
            raise _error(control, f"does not tell where its timeline {timeline} began ({path})", "no-history") from e
    return _one(connection, "select pg_current_wal_lsn()::text")


def _check_timeline(control: Control, timeline: int, expected: Facts) -> None:
    wanted = expected.get("timeline")
    if not isinstance(wanted, int):
        return
    exact = expected.get("timeline_exact", True)
    if timeline < wanted or (exact and timeline != wanted):
        raise _error(control, f"came up on timeline {timeline}, and {wanted} was expected", "wrong-timeline")


def _check_lsn(control: Control, lsn: str, expected: Facts) -> None:
    wanted = expected.get("lsn")
    if isinstance(wanted, str) and wanted and parse_lsn(lsn) < parse_lsn(wanted):
        short = parse_lsn(wanted) - parse_lsn(lsn)
        raise _error(
            control,
            f"recovered only up to {format_lsn(parse_lsn(lsn))}, {short} bytes short of {wanted}: "
            "commits that were acknowledged before the backup are missing",
            "short",
        )


def _commit(control: Control, connection: "Connection") -> None:
    """Commit one transaction that really writes to the log, and ask what became of it."""
    with connection.transaction():
        connection.execute("set transaction read write")
        # Local: a standby that is not there must not keep the proof waiting.
        connection.execute("set local synchronous_commit = 'local'")
        number = _one(connection, "select pg_current_xact_id()::text")
        connection.execute("select pg_logical_emit_message(true, 'slackwater', 'recovered')")
    status = _one(connection, f"select pg_xact_status('{int(number)}'::xid8)")
    if status != "committed":
        raise _error(control, f"did not commit a test transaction: it is {status}", "no-commit")


def _compare(control: Control, what: str, found: str, wanted: Fact) -> None:
    if wanted and str(wanted) != found:
        raise _error(control, f"has the {what} {found}, and {wanted} was expected", "other-cluster")


def _server(control: Control) -> Postmaster:
    server = postmaster_on(control.data_directory)
    if server is None:
        raise _error(control, "does not run", "gone")
    return server


def _one(connection: "Connection", query: str) -> str:
    row = connection.execute(query.encode()).fetchone()
    return str(row[0]) if row else ""


def _error(control: Control, what: str, code: str) -> SlackwaterError:
    words = last_words(control.log_file)
    return SlackwaterError(
        f"PostgreSQL {control.caption} {what}.",
        data="It is not recovered as it was promised.",
        hint=f"Its log says: {words}" if words else f"Look at {control.log_file or 'its log'}.",
        code=code,
    )
