# SPDX-License-Identifier: Apache-2.0
"""Finding writers and providers: entry points, the built-in ones by the same door as those of other packages.

A plug-in that cannot be loaded is reported and left out; it never takes the others along.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from slackwater.model.component import Handling
from slackwater.model.facts import Finding, Severity
from slackwater.providers.contract import Provider
from slackwater.writers.contract import Writer


@dataclass(frozen=True, slots=True)
class Plugins:
    """One of every writer and provider of a host, by name, and what could not be loaded."""

    writers: Mapping[str, Writer]
    providers: Mapping[str, Provider]
    broken: tuple[Finding, ...] = ()


def load(owner: str, handling: Mapping[str, Mapping[str, Handling]]) -> Plugins:
    """Make one of everything that is installed; `handling` is what specifications say, by writer and component name."""
    writers, broken_writers = load_writers(handling)
    providers, broken_providers = load_providers(owner)
    return Plugins(writers, providers, (*broken_writers, *broken_providers))


def load_writers(handling: Mapping[str, Mapping[str, Handling]]) -> tuple[dict[str, Writer], list[Finding]]:
    """Make one of every writer that is installed.

    Args:
        handling: what specifications say, by writer and component name.
    """
    writers, failures = {}, []
    for entry in entry_points(group="slackwater.writers"):
        try:
            writers[entry.name] = entry.load()(handling.get(entry.name, {}))
        except Exception as e:  # noqa: BLE001  # a stranger's code may raise anything
            failures.append(_broken(entry, e))
    return writers, failures


def load_providers(owner: str) -> tuple[dict[str, Provider], list[Finding]]:
    """Make one of every provider that is installed."""
    providers, failures = {}, []
    for entry in entry_points(group="slackwater.providers"):
        try:
            providers[entry.name] = entry.load()(owner)
        except Exception as e:  # noqa: BLE001  # a stranger's code may raise anything
            failures.append(_broken(entry, e))
    return providers, failures


def _broken(entry: EntryPoint, error: Exception) -> Finding:
    return Finding(
        "plug-in",
        Severity.WARNING,
        f"{entry.value} cannot be loaded and is left out: {error}.",
        "Install what it lacks, or remove the package that brings it.",
    )
