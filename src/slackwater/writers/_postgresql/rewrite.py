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
import stat
from collections.abc import Iterator, Mapping, Sequence

from slackwater.errors import RefusedError, SlackwaterError
from slackwater.model.component import Component, FileRole
from slackwater.model.facts import Facts
from slackwater.system.credentials import as_user
from slackwater.writers._postgresql.archive import mark_archived
from slackwater.writers._postgresql.autoconf import HISTORIES, with_recovery, without_recovery
from slackwater.writers._postgresql.controlfile import ControlFile, parse_lsn, read_control_file

_AUTO_CONF = "postgresql.auto.conf"
_SIGNAL = "recovery.signal"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Whatever carries a timeline in its name: segments, whole or partial, and histories.
_ON_TIMELINE = re.compile(r"([0-9A-F]{8})(?:[0-9A-F]{16}(?:\.partial)?|\.history)")


def rewrite(component: Component, trees: Mapping[str, str], known: Sequence[Facts]) -> Facts:
    """Rewrite the clone reachable at `trees`; see the contract.

    Returns: `timeline` (the number the server will take), `timeline_exact` (false when the administrator's own
        restore command may know of further ones), `timeline_switch`, `slots_removed`; `why` when it does not switch.

    Raises:
        RefusedError: the clone is not this component's, or its pg_wal leads out of it.
    """
    places = {each.via: each for each in component.files}
    with _told(f"The clone of {component.ref} cannot be made ready"), _opened(trees[places[""].path]) as data:
        image = read_control_file(data)
        _check_identity(component, image)
        with _opened_wal(data, trees, places["pg_wal"].path if "pg_wal" in places else "") as wal:
            slots = _clear(data)
            if image.wal_level == "minimal":
                _replace(data, _AUTO_CONF, without_recovery(_text(data, _AUTO_CONF)))
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
            _replace(data, _AUTO_CONF, with_recovery(_text(data, _AUTO_CONF), theirs))
            marked = mark_archived(wal, live, image.timeline, image.segment_bytes)
            _replace(data, _SIGNAL, "")
            os.fsync(wal)
        os.fsync(data)
    return {
        "timeline": highest + 1,
        "timeline_exact": not theirs.strip(),
        "timeline_switch": True,
        "slots_removed": slots,
        "marked_archived": " ".join(marked),
    }


def recovering(data_directory: str) -> bool:
    """Whether a recovery that was prepared here is not yet over: the engine removes its signal file at the end."""
    return os.path.lexists(f"{data_directory}/{_SIGNAL}")


def settle(data_directory: str) -> None:
    """Remove our lines and our directory from a data directory that has recovered. Removed already: nothing."""
    with _told(f"The recovery settings cannot be removed from {data_directory}"), _opened(data_directory) as data:
        for _ in range(10):
            text = _text(data, _AUTO_CONF)
            bare = without_recovery(text)
            # ALTER SYSTEM may write the same file meanwhile: what was read must be what is replaced.
            if bare == text or _replace(data, _AUTO_CONF, bare, if_still=text):
                break
        _remove_tree(data, HISTORIES)
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


def _clear(data: int) -> str:
    """Remove what a copy must not start with; returns the names of the replication slots that were in it."""
    for name in ("postmaster.pid", "standby.signal", _SIGNAL):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=data)
    _remove_tree(data, HISTORIES)
    slots = os.open("pg_replslot", _DIRECTORY | os.O_NOFOLLOW, dir_fd=data)
    try:
        names = sorted(os.listdir(slots))
        for name in names:
            shutil.rmtree(name, dir_fd=slots)
        os.fsync(slots)
    finally:
        os.close(slots)
    return " ".join(names)


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
    with _opened(HISTORIES, data) as histories:
        os.fchown(histories, owner.st_uid, owner.st_gid)
        for number in numbers:
            _replace(histories, f"{number:08X}.history", "# This timeline is taken; slackwater keeps its number.\n")
        os.fsync(histories)


@contextlib.contextmanager
def _opened(path: str, within: int | None = None) -> Iterator[int]:
    """A directory by descriptor; one below another is not reached through a link."""
    flags = _DIRECTORY if within is None else _DIRECTORY | os.O_NOFOLLOW
    fd = os.open(path, flags, dir_fd=within)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened_wal(data: int, trees: Mapping[str, str], separate: str) -> Iterator[int]:
    try:
        opened = _opened(trees[separate]) if separate else _opened("pg_wal", data)
        with opened as wal:
            yield wal
    except NotADirectoryError as e:
        raise RefusedError(
            "pg_wal of the clone leads out of it, and the replica holds no log of its own.",
            data="Nothing was changed.", hint="Take another replica.", code="log-outside",
        ) from e  # fmt: skip


def _text(directory: int, name: str) -> str:
    """Read a small file with its owner's rights: a link of theirs must not make us read what they may not."""
    owner = os.fstat(directory)
    try:
        with as_user(owner.st_uid, owner.st_gid):
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return ""
    with open(fd, encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


def _replace(directory: int, name: str, text: str, *, if_still: str | None = None) -> bool:
    """Write a file anew under its name, owned like its directory, in one rename; False when it changed meanwhile."""
    owner = os.fstat(directory)
    new = f"{name}.slackwater"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(new, flags, 0o600, dir_fd=directory)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as f:
        os.fchown(fd, owner.st_uid, owner.st_gid)
        f.write(text)
        f.flush()
        os.fsync(fd)
    if if_still is not None and _text(directory, name) != if_still:
        os.unlink(new, dir_fd=directory)
        return False
    os.replace(new, name, src_dir_fd=directory, dst_dir_fd=directory)
    return True


def _remove_tree(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn what the kernel refuses (no room, read-only, an input or output error) into an error for people."""
    try:
        yield
    except OSError as e:
        raise SlackwaterError(
            f"{what}: {e.strerror}.", hint="See whether there is room and the filesystem is writable.", code="files"
        ) from e
