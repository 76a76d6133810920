# SPDX-License-Identifier: Apache-2.0
"""Names and ids after a TAB: cheap, silent, and read by the plainest means, since a shell waits for them."""

import os
import sqlite3
from contextlib import closing
from urllib.parse import quote

from slackwater.config.places import Places

_TIMEOUT_S = 0.2
_MOST = 200


def specifications(incomplete: str) -> list[str]:
    """Names of specifications that begin so."""
    try:
        names = os.listdir(Places.from_environment().specs_dir)
    except OSError:
        return []
    stems = (name.removesuffix(".toml") for name in names if name.endswith(".toml") and not name.startswith("."))
    return sorted(stem for stem in stems if stem.startswith(incomplete))


def replicas(incomplete: str) -> list[str]:
    """Ids of replicas that begin so, newest first, and `latest`."""
    return _ids("SELECT id FROM replicas ORDER BY created DESC LIMIT ?", incomplete)


def clones(incomplete: str) -> list[str]:
    """Names of clones that begin so, newest first."""
    return [
        each for each in _ids("SELECT name FROM clones ORDER BY created DESC LIMIT ?", incomplete) if each != "latest"
    ]


def sessions(incomplete: str) -> list[str]:
    """Ids of sessions that begin so, newest first, and `latest`."""
    return _ids("SELECT id FROM sessions ORDER BY started DESC LIMIT ?", incomplete)


def progress(incomplete: str) -> list[str]:
    """Ways to tell of progress."""
    return [each for each in ("auto", "plain", "json", "none") if each.startswith(incomplete)]


def _ids(query: str, incomplete: str) -> list[str]:
    """Ask the catalog's file without the catalog, whose import would take longer than a shell should wait."""
    path = Places.from_environment().catalog_file
    try:
        if not os.path.exists(path):
            return []
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True, timeout=_TIMEOUT_S)) as database:
            found = [str(row[0]) for row in database.execute(query, (_MOST,))]
    except (sqlite3.Error, OSError):
        return []
    return [each for each in (*found, *(["latest"] if found else [])) if each.startswith(incomplete)]
