# SPDX-License-Identifier: Apache-2.0
"""How far a server has gone on from a replica: in bytes of its log, and in transactions that wrote."""

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component, Credentials
from slackwater.model.facts import Fact, Facts
from slackwater.writers._postgresql import history
from slackwater.writers._postgresql.confirm import door_of
from slackwater.writers._postgresql.connect import connected
from slackwater.writers._postgresql.controlfile import parse_lsn, read_control_file
from slackwater.writers._postgresql.find import postmaster_on

_STANDING = (
    "select pg_current_wal_lsn()::text, ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int,"
    " pg_snapshot_xmax(pg_current_snapshot())::text"
)


def since(component: Component, login: Credentials, expected: Facts) -> Facts:
    """Compare where a server stands with where it stood; see the contract.

    Every transaction that writes takes a number, and so does each of its subtransactions: the count is a most.

    Returns: `bytes` and `transactions`; nothing when its history does not go through the replica.

    Raises:
        SlackwaterError: it cannot be asked.
    """
    directory, position = str(component.facts["data_directory"]), str(expected.get("lsn") or "")
    timeline, number = expected.get("timeline"), str(expected.get("next_xid") or "")
    if not position or not isinstance(timeline, int):
        return {}
    lsn, on, now = _standing(component, login, directory)
    if not _stems(directory, timeline, parse_lsn(position), on):
        return {}
    found: dict[str, Fact] = {"bytes": max(0, parse_lsn(lsn) - parse_lsn(position))}
    return found | ({"transactions": max(0, int(now) - int(number))} if now and number else {})


def _standing(component: Component, login: Credentials, directory: str) -> tuple[str, int, str]:
    server = postmaster_on(directory)
    if server is None:
        control = read_control_file(directory)
        return control.checkpoint_lsn, control.timeline, ""
    with connected(door_of(server), login) as connection:
        row = connection.execute(_STANDING.encode()).fetchone()
    if row is None:
        raise SlackwaterError(f"{component.ref} does not tell where it stands.", data="Nothing was changed.")
    return str(row[0]), int(row[1]), str(row[2])


def _stems(directory: str, timeline: int, position: int, goal: int) -> bool:
    if timeline == goal:
        return True
    try:
        with open(f"{directory}/pg_wal/{history.name_of(goal)}", encoding="utf-8", errors="replace") as f:
            history.way(timeline, position, goal, {goal: history.parse(f.read())})
    except (OSError, ValueError):
        return False
    return True
