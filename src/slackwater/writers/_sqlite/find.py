# SPDX-License-Identifier: Apache-2.0
"""Finding databases by asking the kernel: who has a file open that begins as an SQLite database does."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from slackwater import SQLITE_APPLICATION_ID
from slackwater.system import namespaces
from slackwater.system.processes import command_of
from slackwater.writers._sqlite.locks import exclusive
from slackwater.writers._sqlite.programs import headers, program

_BESIDE = ("-wal", "-shm", "-journal")
_HEADER_BYTES = 100
_DELETED = " (deleted)"


@dataclass
class Database:
    """A database file, and who has it open."""

    path: str
    """As we reach it; as its holders do, where we do not."""
    pids: set[int] = field(default_factory=set)
    wal: bool = False
    reachable: bool = True
    """False when the path means another file, or none, here: in a container."""
    exclusive: int = 0
    """The process that keeps everybody else out of it; 0 for none."""


def databases() -> list[Database]:
    """Every database that some process has open, but for Slackwater's own and its clones'."""
    opened: dict[tuple[int, int], tuple[str, Database]] = {}
    for pid, link, path, found in _open_files():
        _, database = opened.setdefault((found.st_dev, found.st_ino), (link, Database(path)))
        database.pids.add(pid)
    links = [link for link, _ in opened.values()]
    for (key, (_, database)), header in zip(opened.items(), headers(links), strict=True):
        database.wal = header[18:19] == b"\2"
        database.reachable = _is(database.path, key)
        database.path = database.path if header and not _ours(header) and not _cloned(database) else ""
    return _seen(sorted((each for _, each in opened.values() if each.path), key=lambda each: each.path))


def database_at(path: str) -> Database | None:
    """The database of this path, without links, whoever has it open; None when there is none."""
    (header,) = headers([path])
    return _seen([Database(path, set(holders(path)), wal=header[18:19] == b"\2")])[0] if header else None


def _seen(found: list[Database]) -> list[Database]:
    """With who keeps everybody out of each."""
    locked = exclusive({each.path: each.pids for each in found if each.reachable})
    for each in found:
        each.exclusive = locked.get(each.path, 0) if each.reachable else 0
    return found


def holders(path: str) -> frozenset[int]:
    """Every process but our keepers that has the file of this path open."""
    try:
        wanted = os.stat(path)
    except OSError:
        return frozenset()
    key = (wanted.st_dev, wanted.st_ino)
    return frozenset(pid for pid, _, _, found in _open_files() if (found.st_dev, found.st_ino) == key)


def names(pids: frozenset[int]) -> str:
    """Processes in words."""
    return ", ".join(f"{command_of(pid) or 'process'} ({pid})" for pid in sorted(pids)[:5])


def _open_files() -> Iterator[tuple[int, str, str, os.stat_result]]:
    """Every regular file that a process has open and that may be a database, but for us and our keepers."""
    for pid in _numbers("/proc"):
        if pid == os.getpid() or _is_keeper(pid):
            continue
        for fd in _numbers(f"/proc/{pid}/fd"):
            link = f"/proc/{pid}/fd/{fd}"
            try:
                path, found = os.readlink(link), os.stat(link)
            except OSError:
                continue  # it has ended, or closed it
            if stat.S_ISREG(found.st_mode) and found.st_size >= _HEADER_BYTES and _may_be(path):
                yield pid, link, path, found


def _may_be(path: str) -> bool:
    return path.startswith("/") and not path.endswith((*_BESIDE, _DELETED)) and "\n" not in path


def _is_keeper(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return os.fsencode(program("keeper")[-1]) in f.read().split(b"\0")
    except OSError:
        return False


def _is(path: str, key: tuple[int, int]) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == key


def _cloned(database: Database) -> bool:
    return not database.reachable and all(map(namespaces.enclosed, database.pids))


def _ours(header: bytes) -> bool:
    """Whether the file's application id (at byte 68, "Database File Format") says that it is Slackwater's own."""
    return int.from_bytes(header[68:72], "big") == SQLITE_APPLICATION_ID


def _numbers(directory: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(directory) if name.isdecimal()]
    except OSError:
        return []
