# SPDX-License-Identifier: Apache-2.0
"""`slackwater doctor --bundle`: everything that a maintainer needs for a bug report, as one file without secrets.

What cannot be read is one of the things to know: the part then says why, and the others are there.
"""

import io
import json
import os
import platform
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from glob import glob
from importlib import metadata
from typing import TYPE_CHECKING, Any

from slackwater import __version__
from slackwater.cli.frame import do
from slackwater.cli.values import Bundle, Diagnosis
from slackwater.config import secrets

if TYPE_CHECKING:
    from slackwater.sessions.cell import Cell

_FOLDER = "slackwater-bundle"
_SESSIONS = 20
_PACKAGES = ("alembic", "anyio", "psycopg", "pydantic", "rich", "sqlalchemy", "typer")


def make(cell: "Cell", path: str, diagnosis: Diagnosis) -> Bundle:
    """Write the bundle into a new file for its owner only, whole or not at all.

    Raises:
        UsageError: the file is there already.
        SlackwaterError: it cannot be written.
    """
    from slackwater.sessions.transfer import write_new

    known = _known_secrets(cell)
    parts, failed = {}, []
    for name, read in _parts(cell, diagnosis):
        try:
            text = read()
        except Exception as e:  # noqa: BLE001  # whatever is broken here, the other parts are still wanted
            text = f"{type(e).__name__}: {e}\n{getattr(e, 'hint', '')}\n"
            failed.append(name)
        parts[name] = secrets.redact(text, known).encode(errors="replace")
    data = _packed(parts, cell.clock.now().timestamp())
    write_new(path, data)
    return Bundle(path, tuple(parts), tuple(failed), len(data))


def _parts(cell: "Cell", diagnosis: Diagnosis) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name and reader of each file."""
    yield "version.json", lambda: _json(_versions())
    yield "doctor.json", lambda: _json(asdict(diagnosis))
    yield "engines.json", lambda: _json(_engines(cell))
    yield "catalog.json", lambda: _json(_catalog(cell))
    yield "sessions.json", lambda: _json([asdict(each) for each in cell.catalog.sessions.list(limit=_SESSIONS)])
    yield "journal.json", lambda: _json(_journal(cell))
    yield "storage.json", lambda: _json(_storage(cell))
    yield "mountinfo", partial(_read, "/proc/self/mountinfo")
    yield "os-release", partial(_read, "/etc/os-release")
    yield "settings.toml", partial(_read, cell.places.settings_file, missing_is="# none: the defaults hold\n")
    for folder, pattern, below in (
        (cell.places.specs_dir, "*.toml", "specs"),
        (cell.places.guard_dir, "*.json", "guard"),
    ):
        for path in sorted(glob(os.path.join(folder, pattern))):
            yield f"{below}/{os.path.basename(path)}", partial(_read, path)


def _versions() -> dict[str, object]:
    return {
        "slackwater": __version__,
        "python": sys.version,
        "kernel": " ".join(platform.uname()[2:5]),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _engines(cell: "Cell") -> object:
    identified = do(cell.host.identify)
    components = [
        {"component": str(e.ref), "caption": e.caption, "running": e.running, "files": e.files, "findings": e.findings}
        for e in identified.components
    ]
    return {"components": components, "failures": identified.failures}


def _catalog(cell: "Cell") -> object:
    """The export, but for the copies of configuration files: nobody can say where in them a secret stands."""
    from slackwater.sessions.transfer import contents

    plain = asdict(contents(cell))
    for replica in plain["replicas"]:
        for record in replica["document"]["components"]:
            record["configuration"] = {
                path: f"{len(text)} characters" for path, text in record["configuration"].items()
            }
    return plain


def _journal(cell: "Cell") -> object:
    """What the journal holds, again without the texts of configuration files."""
    sessions = list(cell.host.dump())
    for session in sessions:
        effects = session.get("effects")
        for effect in effects if isinstance(effects, list) else ():
            if "text" in effect["fields"]:
                effect["fields"]["text"] = f"{len(effect['fields']['text'])} characters"
    return sessions


def _storage(cell: "Cell") -> object:
    return [
        {"session": e.session, "places": e.places, "documented": e.document is not None, "pinned": e.pinned}
        for e in do(cell.host.found)
    ]


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> object:  # noqa: ANN401  # whatever JSON does not know
    return asdict(value) if hasattr(value, "__dataclass_fields__") else str(value)


def _read(path: str, missing_is: str = "") -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read(1 << 20)
    except FileNotFoundError:
        if missing_is:
            return missing_is
        raise


def _known_secrets(cell: "Cell") -> set[str]:
    """What stands in the files that specifications name, in libpq's service files, and in our own environment."""
    environment = dict(os.environ)
    known = secrets.in_environment(environment)
    for path in secrets.service_files(environment):
        known |= secrets.in_service_file(path)
    texts = [_read(path, missing_is=" ") for path in glob(os.path.join(cell.places.specs_dir, "*.toml"))]
    named = {name for text in texts for name in secrets.password_files_in(text)}
    for name in named | {environment.get("PGPASSFILE", ""), os.path.expanduser("~/.pgpass")}:
        folder = environment.get("CREDENTIALS_DIRECTORY", "")
        known |= secrets.in_password_file(os.path.join(folder, name)) if name else set()
    return known


def _packed(parts: dict[str, bytes], mtime_s: float) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in parts.items():
            entry = tarfile.TarInfo(f"{_FOLDER}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(mtime_s)
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()
