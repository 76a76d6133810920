# SPDX-License-Identifier: Apache-2.0
"""The list of checks: each a function, whose name is the check's and whose first line is the promise."""

from collections.abc import Callable

from slackwater.providers._conformance.ground import Ground

CHECKS: dict[str, Callable[[Ground], None]] = {}
"""By name, in the order in which they are made. A check raises when the promise is broken."""


def promise(check: Callable[[Ground], None]) -> Callable[[Ground], None]:
    """Make a function one of the checks."""
    CHECKS[check.__name__.replace("_", "-")] = check
    return check
