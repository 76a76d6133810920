# SPDX-License-Identifier: Apache-2.0
"""A server on clones: started where it can reach nothing of the original, proven, read through, and stopped.

Its configuration is the application's own, as a recovered server would have it, but for what `_SETTINGS` takes away.
They are given on its command line, which counts more than every file ("Setting Parameters").
"""

import contextlib
import errno
import os
import shlex
import shutil
from functools import partial
from typing import TYPE_CHECKING

from slackwater.errors import SlackwaterError, VerificationError
from slackwater.model.component import Credentials
from slackwater.model.facts import Facts
from slackwater.system import namespaces
from slackwater.system.command import Finished, run
from slackwater.writers._postgresql.bridge import keeps_log
from slackwater.writers._postgresql.confirm import Subject, confirm, door_of
from slackwater.writers._postgresql.connect import connected
from slackwater.writers._postgresql.control import Control, as_owner, control_fields, last_words
from slackwater.writers._postgresql.find import Postmaster, postmaster_enclosed, postmaster_on
from slackwater.writers._postgresql.links import lead_inside
from slackwater.writers._postgresql.losses import Key
from slackwater.writers._postgresql.lossnames import TABLES, Catalog, Table
from slackwater.writers.contract import Clone, Question

if TYPE_CHECKING:
    from slackwater.writers._postgresql.connect import Connection

#: What keeps a server from everything outside of it, and from much of the host's memory. Segments of dynamic shared
#: memory are System V's, which the IPC namespace keeps apart.
_SETTINGS = (
    "listen_addresses=", "external_pid_file=",
    "archive_mode=off", "max_wal_senders=0", "primary_conninfo=", "primary_slot_name=", "synchronous_standby_names=",
    "max_logical_replication_workers=0", "ssl=off", "logging_collector=off", "log_destination=stderr",
    "dynamic_shared_memory_type=sysv", "huge_pages=off", "shared_buffers=64MB", "restart_after_crash=off",
)  # fmt: skip
_LOG, _HBA = "log", "hba.conf"
#: Only the owner of the files comes in, as the role of that name, whatever the application's own rules say.
_PEER = "local all all peer\n"
#: How long reading a cluster through may take; a session can be stopped at any time before.
_CHECK_S = 24 * 3600.0
_STOP_S = 60.0
_CATALOG_S = 60.0


def start(clone: Clone, credentials: Credentials, expected: Facts, *, timeout_s: float) -> Facts:
    """Start it and wait for the end of its recovery; see the contract."""
    control = _control(clone)
    if not clone.enclosure:
        lead_inside(clone)
    _whole(clone)
    if _find(clone) is None:
        _keep_no_log(clone)
        if clone.private:
            _write(f"{clone.folder}/{_HBA}", _PEER, control)
        done = _run(clone, *_pg_ctl(clone, "start", "-l", f"{clone.folder}/{_LOG}", "-o", _options(clone, control)),
                    timeout_s=timeout_s)  # fmt: skip
        if _find(clone) is None:
            raise _failed(clone, "did not start", done.complaint, "not-started")
    caption = f"{control.caption} on the clone {clone.session}"
    subject = Subject(caption, _log_directory(clone), f"{clone.folder}/{_LOG}", partial(_find, clone))
    try:
        reached = confirm(subject, _login(clone, credentials), expected, timeout_s=timeout_s)
    except SlackwaterError as e:
        raise _failed(clone, e.sentence.partition(subject.caption)[2].strip(" .") or e.sentence, "", e.reason) from e
    server = _running(clone)
    return {**reached, "socket_directory": server.lock.socket_directory, "port": server.lock.port}


def check(clone: Clone, credentials: Credentials, question: Question | None) -> Facts:
    """Read everything; see the contract. The server is stopped when this returns."""
    server, login = _running(clone), _login(clone, credentials)
    with connected(door_of(server), login) as connection:
        checksums = _one(connection, "show data_checksums")
        superuser = _one(connection, "select rolname from pg_roles where rolname = current_user and rolsuper")
    facts = {"amcheck": _amcheck(clone, server, superuser)}
    if question is not None:
        facts["question"] = _ask(clone, server, login, question)
    stop(clone)
    facts["checksums"] = _checksums(clone) if checksums == "on" else "off in this cluster"
    return facts


def catalog(clone: Clone, credentials: Credentials) -> Catalog:
    """Ask every database that the clone lets us into for its tables."""
    door, login = door_of(_running(clone)), _login(clone, credentials)
    with connected(door, login) as connection:
        rows = connection.execute("select oid::int8, datname, datallowconn from pg_database").fetchall()
    found: dict[Key, Table] = {}
    for database, known_as, _ in (each for each in rows if each[2]):
        with connected(door, login, database=known_as, deadline_s=_CATALOG_S) as connection:
            for number, file, root, table, kind in connection.execute(TABLES.encode()).fetchall():
                found[database, number] = Table(_plain(table), file, root, kind)
    return Catalog({each[0]: _plain(each[1]) for each in rows}, found)


def stop(clone: Clone) -> None:
    """Stop it cleanly."""
    if _find(clone) is not None:
        done = _run(clone, *_pg_ctl(clone, "stop", "-m", "fast"), timeout_s=_STOP_S)
        if _find(clone) is not None:
            raise _failed(clone, "did not stop", done.complaint, "not-stopped")


def _amcheck(clone: Clone, server: Postmaster, superuser: str) -> str:
    """Heap and indexes, each index against its table (https://www.postgresql.org/docs/15/app-pgamcheck.html).

    Its role is the one we log in as: peer authentication admits the owner as no other.
    """
    program = os.path.join(_control(clone).bin_dir, "pg_amcheck")
    if not os.access(program, os.X_OK):
        return "not made: pg_amcheck is not installed"
    if not clone.private:
        return "not made: others may log in here"
    if not superuser:
        return "not made: the role named like the owner of the files is no superuser"
    done = _run(
        clone, program, "--all", "--install-missing", "--heapallindexed", "--no-strict-names", "-h", clone.folder,
        "-p", str(server.lock.port), "-U", superuser, "--maintenance-db=postgres", timeout_s=_CHECK_S,
    )  # fmt: skip
    said = f"{done.output}\n{done.complaint}".strip()
    if 'extension "amcheck" is not available' in said:
        return "not made: the extension amcheck is not installed"
    if done.status != 0:
        raise _failed(clone, "is damaged, by the word of pg_amcheck", _first_lines(said), "damaged")
    return "tables and indexes of all databases are sound"


def _checksums(clone: Clone) -> str:
    """Every block of every file (https://www.postgresql.org/docs/15/app-pgchecksums.html); the server is stopped."""
    control = _control(clone)
    program = os.path.join(control.bin_dir, "pg_checksums")
    if not os.access(program, os.X_OK):
        return "not made: pg_checksums is not installed"
    done = _run(clone, program, "--check", "-D", _directory(clone), timeout_s=_CHECK_S)
    if done.status != 0:
        said = _first_lines(f"{done.complaint}\n{done.output}")
        raise _failed(clone, "is damaged, by the word of pg_checksums", said, "damaged")
    blocks = next(
        (line.rpartition(":")[2].strip() for line in done.output.splitlines() if "Blocks scanned" in line), ""
    )
    return f"good in {blocks or 'all'} blocks"


def _ask(clone: Clone, server: Postmaster, login: Credentials, question: Question) -> str:
    database = question.database or "postgres"
    try:
        with connected(door_of(server), login, database=database, deadline_s=_CHECK_S) as connection:
            connection.execute('set search_path = "$user", public')
            found = _one(connection, question.query).strip()
    except SlackwaterError as e:
        raise _failed(clone, "did not answer the question of the specification", e.sentence, "question") from e
    if found != question.expect.strip():
        raise _failed(
            clone, f"answered {found!r}, and {question.expect.strip()!r} was expected", question.query, "question"
        )
    return f"answered as expected: {found}"


def _control(clone: Clone) -> Control:
    return Control(**control_fields(clone.component.ref.name, clone.component.facts))


def _directory(clone: Clone) -> str:
    """The data directory as the server on the clone knows it."""
    directory = str(clone.component.facts["data_directory"])
    return directory if clone.enclosure else clone.trees[directory]


def _log_directory(clone: Clone) -> str:
    """Where its pg_wal can be read from here: as a link it would lead to the original."""
    separate = next((clone.trees[each.path] for each in clone.component.files if each.via == "pg_wal"), "")
    return separate or f"{clone.trees[str(clone.component.facts['data_directory'])]}/pg_wal"


def _find(clone: Clone) -> Postmaster | None:
    return postmaster_enclosed(clone.enclosure) if clone.enclosure else postmaster_on(_directory(clone))


def _running(clone: Clone) -> Postmaster:
    server = _find(clone)
    if server is None:
        raise _failed(clone, "does not run", "", "gone")
    return server


def _login(clone: Clone, credentials: Credentials) -> Credentials:
    """As the owner of the files where we let in nobody else; else as everybody has to."""
    return Credentials() if clone.private else credentials


def _whole(clone: Clone) -> None:
    """Nothing of what the component had may be missing: the engine starts without a tablespace and says nothing."""
    for files in clone.component.files:
        if not os.path.isdir(clone.trees[files.path]):
            raise _failed(
                clone, f"lacks its {files.role}: there is no {files.path} in the replica", "", "files-missing"
            )


def _keep_no_log(clone: Clone) -> None:
    """The slots that `rewrite` left for a recovered server keep the log of the original; a clone needs none."""
    slots = f"{clone.trees[str(clone.component.facts['data_directory'])]}/pg_replslot"
    for name in os.listdir(slots):
        if keeps_log(name):
            shutil.rmtree(f"{slots}/{name}")


def _pg_ctl(clone: Clone, verb: str, *more: str) -> tuple[str, ...]:
    control = _control(clone)
    start_directory = control.start_directory if clone.enclosure else _directory(clone)
    directory = start_directory if verb == "start" else _directory(clone)
    return (os.path.join(control.bin_dir, "pg_ctl"), verb, "-D", directory, "-w", *more)


def _options(clone: Clone, control: Control) -> str:
    settings = [*_SETTINGS, f"unix_socket_directories={clone.folder}"]
    if clone.private:
        settings.append(f"hba_file={clone.folder}/{_HBA}")
    if not clone.enclosure:
        settings.append(f"data_directory={_directory(clone)}")
    given = [control.options] if control.options else []
    return " ".join([*given, *(f"-c {shlex.quote(each)}" for each in settings)])


def _run(clone: Clone, *words: str, timeout_s: float) -> Finished:
    """Run a program as the owner, where the clone is; pg_ctl is told how long it may wait."""
    within = namespaces.inside(clone.enclosure) if clone.enclosure else ()
    patience = ("-t", str(int(timeout_s))) if words[0].endswith("/pg_ctl") else ()
    leaves_a_daemon = bool(patience)
    return run(
        *within, *as_owner(_control(clone)), *words, *patience,
        timeout_s=timeout_s + 30, check=False, fold_output=leaves_a_daemon, own_session=leaves_a_daemon,
    )  # fmt: skip


def _write(path: str, text: str, control: Control) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as f:
        f.write(text)
        os.fchown(fd, control.uid, control.gid)


def _plain(name: str) -> str:
    """A name as it may be shown: anybody who may make a table can give it one with a newline, or worse."""
    return "".join(each if each.isprintable() else "?" for each in name)


def _one(connection: "Connection", query: str) -> str:
    row = connection.execute(query.encode()).fetchone()
    return str(row[0]) if row else ""


def _first_lines(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " | ".join(lines[:3])[:600]


def _failed(clone: Clone, what: str, said: str, code: str) -> SlackwaterError:
    """Say what went wrong; a full disk says nothing about the replica."""
    words = said or last_words(f"{clone.folder}/{_LOG}")
    full = os.strerror(errno.ENOSPC) in words
    return (SlackwaterError if full else VerificationError)(
        f"A clone of {clone.component.ref} {what}" + (f": {words}" if words else "") + ".",
        data="The application was not touched.",
        hint="Make room on the filesystem of the replica." if full else "",
        code="no-room" if full else code,
    )
