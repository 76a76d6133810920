# SPDX-License-Identifier: Apache-2.0
"""What the words of other tools mean here, and what a mistyped word was probably meant to be."""

import difflib
import re
from collections.abc import Mapping, Sequence

#: Word → the command that does it here.
_TOP = {
    **dict.fromkeys(("restore", "rollback", "revert", "roll-back", "flashback", "pitr"), "recover"),
    **dict.fromkeys(("undo", "unrecover", "undelete"), "recover SPEC --undo"),
    **dict.fromkeys(("snapshot", "snap", "dump", "save", "protect", "basebackup", "run"), "backup"),
    **dict.fromkeys(("list", "ls", "list-backups", "backups", "snapshots", "archives", "replicas"), "replica list"),
    **dict.fromkeys(("delete", "del", "rm", "remove", "forget", "drop", "expire"), "replica delete ID"),
    **dict.fromkeys(("show", "info", "inspect", "ls-replica"), "replica show ID"),
    **dict.fromkeys(("mount", "present", "browse", "explore"), "replica mount ID"),
    **dict.fromkeys(("umount", "unmount", "unpresent"), "replica unmount ID"),
    **dict.fromkeys(("verify", "prove", "drill", "test-restore"), "replica verify ID"),
    **dict.fromkeys(("sandbox", "branch", "fork", "thin-clone"), "clone create ID --name NAME"),
    **dict.fromkeys(("trial", "rehearse", "simulate"), "try WRITER:COMPONENT"),
    **dict.fromkeys(("pin", "lock", "keep", "protect-replica"), "replica pin ID"),
    **dict.fromkeys(("unpin", "unlock"), "replica unpin ID"),
    **dict.fromkeys(("cleanup", "clean", "gc", "repair", "fix"), "reconcile"),
    **dict.fromkeys(("scan", "probe", "find", "detect", "applications", "components"), "discover"),
    **dict.fromkeys(
        ("init", "add", "create", "new", "config", "configure", "setup"), "spec create NAME WRITER:COMPONENT"
    ),
    **dict.fromkeys(("specs", "specification", "specifications", "policies", "jobs"), "spec list"),
    **dict.fromkeys(("log", "logs", "history", "sessions", "ps", "tasks"), "session list"),
    **dict.fromkeys(("abort", "cancel", "kill", "stop"), "session abort ID"),
    **dict.fromkeys(("check", "fsck", "scrub", "validate"), "catalog check"),
    **dict.fromkeys(("health", "diagnose", "debug"), "doctor"),
    **dict.fromkeys(("cron", "timer", "timers", "schedules", "automate", "periodic"), "schedule list"),
    **dict.fromkeys(("prune", "rotate", "retention", "purge"), "replica list --retention"),
    **dict.fromkeys(("stat", "state", "summary"), "status"),
    "help": "--help",
    "version": "--version",
    "nagios": "status --nagios",
}

#: The same below a noun.
_BELOW: Mapping[str, Mapping[str, str]] = {
    "replica": {
        **dict.fromkeys(("ls", "all"), "replica list"),
        **dict.fromkeys(("rm", "remove", "del", "forget", "expire", "prune"), "replica delete ID"),
        **dict.fromkeys(("info", "inspect", "get"), "replica show ID"),
        **dict.fromkeys(("present", "browse", "open"), "replica mount ID"),
        **dict.fromkeys(("lock", "hold", "keep"), "replica pin ID"),
        **dict.fromkeys(("unlock", "release"), "replica unpin ID"),
        **dict.fromkeys(("restore", "recover", "rollback", "revert", "use"), "recover SPEC --replica ID"),
        **dict.fromkeys(("create", "new", "make", "take", "add"), "backup SPEC"),
        **dict.fromkeys(("umount", "unpresent", "close"), "replica unmount ID"),
        **dict.fromkeys(("check", "test", "prove"), "replica verify ID"),
        "clone": "clone create ID --name NAME",
    },
    "schedule": {
        **dict.fromkeys(("ls", "all", "show", "status"), "schedule list"),
        **dict.fromkeys(("add", "create", "new", "set", "on"), "schedule enable SPEC --daily 02:00"),
        **dict.fromkeys(("rm", "remove", "delete", "off", "stop"), "schedule disable SPEC"),
    },
    "spec": {
        **dict.fromkeys(("ls", "all"), "spec list"),
        **dict.fromkeys(("new", "add", "init", "make"), "spec create NAME WRITER:COMPONENT"),
        **dict.fromkeys(("cat", "get", "info", "print", "edit"), "spec show NAME"),
        **dict.fromkeys(("validate", "test", "verify", "lint"), "spec check NAME"),
    },
    "session": {
        **dict.fromkeys(("ls", "all", "history"), "session list"),
        **dict.fromkeys(("log", "logs", "get", "info", "report"), "session show ID"),
        **dict.fromkeys(("cancel", "kill", "stop", "rm"), "session abort ID"),
    },
    "catalog": {
        **dict.fromkeys(("verify", "fsck", "diff", "compare"), "catalog check"),
        "sync": "reconcile",
        **dict.fromkeys(("repair", "restore", "adopt", "recover"), "catalog rebuild"),
        **dict.fromkeys(("dump", "save", "backup"), "catalog export FILE"),
        **dict.fromkeys(("load", "merge"), "catalog import FILE"),
        **dict.fromkeys(("list", "ls", "show"), "replica list"),
    },
}

#: Verbs that are typed after `backup` and `recover`, which take the name of a specification there.
_VERBS = {
    "backup": {
        **dict.fromkeys(("list", "ls"), "replica list"),
        **dict.fromkeys(("show", "info"), "replica show ID"),
        **dict.fromkeys(("delete", "rm", "remove", "prune"), "replica delete ID"),
        **dict.fromkeys(("restore", "recover"), "recover SPEC"),
        **dict.fromkeys(("create", "run", "start", "now", "take"), "backup SPEC"),
    },
    "recover": {
        **dict.fromkeys(("list", "ls"), "replica list"),
        **dict.fromkeys(("show", "info"), "replica show ID"),
        **dict.fromkeys(("undo", "rollback"), "recover SPEC --undo"),
        **dict.fromkeys(("start", "run", "now"), "recover SPEC"),
    },
}

_ID = re.compile(r"\d{4}-\d\d-\d\d-\d+")


def hint_for(word: str, noun: str, known: Sequence[str]) -> str:
    """One line that leads from a word that is no command to the one that is.

    Args:
        word: what was typed.
        noun: below which noun; empty for a word that stands first.
        known: the commands there are in that place.
    """
    foreign = _BELOW.get(noun, {}) if noun else _TOP
    if meant := foreign.get(word.lower()):
        return f"Did you mean: slackwater {meant}"
    place = f"slackwater {noun} " if noun else "slackwater "
    if close := difflib.get_close_matches(word.lower(), known, n=2):
        return "Did you mean: " + " or ".join(place + each for each in close)
    return f"{place}--help shows the commands there are."


def misplaced(command: str, target: str) -> str:
    """The hint for a verb or a replica's id that was typed where a specification is taken; empty for none."""
    if command == "recover" and _ID.fullmatch(target):
        return f"Did you mean: slackwater recover SPEC --replica {target}"
    meant = _VERBS[command].get(target)
    return f"Did you mean: slackwater {meant}" if meant else ""
