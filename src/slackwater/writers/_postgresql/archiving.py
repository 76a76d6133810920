# SPDX-License-Identifier: Apache-2.0
"""Whether an archive of a server's log works: archiving is on and comes along, and what went in comes out again.

See "Continuous Archiving" and `pg_stat_archiver` in PostgreSQL's documentation. How an archive is asked can often be
told from how it is filled; that is proposed, and never assumed.
"""

import re
from contextlib import ExitStack

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component, ComponentRef, Credentials
from slackwater.model.facts import Finding, Severity
from slackwater.model.plan import LogKeeping
from slackwater.model.target import LogSource
from slackwater.system.scratch import scratch
from slackwater.writers._postgresql import fetching
from slackwater.writers._postgresql.confirm import door_of
from slackwater.writers._postgresql.connect import connected
from slackwater.writers._postgresql.controlfile import read_control_file
from slackwater.writers._postgresql.directory import opened
from slackwater.writers._postgresql.find import postmaster_on

_PROPOSALS = (
    (re.compile(r"(\S*pgbackrest\b.*?)\s+archive-push\b"), r'\1 archive-get %f "%p"'),
    (re.compile(r"(\S*)barman-wal-archive\b(.*?)\s+\"?%p"), r'\1barman-wal-restore\2 %f "%p"'),
    (re.compile(r"(\S*(?:wal-g|envdir)\b.*?)\s+wal-push\b"), r'\1 wal-fetch "%f" "%p"'),
    (re.compile(r"(?:\S+@)?(\S+):\S*/([^/\s]+)/incoming/%f"), r'barman-wal-restore -U barman \1 \2 %f "%p"'),
    (re.compile(r"(?:^|.*[\s'\"])(/[^\s'\"]*)/%f"), r"\1"),
)
_GENERIC = 'Say it in [recovery]: archive = "…", a directory or a command as restore_command has it.'


def proposal(archive_command: str) -> str:
    """How an archive is asked that is filled in this way; empty where that cannot be told."""
    for pattern, line in _PROPOSALS:
        if match := pattern.search(archive_command):
            return match.expand(line)
    return ""


def archives_again(ref: ComponentRef) -> Finding:
    """Why a server may not archive always: also what it restores in a recovery, which mostly is archived already."""
    return Finding(
        "archive-always", Severity.REFUSAL,
        f"{ref} archives always, also in a recovery what it is given for it: an archive that does not take a name twice"
        " would stand still after one.",
        "Set archive_mode = on in postgresql.conf and restart it; of a server that is no standby it archives the same.",
    )  # fmt: skip


def check(component: Component, login: Credentials, keeping: LogKeeping) -> list[Finding]:
    """What stands against relying on a server's archive, and what it lacks now. Reads only."""
    directory = str(component.facts["data_directory"])
    server = postmaster_on(directory)
    if server is None:
        return [Finding(
            "no-log-kept", Severity.NOTE,
            f"{component.ref} is stopped: whether its log is archived is seen at the next backup for which it runs.",
        )]  # fmt: skip
    with connected(door_of(server), login) as connection:
        ((mode, command, restores, behind, newest),) = connection.execute(
            "select current_setting('archive_mode'),"
            " (select coalesce(max(setting), '') from pg_settings where name = 'archive_command'),"
            " (select coalesce(max(setting), '') from pg_settings where name = 'restore_command'),"
            " coalesce(last_failed_time > last_archived_time, last_failed_time is not null),"
            " coalesce(last_archived_wal, '') from pg_stat_archiver"
        ).fetchall()
    if mode == "off":
        return [Finding(
            "archive-off", Severity.REFUSAL,
            f"{component.ref} does not archive its log: archive_mode is off.",
            'Set archive_mode and archive_command in postgresql.conf and restart it; or set logs = "slot".',
        )]  # fmt: skip
    if mode == "always":
        return [archives_again(component.ref)]
    if not keeping.archive and not str(restores).strip():
        line = proposal(str(command))
        quote = "'" if '"' in line else '"'
        return [Finding(
            "no-archive", Severity.REFUSAL,
            f"{component.ref} archives its log, and nobody said how its archive is asked: it has no restore_command.",
            f"Its archive_command suggests, in [recovery]: archive = {quote}{line}{quote}" if line else _GENERIC,
        )]  # fmt: skip
    found = []
    if behind:
        found.append(Finding(
            "archive-behind", Severity.WARNING,
            f"{component.ref} cannot archive its log at present: what it writes is in no archive, and kept in its"
            " pg_wal, which grows.",
            "Its log says why archive_command fails.",
        ))  # fmt: skip
    return [*found, *_unasked(component, keeping, directory, str(newest))]


def _unasked(component: Component, keeping: LogKeeping, directory: str, newest: str) -> list[Finding]:
    """Ask the archive for the newest file that it was given."""
    try:
        with ExitStack() as stack, scratch() as folder:
            data = stack.enter_context(opened(directory))
            source = LogSource("the archive", {}, archive=keeping.archive, folder=folder)
            image = read_control_file(data)
            archive = fetching.among(stack, [source], component, data, image, [])
            trouble = archive.lacks(newest) if archive else ""
    except SlackwaterError as e:
        trouble = e.sentence.rstrip(".")
    if not trouble:
        return []
    return [Finding(
        "archive-unreachable", Severity.WARNING,
        f"The archive of {component.ref} cannot be asked: {trouble}. Without it a replica goes forward no further than"
        " the log that the server still has.",
        "See whether it can be reached, and whether it is asked as it should be.",
    )]  # fmt: skip
