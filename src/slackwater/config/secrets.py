# SPDX-License-Identifier: Apache-2.0
"""Taking secrets out of text that is to be given away: those that are known, and what looks like one."""

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress

REMOVED = "[removed]"
_SHORTEST = 4
"""A known secret of fewer characters is in every text; it is found only where it is called one."""
_NAME = r"(?:pass(?:word|phrase|wd|file)?|pwd|secret|token|credentials?|(?:api|private|access)[_-]?key)"
_CALLED = re.compile(
    rf"""(?P<before>\b[\w.-]*{_NAME}[\w.-]*\\?["']?\s*[=:]\s*)
         (?P<value>\\?"(?:[^"\\]|\\.)*"|\\?'(?:[^'\\]|\\.)*'|(?!null\b|true\b|false\b)[^\s,;&"'\\{{[][^\s,;&"'\\]*)""",
    re.IGNORECASE | re.VERBOSE,
)
_IN_URL = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s:/@\"']*:)(?P<value>[^\s@\"']+)(?=@)", re.IGNORECASE)
#: On a command line the value comes behind a space, or as the next of a list of words; curl(1) has `-u USER:PASSWORD`.
_BEHIND = (
    re.compile(
        rf"""(?P<before>(?<![\w-])--?[\w-]*{_NAME}[\w-]*["']?(?:\s*,\s*|\s+)["']?)(?P<value>[^\s"',\]\\/-][^\s"',\]\\]*)""",
        re.IGNORECASE,
    ),
    re.compile(r"""(?P<before>(?<!\S)["']?(?:-u|--user)["']?[\s,=]+["']?[^\s:"',\\]+:)(?P<value>[^\s"',\]\\]+)"""),
    re.compile(r"""(?P<before>\b(?:Authorization:\s*\w+|Bearer)\s+)(?P<value>[^\s"',\]\\]+)""", re.IGNORECASE),
)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_NAMED_FILE = re.compile(r"""^\s*password_file\s*=\s*["'](?P<path>[^"'\n]+)""", re.MULTILINE)
#: Settings that name where a secret lies, and hold none.
_PLACES = re.compile(rf"passfile|{_NAME}[_-]?file", re.IGNORECASE)


def redact(text: str, known: Iterable[str] = ()) -> str:
    """Take out every known secret, and the value of whatever is called a password, a token or the like."""
    for secret in sorted({each for each in known if len(each) >= _SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, REMOVED)
    for each in (_IN_URL, *_BEHIND):
        text = each.sub(rf"\g<before>{REMOVED}", text)
    return _CALLED.sub(_called, text)


def _called(found: re.Match[str]) -> str:
    if _PLACES.search(found["before"]) and found["value"].strip("\\\"'").startswith("/"):
        return found[0]
    quote = found["value"][: -len(found["value"].lstrip("\\\"'")) or None] if found["value"][0] in "\\\"'" else ""
    return f"{found['before']}{quote}{REMOVED}{quote}"


def in_environment(environment: Mapping[str, str]) -> set[str]:
    """The values of variables whose names say that they are secret, as PGPASSWORD."""
    named = {value for name, value in environment.items() if _SECRET_NAME.search(name) and not value.startswith("/")}
    in_urls = {found["value"] for value in environment.values() for found in _IN_URL.finditer(value)}
    return named | in_urls


def in_password_file(path: str) -> set[str]:
    """The passwords in a file of `host:port:database:user:password` lines, or of one line with nothing else.

    A file that cannot be read holds nothing that we could have told.
    """
    found = set()
    for line in _lines(path):
        parts = re.split(r"(?<!\\):", line)
        if len(parts) >= 5:
            found |= {(last := ":".join(parts[4:])), re.sub(r"\\(.)", r"\1", last)}
        else:
            found.add(line)
    return found


def password_files_in(text: str) -> set[str]:
    """The password files that a specification names, also one that cannot be read otherwise."""
    return {found["path"] for found in _NAMED_FILE.finditer(text)}


def in_service_file(path: str) -> set[str]:
    """The passwords in a file of `key=value` lines (pg_service.conf)."""
    pairs = (line.partition("=") for line in _lines(path))
    return {value.strip() for key, _, value in pairs if _SECRET_NAME.search(key)}


def _lines(path: str) -> list[str]:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as f:
        lines = (line.strip() for line in f.read(1 << 20).splitlines())
        return [line for line in lines if line and not line.startswith("#")]
    return []


def service_files(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Where libpq looks for its service file ("The Connection Service File" of the PostgreSQL documentation)."""
    system = environment.get("PGSYSCONFDIR", "/etc/postgresql-common")
    own = environment.get("PGSERVICEFILE") or os.path.expanduser("~/.pg_service.conf")
    return own, os.path.join(system, "pg_service.conf")
