# SPDX-License-Identifier: Apache-2.0
"""Clusters as Debian keeps them: `/etc/postgresql/VERSION/NAME/postgresql.conf`, see pg_createcluster(1)."""

import glob
import os
import re
from dataclasses import dataclass

_ROOT = "/etc/postgresql"
_PG_CTLCLUSTER = "/usr/bin/pg_ctlcluster"


@dataclass(frozen=True, slots=True)
class DebianCluster:
    """A cluster that has a configuration, whether it runs or not."""

    name: str
    """`15/main`"""
    config_file: str
    data_directory: str
    """As configured; may hold links, may not exist."""
    port: int
    uid: int
    """Its owner: Debian gives the configuration to whom the data directory belongs (pg_createcluster(1))."""
    gid: int


def name_of(config_file: str) -> str:
    """The name of the cluster with this configuration file; empty when Debian does not keep it."""
    match = re.fullmatch(rf"{_ROOT}/([^/]+)/([^/]+)/postgresql\.conf", config_file)
    return f"{match[1]}/{match[2]}" if match else ""


def controls() -> bool:
    """Whether Debian's own command for its clusters is here."""
    return os.access(_PG_CTLCLUSTER, os.X_OK)


def programs_of(major: str) -> str:
    """Where Debian puts the server programs of a version."""
    return f"/usr/lib/postgresql/{major}/bin"


def clusters() -> list[DebianCluster]:
    """All clusters with a configuration that can be read and names a data directory."""
    found = (_cluster(path) for path in sorted(glob.glob(f"{_ROOT}/*/*/postgresql.conf")))
    return [each for each in found if each]


def setting(text: str, name: str) -> str:
    """A setting of a configuration file's text: the last one counts (PostgreSQL, "Setting Parameters")."""
    value = ""
    for match in re.finditer(rf"(?im)^[ \t]*{name}[ \t]*(?:=|[ \t])[ \t]*(?:'((?:[^']|'')*)'|([^\s#']+))", text):
        value = match[1].replace("''", "'") if match[1] is not None else match[2]
    return value


def _cluster(config_file: str) -> DebianCluster | None:
    try:
        with open(config_file, encoding="utf-8", errors="replace") as f:
            text, owner = f.read(), os.fstat(f.fileno())
    except OSError:
        return None
    directory, port = setting(text, "data_directory"), setting(text, "port")
    if not directory.startswith("/"):
        return None
    number = int(port) if port.isdecimal() else 5432
    return DebianCluster(name_of(config_file), config_file, directory, number, owner.st_uid, owner.st_gid)
