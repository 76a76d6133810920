# SPDX-License-Identifier: Apache-2.0
"""The log bridge: files copied one after the other, and the log from before the first copy to after the last.

PostgreSQL's own way of copying a running server ("Making a Base Backup Using the Low Level API"), with two stages of
snapshots in the place of the copying. A backup label says where recovery has to begin; without it the engine believes
the copied pg_control, whose checkpoint may be later than some of the files, and corrupts what it recovers. Until the
label's end is copied too, the engine refuses ("WAL ends before end of online backup").

A temporary replication slot keeps the log from the first copy on. Slot and backup belong to one connection: both end
with it, whatever becomes of us.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component, Credentials
from slackwater.model.facts import Facts
from slackwater.writers._postgresql import segments
from slackwater.writers._postgresql.connect import Door, connected, explained
from slackwater.writers._postgresql.controlfile import parse_lsn, read_control_file
from slackwater.writers._postgresql.files import data_of, log_of
from slackwater.writers._postgresql.segments import Stretch

if TYPE_CHECKING:
    from slackwater.writers._postgresql.connect import Connection

#: The connection's whole life: a checkpoint at the beginning writes all that is in memory, and nobody waits for it.
_OPEN_S = 6 * 3600.0
#: The end of a backup writes one record, switches to the next segment, and waits for the disk.
_CLOSE_S = 60.0
_TABLESPACES = "select oid::text from pg_tablespace where pg_tablespace_location(oid) like '/%'"
_SLOT = "slackwater_"
#: What the names of slots begin with that keep the log for a specification, see `slot.py`.
KEPT_LOG = f"{_SLOT}log_"
_LABEL = "slackwater "
_NOTHING_KEPT = "The server goes on, and nothing was kept."


@dataclass
class LogBridge:
    """A backup that the server knows of, and the connection that it lives on."""

    component: Component
    connection: "Connection"
    door: Door
    segment_bytes: int
    facts: Facts | None = None
    """What `close` returned."""

    def close(self) -> Facts:
        """End the backup; see the contract.

        Returns: `lsn` (its end), `backup_label`, `tablespace_map`, `start_segment`, `stop_segment`, `timeline`, and
            `by_hand`.
        """
        with explained(self.door, _CLOSE_S):
            row = self.connection.execute(
                "select lsn::text, labelfile, spcmapfile from pg_backup_stop(wait_for_archive => false)"
            ).fetchone()
            # The label is gone from the server now: kept before anything else may fail.
            lsn, label, spaces = row or ("0/0", "", "")
            self.facts = _facts(self.component, lsn, label, spaces, self.segment_bytes)
            rows = self.connection.execute(_TABLESPACES).fetchall()
        _same_tablespaces(self.component, {f"pg_tblspc/{oid}" for (oid,) in rows})
        return self.facts

    def prove(self, trees: Mapping[str, str]) -> None:
        """Check the copied control file, and every page of the log from start to end; see the contract."""
        facts = self.facts or {}
        why = _control_trouble(self.component, facts, trees[data_of(self.component.files)]) or _log_trouble(
            self.component, facts, log_of(self.component.files, trees), self.segment_bytes
        )
        if why:
            raise SlackwaterError(
                f"The copies of {self.component.ref} cannot be recovered from: {why}.",
                data=_NOTHING_KEPT,
                hint="Run it again. If it stays so, look at max_slot_wal_keep_size: it bounds the log that is kept.",
                code="log-incomplete",
            )


@contextlib.contextmanager
def bridged(component: Component, door: Door, credentials: Credentials, session: str) -> Iterator[LogBridge]:
    """Keep the log, and begin a backup with a checkpoint; leaving the context ends whatever of it is left.

    Raises:
        RightsError, SlackwaterError: see `connect.connected`.
    """
    with connected(door, credentials, deadline_s=_OPEN_S) as connection:
        slot = _SLOT + re.sub(r"[^a-z0-9_]", "_", session.lower())
        connection.execute("select pg_create_physical_replication_slot(%s, true, true)", [slot[:63]])
        ((size,),) = connection.execute(
            "select setting::int from pg_settings where name = 'wal_segment_size'"
        ).fetchall()
        connection.execute("select pg_backup_start(%s, true)", [_LABEL + session])
        connection.execute(f"set statement_timeout = '{_CLOSE_S:g}s'".encode())
        yield LogBridge(component, connection, door, size)


def is_ours(label: str) -> bool:
    """Whether the text of a backup label is one that a bridge made."""
    return f"\nLABEL: {_LABEL}" in label


def is_our_slot(name: str) -> bool:
    """Whether a replication slot is one that a bridge made, or one that keeps the log."""
    return name.startswith(_SLOT)


def keeps_log(name: str) -> bool:
    """Whether a slot is one that keeps the log for a specification, of whichever installation."""
    return name.startswith(KEPT_LOG)


def _facts(component: Component, lsn: str, label: str, spaces: str, segment_bytes: int) -> Facts:
    begin = re.search(r"^START WAL LOCATION: (\S+) \(file (\w+)\)$", label, re.MULTILINE)
    timeline = re.search(r"^START TIMELINE: (\d+)$", label, re.MULTILINE)
    if begin is None or timeline is None:
        raise SlackwaterError(
            f"{component.ref} gave no backup label that can be understood.", data=_NOTHING_KEPT, code="no-label"
        )
    number = int(timeline[1])
    return {
        "lsn": lsn,
        "timeline": number,
        "start_lsn": begin[1],
        "start_segment": begin[2],
        "stop_segment": segments.name_of(number, parse_lsn(lsn) - 1, segment_bytes),
        "backup_label": label,
        "tablespace_map": spaces,
        "by_hand": _by_hand(data_of(component.files), label),
    }


def _by_hand(data_directory: str, label: str) -> str:
    """Without the label the engine corrupts what it recovers, and says nothing."""
    path = quote(f"{data_directory}/backup_label")
    lines = " ".join(quote(line) for line in label.splitlines())
    return f"printf '%s\\n' {lines} > {path}\nchown --reference={quote(data_directory)} {path}"


def _same_tablespaces(component: Component, present: set[str]) -> None:
    """A tablespace that came or went meanwhile lies on a volume that is not in the set."""
    planned = {each.via for each in component.files if each.via.startswith("pg_tblspc/")}
    if planned != present:
        raise SlackwaterError(
            f"A tablespace of {component.ref} was created or dropped while it was copied.",
            data=_NOTHING_KEPT, hint="Run it again.", code="tablespaces-changed", retryable=True,
        )  # fmt: skip


def _control_trouble(component: Component, facts: Facts, data: str) -> str:
    """What is wrong with the copied control file; empty when it is one of this server, of the time of the copies."""
    control = read_control_file(data)
    begun = re.search(r"^CHECKPOINT LOCATION: (\S+)$", str(facts.get("backup_label")), re.MULTILINE)
    checkpoint = parse_lsn(control.checkpoint_lsn)
    if not control.intact:
        return "the checksum of its global/pg_control is wrong"
    if control.system_identifier != component.facts.get("system_identifier"):
        return f"its global/pg_control belongs to the cluster {control.system_identifier}"
    if control.shut_down or control.timeline != facts.get("timeline") or begun is None:
        return "its global/pg_control is not that of the running server"
    if not parse_lsn(begun[1]) <= checkpoint < parse_lsn(str(facts["lsn"])):
        return f"its global/pg_control is of {control.checkpoint_lsn}, not of the time of the copies"
    return ""


def _log_trouble(component: Component, facts: Facts, log: str, segment_bytes: int) -> str:
    """What is missing in the copied log between start and end of the backup."""
    stretch = Stretch(
        timeline=int(facts["timeline"] or 0),
        start=parse_lsn(str(facts["start_lsn"])),
        stop=parse_lsn(str(facts["lsn"])),
        segment_bytes=segment_bytes,
        system_identifier=str(component.facts.get("system_identifier")),
    )
    fd = os.open(log, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        missing = segments.hole(fd, stretch)
    finally:
        os.close(fd)
    return f"in its log, {missing}" if missing else ""
