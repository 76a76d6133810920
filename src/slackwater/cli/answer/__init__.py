# SPDX-License-Identifier: Apache-2.0
"""Values as JSON: one object, lists under their plural noun, RFC 3339 times in UTC, units in the names.

Fields are added, never renamed and never given a second meaning, as long as `schema_version` stays what it is.
There is a file for each noun.
"""

# Each of these says how its values are shown.
from slackwater.cli.answer import component, host, proof, replica, session  # noqa: F401
from slackwater.cli.answer.kit import answer

__all__ = ["answer"]
