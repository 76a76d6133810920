# SPDX-License-Identifier: Apache-2.0
"""What would be wrong after a power cut, so that the check has to show it: done to who runs our commands."""

from slackwater.providers import _document


def no_document() -> None:
    """What was put beside a replica has not come to the disk."""
    _document.load = lambda directory, name: None
