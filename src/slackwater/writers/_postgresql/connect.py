# SPDX-License-Identifier: Apache-2.0
"""Logging in to a server through its unix socket, never longer than a deadline, and saying why it could not be done.

With nothing configured we are the owner of the data directory for the moment of connect(2): Debian's untouched
`peer` authentication then lets us in as that user (PostgreSQL, "Peer Authentication"). With a user, a service or a
password file configured we stay who we are.
"""

import contextlib
import os
import pwd
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from slackwater.errors import RightsError, SlackwaterError
from slackwater.model.component import Credentials
from slackwater.system.credentials import as_user

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

#: How long a server may take to answer all questions of one login.
PATIENCE_S = 5.0
#: What the server says when it lets nobody in yet, or no more.
_NOT_NOW = ("starting up", "not yet accepting", "not accepting", "shutting down", "recovery mode", "No such file",
            "Connection refused")  # fmt: skip
#: libpq would read a .pgpass of the home folder: one that is never there keeps it from that.
_NO_FILE = "/nonexistent/pgpass"
_ROLE_HINT = "docs/how-to/postgresql-role.md lists what the role needs."


@dataclass(frozen=True, slots=True)
class Door:
    """Where a server listens, and who must be behind it."""

    pid: int
    socket_directory: str
    port: int
    uid: int
    gid: int


@contextlib.contextmanager
def connected(
    door: Door, credentials: Credentials, *, database: str = "postgres", deadline_s: float = PATIENCE_S
) -> "Iterator[Connection]":
    """Give a connection in autocommit mode that is cut when the deadline passes, whatever the server does.

    Raises:
        RightsError: the server does not let us in (`wrong-password`, `no-password`, `not-admitted`), or what was asked
            inside the context is not allowed (`no-right`).
        SlackwaterError: it is not answering, or starting up or shutting down (`starting`), or psycopg is missing.
    """
    psycopg = _psycopg()
    ends_s = time.monotonic() + deadline_s
    connection = _connect(psycopg, door, credentials, database, deadline_s)
    cut = threading.Event()
    stream = socket.socket(fileno=os.dup(connection.fileno()))
    watch = threading.Timer(max(0.1, ends_s - time.monotonic()), _cut, (stream, cut))
    watch.daemon = True
    watch.start()
    try:
        with explained(door, deadline_s, cut):
            yield connection
    finally:
        watch.cancel()
        watch.join()
        stream.close()
        connection.close()


@contextlib.contextmanager
def explained(door: Door, deadline_s: float, cut: threading.Event | None = None) -> Iterator[None]:
    """Turn what the server or its client library says inside the context into an error for people; see `connected`."""
    psycopg = _psycopg()
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as e:
        raise RightsError(
            f"The database role may not do what is needed: {_first_line(e)}.",
            data="Nothing was changed.", hint=_ROLE_HINT, code="no-right",
        ) from e  # fmt: skip
    except psycopg.Error as e:
        raise _not_answering(door, deadline_s) if cut and cut.is_set() else _failed(door, e) from e


def _connect(
    psycopg: ModuleType, door: Door, credentials: Credentials, database: str, deadline_s: float
) -> "Connection":
    parameters: dict[str, Any] = {
        "host": door.socket_directory,
        "port": door.port,
        "dbname": database,
        "connect_timeout": max(2, int(deadline_s)),
        "application_name": "slackwater",
        "client_encoding": "utf8",
        "gssencmode": "disable",
        # A database's owner can put functions into its public schema: nothing of theirs is called in our name.
        # A connection that waits for us between two questions is not idle.
        "options": f"-c search_path=pg_catalog -c statement_timeout={int(deadline_s * 1000)} -c idle_session_timeout=0",
        **login(credentials, door.uid),
    }
    began_s = time.monotonic()
    try:
        with _identity(credentials, door):
            connection: Connection = psycopg.connect(**parameters, autocommit=True)
    except PermissionError as e:
        owner = _user_name(door.uid)
        raise RightsError(
            f"Only root or {owner} can log in to the server on {door.socket_directory}, port {door.port}.",
            data="Nothing was changed.", hint="Run slackwater as root.",
        ) from e  # fmt: skip
    except psycopg.Error as e:
        if time.monotonic() - began_s >= deadline_s - 0.5:
            raise _not_answering(door, deadline_s) from e
        raise refusal(str(e), door) from e
    _prove_who_answers(connection, door)
    return connection


def login(credentials: Credentials, uid: int) -> dict[str, str]:
    """The part of the connection parameters that says who we are. It names places of secrets, and holds none.

    Raises:
        RightsError: the password file is not there.
    """
    if credentials == Credentials():
        return {"user": _user_name(uid), "passfile": _NO_FILE}
    found: dict[str, str] = {}
    if credentials.service:
        found["service"] = credentials.service
    if credentials.user:
        found["user"] = credentials.user
    if credentials.password_file:
        found["passfile"] = _password_file(credentials.password_file)
    return found


def _password_file(name: str) -> str:
    path = name if name.startswith("/") else os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", ""), name)
    if not path.startswith("/") or not os.access(path, os.R_OK):
        raise RightsError(
            f"The password file {name} is not there or cannot be read.",
            data="Nothing was changed.",
            hint="password_file takes an absolute path, or the name of a credential that systemd passes to the unit.",
            code="no-password-file",
        )
    return path


def _identity(credentials: Credentials, door: Door) -> contextlib.AbstractContextManager[None]:
    return as_user(door.uid, door.gid) if credentials == Credentials() else contextlib.nullcontext()


def _prove_who_answers(connection: "Connection", door: Door) -> None:
    """The kernel knows who listens on the socket (SO_PEERCRED, unix(7)): it must be the postmaster that was found."""
    with socket.socket(fileno=os.dup(connection.fileno())) as peer:
        pid = int.from_bytes(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
    if pid != door.pid:
        connection.close()
        raise SlackwaterError(
            f"On {door.socket_directory}, port {door.port}, process {pid} answers and not the server {door.pid}.",
            data="Nothing was changed.",
            hint="Two servers share one socket directory and port: give one of them another port.",
            code="other-server",
        )


def refusal(said: str, door: Door) -> SlackwaterError:
    """Turn what libpq said into an error of ours. The client library is told nothing but text, so text is compared."""
    where = f"the server on {door.socket_directory}, port {door.port}"
    last = said.rpartition("FATAL:")[2].strip().splitlines()[0] if said.strip() else "no reason given"
    if "password authentication failed" in said:
        return RightsError(
            f"The password for {where} is wrong.", data="Nothing was changed.",
            hint="Correct the password file or the service file that the settings name.", code="wrong-password",
        )  # fmt: skip
    if "no password supplied" in said:
        return RightsError(
            f"A password is needed for {where}, and none was found.", data="Nothing was changed.",
            hint="Name a password_file in the settings, with * in its first two fields, readable by its owner only.",
            code="no-password",
        )  # fmt: skip
    if any(word in said for word in _NOT_NOW):
        return SlackwaterError(
            f"{where[0].upper()}{where[1:]} lets nobody in now: {last}.", data="Nothing was changed.",
            hint="Wait until it has started or stopped.", code="starting", retryable=True,
        )  # fmt: skip
    return RightsError(
        f"{where[0].upper()}{where[1:]} does not let us in: {last}.", data="Nothing was changed.",
        hint=f"Check pg_hba.conf and the user in the settings. {_ROLE_HINT}", code="not-admitted",
    )  # fmt: skip


def _not_answering(door: Door, deadline_s: float) -> SlackwaterError:
    return SlackwaterError(
        f"The server {door.pid} on port {door.port} did not answer within {deadline_s:g} s.",
        data="Nothing was changed.",
        hint="It may be stopped, frozen, or out of connections; look at its log.",
        code="not-answering",
        retryable=True,
    )


def _failed(door: Door, error: Exception) -> SlackwaterError:
    return SlackwaterError(
        f"The server {door.pid} on port {door.port} answered with an error: {_first_line(error)}.",
        hint="Look at the server's log.",
        code="server-error",
    )


def _cut(stream: socket.socket, cut: threading.Event) -> None:
    """Shut the socket down under a login that took too long: whoever waits on it is told at once."""
    cut.set()
    with contextlib.suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _psycopg() -> ModuleType:
    try:
        import psycopg
    except ImportError as e:
        raise SlackwaterError(
            "PostgreSQL servers cannot be asked: the Python package psycopg is missing.",
            data="Nothing was changed.",
            hint="pip install 'slackwater[postgresql]'",
            code="no-psycopg",
        ) from e
    return psycopg
