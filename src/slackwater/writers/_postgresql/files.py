# SPDX-License-Identifier: Apache-2.0
"""What belongs to a data directory: itself, and whatever its links lead to.

PostgreSQL reaches tablespaces and a separate log through links below the data directory (PostgreSQL, "Database File
Layout", "Tablespaces"); administrators also link single databases and configuration files away, and some mount a
filesystem of its own on `pg_wal` instead of linking it.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from slackwater.model.component import FileRole, FileSet

#: Where a link to a directory is looked for, and what it leads to.
_PLACES = {"": FileRole.DATA, "base": FileRole.DATA, "pg_tblspc": FileRole.TABLESPACE}
#: Linked directories that recovery does without: server logs and statistics of the moment.
_NOT_NEEDED = {"log", "pg_log", "pg_stat_tmp"}


def file_sets(data_directory: str) -> tuple[FileSet, ...]:
    """All directory trees of a cluster, the data directory first. One that cannot be read has only its path."""
    log = os.path.join(data_directory, "pg_wal")
    apart = os.path.ismount(log) or os.path.islink(log)
    found = [FileSet(FileRole.DATA, data_directory, log="" if apart else "pg_wal", last=("global/pg_control",))]
    if os.path.ismount(log):
        found.append(FileSet(FileRole.LOG, log, "pg_wal"))
    for via, target in links(data_directory):
        if os.path.isdir(target) and via not in _NOT_NEEDED:
            role = FileRole.LOG if via == "pg_wal" else _PLACES[os.path.dirname(via)]
            found.append(FileSet(role, target, via))
    return tuple(found)


def log_of(sets: Sequence[FileSet], places: Mapping[str, str]) -> str:
    """Where the log lies, given where each file set lies (`places`, by path)."""
    apart = next((each.path for each in sets if each.via == "pg_wal"), "")
    return places[apart] if apart else os.path.join(places[data_of(sets)], "pg_wal")


def data_of(sets: Sequence[FileSet]) -> str:
    """The data directory itself."""
    return next(each.path for each in sets if not each.via)


def dangling(data_directory: str) -> tuple[str, ...]:
    """Links that lead nowhere, relative to the data directory: files of the cluster are missing."""
    return tuple(via for via, target in links(data_directory) if not os.path.exists(target) and via not in _NOT_NEEDED)


def configuration(data_directory: str, asked: Iterable[str]) -> tuple[str, ...]:
    """Configuration files that lie outside the data directory: of those asked for, whatever their links lead to.

    What else links in the data directory lead to (a server's key) is none: it is neither recorded nor put back.
    """
    named = {os.path.realpath(each) if _below(each, data_directory) else each for each in asked if each}
    return tuple(sorted(each for each in named if not _inside(each, data_directory)))


def links(data_directory: str) -> Iterator[tuple[str, str]]:
    """Every link that matters, as its name below the data directory and where it leads in the end."""
    for place in _PLACES:
        try:
            names = sorted(os.listdir(os.path.join(data_directory, place)))
        except OSError:
            continue
        for name in names:
            via = os.path.join(place, name)
            path = os.path.join(data_directory, via)
            if os.path.islink(path):
                yield via, os.path.realpath(path)


def _inside(path: str, directory: str) -> bool:
    """By its name or in truth; a link in the data directory that leads out of it counts by what it leads to."""
    return _below(path, directory) or _below(os.path.realpath(path), directory)


def _below(path: str, directory: str) -> bool:
    return path.startswith(directory.rstrip("/") + "/")
