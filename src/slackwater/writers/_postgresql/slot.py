# SPDX-License-Identifier: Apache-2.0
"""The log that is kept on purpose: a physical slot of ours, from the newest replica on, and never more than a bound.

"Replication Slots" and `max_slot_wal_keep_size` in PostgreSQL's documentation: at a checkpoint the engine itself lets
go of what a slot keeps beyond the bound, and the slot is lost then (`wal_status`); nobody is asked, and nobody waits.
The bound is the administrator's to set, since it counts for everybody's slots: one that is not there is refused.
"""

import os
import re
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from slackwater.model.component import Component, Credentials
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.plan import LogKeeping
from slackwater.model.quantities import format_bytes
from slackwater.writers._postgresql.archiving import archives_again
from slackwater.writers._postgresql.bridge import KEPT_LOG
from slackwater.writers._postgresql.confirm import door_of
from slackwater.writers._postgresql.connect import connected
from slackwater.writers._postgresql.controlfile import parse_lsn
from slackwater.writers._postgresql.find import postmaster_on

if TYPE_CHECKING:
    from slackwater.writers._postgresql.connect import Connection

_OWNER_CHARACTERS, _NAME_CHARACTERS = 8, 63
_MIB = 1 << 20
_LOST = "lost"
_BOUND = "max_slot_wal_keep_size"


def name_of(keeping: LogKeeping) -> str:
    """The slot of a specification: of letters that an engine allows, and of no other specification."""
    plain = re.sub(r"[^a-z0-9_]", "_", keeping.specification.lower())
    name = _ours(keeping.owner) + plain
    if plain == keeping.specification and len(name) <= _NAME_CHARACTERS:
        return name
    mark = f"_{zlib.crc32(keeping.specification.encode()):08x}"
    return name[: _NAME_CHARACTERS - len(mark)] + mark


def _ours(owner: str) -> str:
    return f"{KEPT_LOG}{re.sub(r'[^a-z0-9]', '', owner.lower())[:_OWNER_CHARACTERS]}_"


@dataclass(frozen=True, slots=True)
class KeepLog:
    """Keep a server's log by a slot. Undone by dropping it, if it was not there when this was planned."""

    kind: ClassVar[str] = "postgresql.keep-log"
    caption: str
    data_directory: str
    slot: str
    made: bool
    """Whether this makes the slot, or makes anew one that was lost."""
    user: str = ""
    service: str = ""
    password_file: str = ""

    def describe(self) -> str:
        """Say what making it does."""
        return f"keep the log of PostgreSQL {self.caption} by the slot {self.slot}"

    def make(self) -> Facts:
        """Make the slot; one that was lost is dropped before. There already: nothing.

        Raises:
            SlackwaterError: the server is stopped, or refuses; see `connect.connected`.
        """
        server = postmaster_on(self.data_directory)
        if server is None:
            return {}  # `prepare` says that it was stopped meanwhile
        with connected(door_of(server), self._credentials) as connection:
            state = _state(connection, self.slot)
            if state == _LOST:
                _drop(connection, self.slot)
            if state in ("", _LOST):
                connection.execute("select pg_create_physical_replication_slot(%s, true)", [self.slot])
        return {}

    def undo(self) -> None:
        """Drop it. On a server that is stopped it stays: it is bounded, and the next backup goes on with it."""
        server = postmaster_on(self.data_directory) if self.made else None
        if server is not None:
            with connected(door_of(server), self._credentials) as connection:
                _drop(connection, self.slot)

    @property
    def _credentials(self) -> Credentials:
        return Credentials(self.user, self.service, self.password_file)


def plan(component: Component, login: Credentials, keeping: LogKeeping) -> KeepLog | None:
    """Plan to keep the log of a server that runs; None for one that does not. Reads only."""
    directory, name = str(component.facts["data_directory"]), name_of(keeping)
    server = postmaster_on(directory)
    if server is None:
        return None
    with connected(door_of(server), login) as connection:
        state = _state(connection, name)
    return KeepLog(
        component.ref.name, directory, name, state in ("", _LOST), login.user, login.service, login.password_file
    )


def check(component: Component, login: Credentials, keeping: LogKeeping) -> list[Finding]:
    """What stands against keeping the log, and what was lost of it. Reads only."""
    server = postmaster_on(str(component.facts["data_directory"]))
    if server is None:
        return [Finding(
            "no-log-kept", Severity.NOTE,
            f"{component.ref} is stopped: its log is kept from the next backup on for which it runs.",
        )]  # fmt: skip
    name = name_of(keeping)
    with connected(door_of(server), login) as connection:
        state = _state(connection, name)
        ((level, archives, free, replicates, bound_mib, segment_bytes),) = connection.execute(
            "select current_setting('wal_level'), current_setting('archive_mode'),"
            " current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots),"
            " (select rolsuper or rolreplication from pg_roles where rolname = current_user),"
            " (select setting::bigint from pg_settings where name = 'max_slot_wal_keep_size'),"
            " (select setting::bigint from pg_settings where name = 'wal_segment_size')"
        ).fetchall()
    found = []
    if level == "minimal":
        found.append(_refusal(
            "wal-level", f"{component.ref} writes too little into its log to keep it: wal_level is minimal.",
            "Set wal_level = replica in postgresql.conf, and restart it.",
        ))  # fmt: skip
    if archives == "always":
        found.append(archives_again(component.ref))
    if not state and int(free) <= 0:
        found.append(_refusal(
            "no-slot", f"{component.ref} has no replication slot free for its log.",
            "Raise max_replication_slots in postgresql.conf, and restart it.",
        ))  # fmt: skip
    if not replicates:
        found.append(_refusal(
            "no-replication", f"The database role may not keep the log of {component.ref}.",
            "ALTER ROLE … REPLICATION, for the role that the specification names.",
        ))  # fmt: skip
    found += _unbounded(component, int(bound_mib) * _MIB, keeping, int(segment_bytes))
    found += _no_room(component, str(component.facts["data_directory"]), keeping)
    if state == _LOST:
        found.append(Finding(
            "log-lost", Severity.WARNING,
            f"More log was written to {component.ref} since its newest replica than it may keep"
            f" ({format_bytes(int(bound_mib) * _MIB)}): some of it is gone, and is kept again from this backup on.",
            "Back it up more often, or raise logs_max and max_slot_wal_keep_size.",
        ))  # fmt: skip
    return found


def _unbounded(component: Component, bound_bytes: int, keeping: LogKeeping, segment_bytes: int) -> list[Finding]:
    """The engine's own bound has to be there: nobody else is awake when it is needed."""
    if 0 <= bound_bytes <= keeping.max_bytes:
        return []
    mib = max(keeping.max_bytes, segment_bytes) // _MIB
    said = "is not bounded" if bound_bytes < 0 else f"is bounded at {format_bytes(bound_bytes)}"
    return [_refusal(
        "log-unbounded",
        f"What slots keep of the log of {component.ref} {said}, and logs_max is {format_bytes(keeping.max_bytes)}:"
        " only the server itself can keep to that.",
        f"ALTER SYSTEM SET max_slot_wal_keep_size = '{mib}MB'; SELECT pg_reload_conf(); it counts for every slot.",
    )]  # fmt: skip


def _no_room(component: Component, directory: str, keeping: LogKeeping) -> list[Finding]:
    """A log that fills its volume stops the server."""
    if keeping.max_bytes <= (there := _room(directory)):
        return []
    return [_refusal(
        "log-room",
        f"The log of {component.ref} may grow to {format_bytes(keeping.max_bytes)} (logs_max), and its volume has room"
        f" for {format_bytes(there)}: it could fill.",
        "Lower logs_max and max_slot_wal_keep_size, or make room.",
    )]  # fmt: skip


def _room(directory: str) -> int:
    """How large a cluster's log may become before its volume is full, in bytes."""
    log = os.path.realpath(f"{directory}/pg_wal")
    room = os.statvfs(log)
    there = 0
    with os.scandir(log) as entries:
        for each in entries:
            with suppress(FileNotFoundError):  # a checkpoint takes some away
                there += each.stat(follow_symlinks=False).st_size if each.is_file(follow_symlinks=False) else 0
    return room.f_bavail * room.f_frsize + there


def advance(component: Component, login: Credentials, keeping: LogKeeping, expected: Facts) -> None:
    """Let the log before a replica go; the replica's own log has it. Gone already, or no slot: nothing.

    A slot goes back to where the last checkpoint found it when the server crashes, which keeps more and loses nothing.
    """
    server = postmaster_on(str(component.facts["data_directory"]))
    position = str(expected.get("log_from") or "")
    if server is None or not position:
        return
    with connected(door_of(server), login) as connection:
        row = connection.execute(
            "select restart_lsn::text, wal_status from pg_replication_slots where slot_name = %s", [name_of(keeping)]
        ).fetchone()
        if row is not None and row[0] and row[1] != _LOST and parse_lsn(row[0]) < parse_lsn(position):
            connection.execute("select pg_replication_slot_advance(%s, %s::pg_lsn)", [name_of(keeping), position])


def drop_others(component: Component, login: Credentials, owner: str, wanted: Collection[str]) -> Mapping[str, str]:
    """Drop each slot of this installation's that keeps the log for none of the `wanted` specifications.

    Where the bound is gone that was there when they were made, or the room for it, all of them: the log would fill its
    volume, and stop the server.

    Returns: their names, each with why.
    """
    directory = str(component.facts["data_directory"])
    keep = {name_of(LogKeeping(each, max_bytes=0, owner=owner)) for each in wanted}
    try:
        there = [name for name in sorted(os.listdir(f"{directory}/pg_replslot")) if name.startswith(_ours(owner))]
    except OSError:
        return {}
    server = postmaster_on(directory) if there else None
    if server is None:
        return {}
    with connected(door_of(server), login) as connection:
        bound = "select setting::bigint from pg_settings where name = %s"
        ((mib,),) = connection.execute(bound, [_BOUND]).fetchall()
        why = f"{_BOUND} does not bound it" if mib < 0 else ""
        if mib * _MIB > _room(directory):
            why = f"its volume has no room for as much as {_BOUND} allows"
        going = {name: why or "nobody asks for it" for name in there if why or name not in keep}
        for name in going:
            _drop(connection, name)
    return going


def _state(connection: "Connection", name: str) -> str:
    """What the engine says of a slot (`reserved`, `extended`, `unreserved`, `lost`); empty for none."""
    row = connection.execute(
        "select coalesce(wal_status, 'unreserved') from pg_replication_slots where slot_name = %s", [name]
    ).fetchone()
    return str(row[0]) if row else ""


def _drop(connection: "Connection", name: str) -> None:
    connection.execute(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", [name]
    )


def _refusal(code: str, sentence: str, hint: str) -> Finding:
    return Finding(code, Severity.REFUSAL, sentence, hint)
