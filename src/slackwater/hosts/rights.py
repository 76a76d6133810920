# SPDX-License-Identifier: Apache-2.0
"""What a command that changes something needs: root, or an installation of one's own."""

import os

from slackwater.errors import RightsError


def require_rights(state_dir: str) -> None:
    """Raise when we are neither root nor a user whose own installation this is: its state lies in a folder of ours.

    Such a user can do what providers and writers can without root; what they cannot is refused by the plan.

    Raises:
        RightsError: we are neither.
    """
    while not os.path.exists(state_dir):
        state_dir = os.path.dirname(state_dir)
    if os.stat(state_dir).st_uid != os.geteuid():
        require_root()


def require_root() -> None:
    """Raise when we are not root: volumes, other users' processes and the journal are root's.

    Raises:
        RightsError: we are not.
    """
    if os.geteuid() != 0:
        raise RightsError(
            "This needs root: it works on volumes, mounts and other users' processes.",
            data="Nothing was changed.",
            hint="Run it with sudo.",
        )
