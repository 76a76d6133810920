# SPDX-License-Identifier: Apache-2.0
"""All promises of a provider, in order."""

from slackwater.providers._conformance import looking  # isort: skip
from slackwater.providers._conformance import instant, switching, keeping, parts  # isort: skip
from slackwater.providers._conformance.promises import CHECKS

__all__ = ["CHECKS", "instant", "keeping", "looking", "parts", "switching"]
