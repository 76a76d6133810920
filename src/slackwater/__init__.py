# SPDX-License-Identifier: Apache-2.0
"""Slackwater: an application recovery manager for Linux.

In one short still moment it takes a consistent replica of everything an application lives on; it keeps and protects the
replicas; and it turns the application back to any of them in seconds, whatever its size. Begin reading at
`docs/design.md`, then `model/` (the nouns), `coordinator/events.py` (a backup) and `recovery/steps.py` (a recovery).
"""

__version__ = "0.1.0"

SQLITE_APPLICATION_ID = 0x536C6B57
"""In the header of our own SQLite files, so that nobody takes them for an application's (PRAGMA application_id)."""
