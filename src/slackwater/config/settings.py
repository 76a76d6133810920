# SPDX-License-Identifier: Apache-2.0
"""The host's settings: `slackwater.toml`. A missing file means the defaults."""

import os
from collections.abc import Mapping

from pydantic import Field, StrictStr, field_validator

from slackwater.config.files import read_toml
from slackwater.config.tables import Duration, Table, check
from slackwater.errors import NotFoundError


class CatalogSettings(Table):
    """Where the catalog is kept, and for how long."""

    url: StrictStr = ""
    keep_sessions: Duration = Field(default="1y", validate_default=True)
    """Seconds; sessions that ended longer ago, and to which no replica refers, are forgotten after a backup."""

    @field_validator("url")
    @classmethod
    def _only_sqlite(cls, url: str) -> str:
        if url:
            raise ValueError("this version keeps its catalog in SQLite in the state folder only; leave it empty")
        return url


class PluginSettings(Table):
    """Which writers and providers may be loaded, by name; empty: all that are installed."""

    writers: tuple[StrictStr, ...] = ()
    providers: tuple[StrictStr, ...] = ()


class VolumeSettings(Table):
    """Which volumes are none of ours."""

    deny: tuple[StrictStr, ...] = ()
    """Paths that are never snapshotted nor switched: no volume in them, and none that carries them."""

    @field_validator("deny")
    @classmethod
    def _only_absolute(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := next((path for path in paths if not path.startswith("/")), None):
            raise ValueError(f'"{wrong}" must be an absolute path')
        return paths


class WriterSettings(Table):
    """Which applications are none of ours."""

    disable: tuple[StrictStr, ...] = ()
    """Writers, by name, that are neither asked nor used."""


class LimitSettings(Table):
    """How long things may take."""

    wait: Duration = Field(default="0s", validate_default=True)
    """Seconds that a session waits for another to end, where the command line does not say."""


class MountSettings(Table):
    """Where replicas are mounted when no path is named."""

    root: StrictStr = "/run/slackwater/mnt"
    host: bool = False
    """With a folder of the host's name below it."""
    session: bool = True
    """With a folder of the replica's id below that."""

    @field_validator("root")
    @classmethod
    def _absolute(cls, root: str) -> str:
        if not root.startswith("/") or root != os.path.normpath(root):
            raise ValueError("must be an absolute path, without . and ..")
        return root


class Settings(Table):
    """All settings of a host."""

    catalog: CatalogSettings = CatalogSettings()
    plugins: PluginSettings = PluginSettings()
    limits: LimitSettings = LimitSettings()
    volumes: VolumeSettings = VolumeSettings()
    writers: WriterSettings = WriterSettings()
    mount: MountSettings = MountSettings()

    def origins(self, path: str) -> Mapping[str, str]:
        """Where each value came from: `limits.wait` → `path`, or `default`."""
        return {
            f"{table}.{key}": path if key in getattr(self, table).model_fields_set else "default"
            for table in type(self).model_fields
            for key in type(getattr(self, table)).model_fields
        }


def load(path: str) -> Settings:
    """Read the settings of a host; the defaults when there is no such file.

    Raises:
        UsageError: not TOML, an unknown key, or a value that is not accepted.
        RightsError: it may not be read, or others than root may write it.
    """
    try:
        data = read_toml(path)
    except NotFoundError:
        return Settings()
    return check(Settings, data, path)
