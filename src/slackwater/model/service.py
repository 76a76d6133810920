# SPDX-License-Identifier: Apache-2.0
"""What stands around an application and lives on it: stopped before it, and started again after it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Service:
    """One of them, in one of three ways: a unit, a container, or two commands."""

    unit: str = ""
    """Of systemd."""
    container: str = ""
    """Of docker or podman, by its name."""
    stop: tuple[str, ...] = ()
    """The program's absolute path and its arguments; no shell reads them."""
    start: tuple[str, ...] = ()
    timeout_s: float = 60.0
    """For its stop and for its start, each."""
