# SPDX-License-Identifier: Apache-2.0
"""Making a clone ready to recover onto a timeline of its own, and taking that out again.

The engine chooses the first number for which its restore command has no history file, counting up from the timeline
it recovers on (findNewestTimeLine in timeline.c). So for every number up to the highest known one a file is laid where
a restore command of ours finds it. These files only say "taken": recovery follows `current` and never reads them, and
they lie outside pg_wal, so they are never archived. Nothing is written through a link.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence

from slackwater.errors import RefusedError, SlackwaterError
from slackwater.model.component import Component, FileRole
from slackwater.model.facts import Facts
from slackwater.writers._postgresql import bridge, pending
from slackwater.writers._postgresql.archive import mark_archived
from slackwater.writers._postgresql.autoconf import HISTORIES, LOG, TARGET, TO_REPLICA, with_recovery, without_recovery
from slackwater.writers._postgresql.controlfile import ControlFile, parse_lsn, read_control_file
from slackwater.writers._postgresql.directory import opened, opened_wal, read, remove_tree, replace, told

AUTO_CONF = "postgresql.auto.conf"
_SIGNAL = "recovery.signal"
_LABEL, _MAP = "backup_label", "tablespace_map"
#: What the engine makes of them when it has read them.
_READ = (f"{_LABEL}.old", f"{_MAP}.old")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Whatever carries a timeline in its name: segments, whole or partial, and histories.
_ON_TIMELINE = re.compile(r"([0-9A-F]{8})(?:[0-9A-F]{16}(?:\.partial)?|\.history)")


def rewrite(component: Component, trees: Mapping[str, str], expected: Facts, known: Sequence[Facts]) -> Facts:
    """Rewrite the clone reachable at `trees`; see the contract.

    A clone of a bridged replica gets its label (`backup_label` of `expected`), from which its recovery has to begin.

    Returns: `timeline` (the number the server will take), `timeline_exact` (false when the administrator's own
        restore command may know of further ones), `timeline_switch`, `slots_removed`; `why` when it does not switch.

    Raises:
        RefusedError: the clone is not this component's, or its pg_wal leads out of it.
    """
    places = {each.via: each for each in component.files}
    with told(f"The clone of {component.ref} cannot be made ready"), opened(trees[places[""].path]) as data:
        image = read_control_file(data)
        _check_identity(component, image)
        with opened_wal(data, trees, places["pg_wal"].path if "pg_wal" in places else "") as wal:
            configured = without_recovery(read(data, AUTO_CONF), target_of(data))
            slots = _clear(data, keeps_log=image.wal_level != "minimal")
            if image.wal_level == "minimal":
                replace(data, AUTO_CONF, configured)
                return {
                    "timeline": image.timeline,
                    "timeline_switch": False,
                    "why": "its log was written with wal_level = minimal, from which the engine refuses to switch",
                    "slots_removed": slots,
                }
            live = _live_wal(component, image)
            highest = max(image.timeline, *_timelines(os.listdir(wal)), *_taken(component, known, image))
            _lay_histories(data, range(image.timeline + 1, highest + 1))
            theirs = str(component.facts.get("restore_command") or "")
            replace(data, AUTO_CONF, with_recovery(configured, theirs))
            marked = mark_archived(wal, live, image.timeline, image.segment_bytes)
            if label := str(expected.get("backup_label") or ""):
                _lay_label(data, label)
            replace(data, _SIGNAL, "")
            os.fsync(wal)
        os.fsync(data)
    return {
        "timeline": highest + 1,
        "timeline_exact": not theirs.strip(),
        "timeline_switch": True,
        "slots_removed": slots,
        "marked_archived": " ".join(marked),
    }


def target_of(data: int) -> tuple[str, ...]:
    """The lines that say where the recovery of a data directory ends."""
    with contextlib.suppress(FileNotFoundError), opened(HISTORIES, data) as histories:
        return tuple(read(histories, TARGET).splitlines()) or TO_REPLICA
    return TO_REPLICA


def recovering(data_directory: str) -> bool:
    """Whether a recovery that was prepared here is not yet over: the engine removes its signal file at the end."""
    return os.path.lexists(f"{data_directory}/{_SIGNAL}")


def settle(data_directory: str) -> None:
    """Remove our lines, our directory and our label from a data directory that has recovered. Removed: nothing.

    What was laid in it and is not archived goes to the server's own log before, so that it is.
    """
    with told(f"The recovery settings cannot be removed from {data_directory}"), opened(data_directory) as data:
        target = target_of(data)
        for _ in range(10):
            text = read(data, AUTO_CONF)
            bare = without_recovery(text, target)
            # ALTER SYSTEM may write the same file meanwhile: what was read must be what is replaced.
            if bare == text or replace(data, AUTO_CONF, bare, if_still=text):
                break
        pending.publish(data)
        for name in (LOG, HISTORIES):
            remove_tree(data, name)
        if bridge.is_ours(read(data, _READ[0])):
            remove_tree(data, _READ[0])
        os.fsync(data)


def _check_identity(component: Component, image: ControlFile) -> None:
    recorded = component.facts.get("system_identifier")
    if recorded and str(recorded) != image.system_identifier:
        raise RefusedError(
            f"The clone belongs to another cluster than {component.ref}: system identifier {image.system_identifier}, "
            f"not {recorded}.",
            data="Nothing was changed.",
            hint="Take another replica.",
            code="other-cluster",
        )


def _clear(data: int, *, keeps_log: bool) -> str:
    """Remove what a copy must not start with; returns the names of the replication slots that were in it.

    The slots by which we keep the log stay: what was written since the replica before is in this log, too. An engine
    with wal_level = minimal does not start with any.
    """
    for name in ("postmaster.pid", "standby.signal", _SIGNAL):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=data)
    for name in (LOG, HISTORIES):
        remove_tree(data, name)
    slots = os.open("pg_replslot", _DIRECTORY | os.O_NOFOLLOW, dir_fd=data)
    try:
        names = sorted(os.listdir(slots))
        for name in names:
            if not (keeps_log and bridge.keeps_log(name)):
                shutil.rmtree(name, dir_fd=slots)
        os.fsync(slots)
    finally:
        os.close(slots)
    return " ".join(name for name in names if not bridge.is_our_slot(name))


def _taken(component: Component, known: Sequence[Facts], image: ControlFile) -> set[int]:
    """Every timeline that is known to be in use somewhere."""
    recorded = (facts.get("timeline") for facts in (*known, component.facts))
    taken = {int(each) for each in recorded if isinstance(each, int)} | {image.timeline}
    directory = str(component.facts.get("data_directory") or "")
    logs = {each.path for each in component.files if each.role is FileRole.LOG} | {f"{directory}/pg_wal"}
    for log in logs:
        with contextlib.suppress(OSError):
            taken |= _timelines(os.listdir(log))
    with contextlib.suppress(SlackwaterError):
        live = read_control_file(directory)
        if live.system_identifier == image.system_identifier:
            taken.add(live.timeline)
    return taken


def _timelines(names: Sequence[str]) -> set[int]:
    matches = (_ON_TIMELINE.fullmatch(name) for name in names)
    return {int(match[1], 16) for match in matches if match}


def _live_wal(component: Component, image: ControlFile) -> str:
    """The live server's log directory, where it is intact and went on from this image; else empty.

    One that was itself recovered from an older replica never had the segments that this image has.
    """
    directory = str(component.facts.get("data_directory") or "")
    try:
        live = read_control_file(directory)
    except SlackwaterError:
        return ""
    wal = f"{directory}/pg_wal"
    same = (live.system_identifier, live.timeline) == (image.system_identifier, image.timeline)
    later = parse_lsn(live.checkpoint_lsn) >= parse_lsn(image.checkpoint_lsn)
    return wal if same and later and os.path.isdir(f"{wal}/archive_status") else ""


def _lay_histories(data: int, numbers: range) -> None:
    owner = os.fstat(data)
    os.mkdir(HISTORIES, 0o700, dir_fd=data)
    with opened(HISTORIES, data) as histories:
        os.fchown(histories, owner.st_uid, owner.st_gid)
        for number in numbers:
            replace(histories, f"{number:08X}.history", "# This timeline is taken; slackwater keeps its number.\n")
        os.fsync(histories)


def _lay_label(data: int, label: str) -> None:
    """Put a bridge's label where the engine finds it.

    No map of tablespaces is laid beside it: the clone has its links, and from a map the engine would make them anew,
    wherever it leads to.
    """
    for name in (_MAP, *_READ):
        remove_tree(data, name)
    replace(data, _LABEL, label)
