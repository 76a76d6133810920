# SPDX-License-Identifier: Apache-2.0
"""Commands of the administrator that a session runs around a hold, and around a stop."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hook:
    """One command."""

    command: tuple[str, ...]
    """The program's absolute path and its arguments; no shell reads them."""
    timeout_s: float = 60.0
    """After that it is killed, with everything that it has started in its process group."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Those of a specification. Each second one runs when its first one ran, whatever happened since."""

    pre_freeze: Hook | None = None
    post_thaw: Hook | None = None
    pre_stop: Hook | None = None
    post_start: Hook | None = None

    @property
    def given(self) -> dict[str, Hook]:
        """Those there are, by name."""
        names = ("pre_freeze", "post_thaw", "pre_stop", "post_start")
        return {name: hook for name in names if (hook := getattr(self, name))}


NO_HOOKS = Hooks()
