# SPDX-License-Identifier: Apache-2.0
"""The proof that a server has recovered. That it was started, or lets somebody in, proves nothing."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slackwater.errors import RightsError, SlackwaterError
from slackwater.model.component import Credentials
from slackwater.model.facts import Fact, Facts
from slackwater.writers._postgresql.connect import Door, connected
from slackwater.writers._postgresql.control import last_words
from slackwater.writers._postgresql.controlfile import format_lsn, parse_lsn, read_control_file
from slackwater.writers._postgresql.find import Postmaster
from slackwater.writers._postgresql.rewrite import recovering

if TYPE_CHECKING:
    from slackwater.writers._postgresql.connect import Connection

_POLL_S = 0.05
#: How long the comparison and one commit may take on a busy disk.
_PROOF_S = 30.0


@dataclass(frozen=True, slots=True)
class Subject:
    """The server that is to be proven: the application's own, or one on a clone."""

    caption: str
    log_directory: str
    """Where its pg_wal can be read from here."""
    log_file: str
    find: Callable[[], Postmaster | None]
    """Looks for it anew."""


def door_of(server: Postmaster) -> Door:
    """Where to knock for a server that was found."""
    return Door(server.pid, server.lock.socket_directory, server.lock.port, server.uid, server.gid)


def confirm(subject: Subject, credentials: Credentials, expected: Facts, *, timeout_s: float) -> Facts:
    """Wait for the end of recovery, then compare and commit; see the contract.

    Returns: `lsn` (where the recovered history begins its new life), `timeline`, `pid`, `recovered_ms` (from this
        call until it was out of recovery), `last_commit` (when the last transaction committed that was replayed; UTC).
    """
    began_s = time.monotonic()
    server = _server(subject)
    while not _out_of_recovery(subject, credentials, server.pid):
        if time.monotonic() - began_s >= timeout_s:
            raise _error(subject, f"is still in recovery after {timeout_s:g} s", "recovering")
        time.sleep(_POLL_S)
    recovered_ms = round((time.monotonic() - began_s) * 1000, 3)
    with connected(door_of(_server(subject)), credentials, deadline_s=_PROOF_S) as connection:
        _compare(subject, "system identifier", _one(connection, _SYSTEM), expected.get("system_identifier"))
        timeline = int(_one(connection, "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"), 16)
        _check_timeline(subject, timeline, expected)
        lsn = _reached(subject, connection, timeline, expected)
        _check_lsn(subject, lsn, expected)
        last = _one(connection, _LAST_COMMIT)
        _commit(subject, connection)
    if _server(subject).pid != server.pid:
        raise _error(subject, "was replaced by another process while it was looked at", "restarted")
    return {
        "lsn": lsn, "timeline": timeline, "pid": server.pid, "recovered_ms": recovered_ms,
        **({"last_commit": last} if last else {}),
    }  # fmt: skip


def confirm_by_files(
    subject: Subject, data_directory: str, expected: Facts, *, timeout_s: float, refused: SlackwaterError
) -> Facts:
    """Prove as much as a server that lets nobody in writes into its files: a password must not undo a good recovery.

    Returns: as `confirm`, and `unproven`, a sentence.
    """
    began_s, server = time.monotonic(), _server(subject)
    while recovering(data_directory) or _server(subject).lock.status != "ready":
        if time.monotonic() - began_s >= timeout_s:
            raise _error(subject, f"is still in recovery after {timeout_s:g} s", "recovering")
        time.sleep(_POLL_S)
    recovered_ms = round((time.monotonic() - began_s) * 1000, 3)
    found = read_control_file(data_directory)
    _compare(subject, "system identifier", found.system_identifier, expected.get("system_identifier"))
    _check_timeline(subject, found.timeline, expected)
    lsn = _began(subject, found.timeline) if expected.get("timeline_switch") else found.checkpoint_lsn
    _check_lsn(subject, lsn, expected)
    if _server(subject).pid != server.pid:
        raise _error(subject, "was replaced by another process while it was looked at", "restarted")
    unproven = f"{refused.sentence} That it has recovered was seen in its files; no transaction was tried."
    return {
        "lsn": lsn, "timeline": found.timeline, "pid": server.pid, "recovered_ms": recovered_ms, "unproven": unproven,
    }  # fmt: skip


#: It stays what it was when recovery has ended ("Recovery Information Functions"); null after a recovery from a crash.
_LAST_COMMIT = (
    "select coalesce(to_char(pg_last_xact_replay_timestamp() at time zone 'UTC',"
    " 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), '')"
)
_SYSTEM = "select system_identifier::text from pg_control_system()"


def _out_of_recovery(subject: Subject, credentials: Credentials, pid: int) -> bool:
    server = _server(subject)
    if server.pid != pid:
        raise _error(subject, "ended and was started again by somebody else", "restarted")
    if server.lock.status in {"", "starting"}:
        return False
    try:
        with connected(door_of(server), credentials) as connection:
            return _one(connection, "select pg_is_in_recovery()::text") == "false"
    except RightsError:
        raise
    except SlackwaterError:
        return False  # not yet, or gone: the next look at the process tells


def _reached(subject: Subject, connection: "Connection", timeline: int, expected: Facts) -> str:
    """Where recovery ended. The position now is past that: recovery writes records of its own."""
    if expected.get("timeline_switch"):
        return _began(subject, timeline)
    return _one(connection, "select pg_current_wal_lsn()::text")


def _began(subject: Subject, timeline: int) -> str:
    path = f"{subject.log_directory}/{timeline:08X}.history"
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            lines = [line.split("\t") for line in f if line.strip() and not line.startswith("#")]
        return format_lsn(parse_lsn(lines[-1][1].strip()))
    except (OSError, IndexError, ValueError) as e:
        raise _error(subject, f"does not tell where its timeline {timeline} began ({path})", "no-history") from e


def _check_timeline(subject: Subject, timeline: int, expected: Facts) -> None:
    wanted = expected.get("timeline")
    if not isinstance(wanted, int):
        return
    exact = expected.get("timeline_exact", True)
    if timeline < wanted or (exact and timeline != wanted):
        raise _error(subject, f"came up on timeline {timeline}, and {wanted} was expected", "wrong-timeline")


def _check_lsn(subject: Subject, lsn: str, expected: Facts) -> None:
    wanted = expected.get("lsn")
    if isinstance(wanted, str) and wanted and parse_lsn(lsn) < parse_lsn(wanted):
        short = parse_lsn(wanted) - parse_lsn(lsn)
        raise _error(
            subject,
            f"recovered only up to {format_lsn(parse_lsn(lsn))}, {short} bytes short of {wanted}: "
            "commits that were acknowledged before the backup are missing",
            "short",
        )
    beyond = expected.get("not_beyond")
    if isinstance(beyond, str) and parse_lsn(lsn) > parse_lsn(beyond):
        raise _error(subject, f"recovered up to {lsn}, beyond {beyond}: what was to be left out happened", "beyond")


def _commit(subject: Subject, connection: "Connection") -> None:
    """Commit one transaction that really writes to the log, and ask what became of it."""
    with connection.transaction():
        connection.execute("set transaction read write")
        # Local: a standby that is not there must not keep the proof waiting.
        connection.execute("set local synchronous_commit = 'local'")
        number = _one(connection, "select pg_current_xact_id()::text")
        connection.execute("select pg_logical_emit_message(true, 'slackwater', 'recovered')")
    status = _one(connection, f"select pg_xact_status('{int(number)}'::xid8)")
    if status != "committed":
        raise _error(subject, f"did not commit a test transaction: it is {status}", "no-commit")


def _compare(subject: Subject, what: str, found: str, wanted: Fact) -> None:
    if wanted and str(wanted) != found:
        raise _error(subject, f"has the {what} {found}, and {wanted} was expected", "other-cluster")


def _server(subject: Subject) -> Postmaster:
    server = subject.find()
    if server is None:
        raise _error(subject, "does not run", "gone")
    return server


def _one(connection: "Connection", query: str) -> str:
    row = connection.execute(query.encode()).fetchone()
    return str(row[0]) if row else ""


def _error(subject: Subject, what: str, code: str) -> SlackwaterError:
    words = last_words(subject.log_file)
    return SlackwaterError(
        f"PostgreSQL {subject.caption} {what}.",
        data="It is not recovered as it was promised.",
        hint=f"Its log says: {words}" if words else f"Look at {subject.log_file or 'its log'}.",
        code=code,
    )
