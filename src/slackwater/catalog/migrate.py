# SPDX-License-Identifier: Apache-2.0
"""Bringing the schema up to date. Alembic, which takes long to import, is asked only when something is to be done."""

import os

from sqlalchemy import Connection

from slackwater.catalog.database import UNTOUCHED, CatalogError, Database, rebuild_hint
from slackwater.catalog.schema import VERSIONS
from slackwater.errors import UsageError

_FOLDER = os.path.join(os.path.dirname(__file__), "migrations")


def version_of(connection: Connection, path: str) -> str | None:
    """The schema that the database has; None when it is empty.

    Raises:
        UsageError: a newer version of slackwater wrote it.
        CatalogError: it is some other database.
    """
    tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
    if not tables:
        return None
    found = (
        "alembic_version" in tables and connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    )
    if not found:
        raise CatalogError(
            f"{path} is a database, but not a catalog of slackwater.",
            data="Nothing was changed.",
            hint=rebuild_hint(path),
        )
    if found not in VERSIONS:
        raise UsageError(
            f"The catalog {path} was written by a newer version of slackwater "
            f"(its schema is {found}, this version knows up to {VERSIONS[-1]}).",
            data=f"Nothing was changed. {UNTOUCHED}",
            hint="Update slackwater on this host. Replicas can be recovered without it: RECOVER.txt beside each.",
            code="newer-catalog",
        )
    return str(found)


def migrate(database: Database) -> None:
    """Bring the schema up to date, in one transaction: killed at any instant, the old one or the new one is there.

    Nothing happens when it is up to date, and when two processes do this at once the second finds it done.

    Raises:
        UsageError, CatalogError: as `version_of`.
    """
    with database.read() as connection:
        if version_of(connection, database.path) == VERSIONS[-1]:
            return
    database.use_wal()
    with database.write() as connection:
        if version_of(connection, database.path) != VERSIONS[-1]:
            _run_migrations(connection)


def _run_migrations(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", _FOLDER.replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
