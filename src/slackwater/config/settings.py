# SPDX-License-Identifier: Apache-2.0
"""The host's settings: `slackwater.toml`. A missing file means the defaults."""

from collections.abc import Mapping

from pydantic import Field, StrictStr, field_validator

from slackwater.config.files import read_toml
from slackwater.config.tables import Duration, Table, check
from slackwater.errors import NotFoundError


class CatalogSettings(Table):
    """Where the catalog is kept."""

    url: StrictStr = ""

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


class LimitSettings(Table):
    """How long things may take."""

    wait: Duration = Field(default="0s", validate_default=True)
    """Seconds that a session waits for another to end, where the command line does not say."""


class Settings(Table):
    """All settings of a host."""

    catalog: CatalogSettings = CatalogSettings()
    plugins: PluginSettings = PluginSettings()
    limits: LimitSettings = LimitSettings()

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
