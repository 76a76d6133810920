# SPDX-License-Identifier: Apache-2.0
"""Our lines in `postgresql.auto.conf`, which the engine reads after every other file ("Setting Parameters").

ALTER SYSTEM writes that file anew and drops comments, our marks too; so each line can also be recognised by itself.
"""

#: A directory of ours in the data directory; its name in a line tells that the line is ours.
HISTORIES = "slackwater.histories"
_BEGIN = "# slackwater: recovery settings, removed when it has recovered"
_END = "# slackwater: end of recovery settings"
#: Without a target the engine recovers to the end of the image's own log, which is what is wanted: with
#: recovery_target = 'immediate' and no backup label it ends its recovery as failed (seen on 15, 17 and 18). Timeline
#: `current`, since `latest` would follow the histories that are only there so that their numbers are not used again.
#: No hot standby: the engine would refuse when connections or workers were lowered since the backup.
_SETTINGS = (
    "recovery_target = ''",
    "recovery_target_lsn = ''",
    "recovery_target_name = ''",
    "recovery_target_time = ''",
    "recovery_target_xid = ''",
    "recovery_target_timeline = 'current'",
    "recovery_end_command = ''",
    "recovery_min_apply_delay = '0'",
    "hot_standby = 'off'",
)


def with_recovery(text: str, restore_command: str) -> str:
    """Add our lines at the end, in place of older ones of ours."""
    kept = without_recovery(text)
    command = _restore_command(restore_command).replace("\\", "\\\\").replace("'", "''")
    lines = (_BEGIN, *_SETTINGS, f"restore_command = '{command}'", _END)
    return (kept if kept.endswith("\n") or not kept else kept + "\n") + "".join(line + "\n" for line in lines)


def without_recovery(text: str) -> str:
    """Take our lines out and leave every other as it is. None of ours in it: the same text."""
    if HISTORIES not in text:
        return text
    lines = text.splitlines(keepends=True)
    bare = [line.rstrip("\n") for line in lines]
    ours = {at for at, line in enumerate(bare) if HISTORIES in line or line in (_BEGIN, _END)}
    # The last of its kind is ours, since ours were added at the end: an equal line of the administrator stays.
    ours |= {max(at for at, line in enumerate(bare) if line == each) for each in _SETTINGS if each in bare}
    return "".join(line for at, line in enumerate(lines) if at not in ours)


def _restore_command(theirs: str) -> str:
    """A command that answers for history files alone: from our directory, then from wherever theirs finds them.

    Log segments are never fetched: the image's own log ends at the instant of the backup, and so must the recovery.
    """
    ask_theirs = f" || {{ {theirs}\n}}".replace("\n", " ; ") if theirs.strip() else ""
    return f'case "%f" in *.history) cp "{HISTORIES}/%f" "%p" 2>/dev/null{ask_theirs} ;; *) false ;; esac'
