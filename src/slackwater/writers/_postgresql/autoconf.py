# SPDX-License-Identifier: Apache-2.0
"""Our lines in `postgresql.auto.conf`, which the engine reads after every other file ("Setting Parameters").

ALTER SYSTEM writes that file anew and drops comments, our marks too; so each line can also be recognised by itself.
"""

import re
from collections.abc import Sequence

#: A directory of ours in the data directory; its name in a line tells that the line is ours.
HISTORIES = "slackwater.histories"
#: Another, with the segments that a recovery goes forward by; and in the first one, the lines for its target.
LOG = "slackwater.log"
TARGET = "target.conf"
_BEGIN = "# slackwater: recovery settings, removed when it has recovered"
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_END = "# slackwater: end of recovery settings"
#: Without a target the engine recovers to the end of the log it is given, which for a replica's own state is what is
#: wanted: with recovery_target = 'immediate' and no backup label it fails at the end (seen on 15, 17 and 18).
#: Left from somebody's earlier recovery or standby, an exclusive target would leave out the last commit, and a cleanup
#: command would delete from their archive what older backups need.
#: No hot standby: the engine would refuse when connections or workers were lowered since the backup.
_SETTINGS = (
    "recovery_target = ''",
    "recovery_target_lsn = ''",
    "recovery_target_name = ''",
    "recovery_target_time = ''",
    "recovery_target_xid = ''",
    "recovery_target_inclusive = 'on'",
    "archive_cleanup_command = ''",
    "recovery_end_command = ''",
    "recovery_min_apply_delay = '0'",
    "hot_standby = 'off'",
)
#: Timeline `current`, since `latest` would follow the histories that are only there so that their numbers are not used.
TO_REPLICA = ("recovery_target_timeline = 'current'",)


def with_recovery(text: str, restore_command: str, target: Sequence[str] = TO_REPLICA) -> str:
    """Add our lines at the end, in place of older ones of ours.

    Args:
        text: the file's.
        restore_command: the administrator's own, which is asked for histories only.
        target: lines that say where recovery ends; kept by the caller, for `without_recovery` needs them.
    """
    kept = without_recovery(text, target)
    lines = (_BEGIN, *_SETTINGS, *target, f"restore_command = {quoted(_restore_command(restore_command))}", _END)
    return (kept if kept.endswith("\n") or not kept else kept + "\n") + "".join(line + "\n" for line in lines)


def quoted(value: str) -> str:
    """A value as the file wants it."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def without_recovery(text: str, target: Sequence[str] = TO_REPLICA) -> str:
    """Take our lines out and leave every other as it is. None of ours in it: the same text.

    Args:
        text: the file's.
        target: the lines that `with_recovery` was given.
    """
    if HISTORIES not in text:
        return text
    lines = _LINE.findall(text)  # not splitlines(): a form feed, say, ends no line of PostgreSQL's
    bare = [line.rstrip("\n") for line in lines]
    ours = {at for at, line in enumerate(bare) if HISTORIES in line or line in (_BEGIN, _END)}
    # The last of its kind is ours, since ours were added at the end: an equal line of the administrator stays.
    ours |= {max(at for at, line in enumerate(bare) if line == each) for each in (*_SETTINGS, *target) if each in bare}
    return "".join(line for at, line in enumerate(lines) if at not in ours)


def _restore_command(theirs: str) -> str:
    """A command that answers from our directories; for histories also from wherever theirs finds them.

    Of the log only what was laid for this recovery is given: for a replica's own state nothing, since the image's own
    log ends at the instant of the backup, and so must the recovery.
    """
    ask_theirs = f" || {{ {theirs}\n}}".replace("\n", " ; ") if theirs.strip() else ""
    return (
        f'case "%f" in *.history) cp "{HISTORIES}/%f" "%p" 2>/dev/null{ask_theirs} ;;'
        f' *) cp "{LOG}/%f" "%p" 2>/dev/null ;; esac'
    )
