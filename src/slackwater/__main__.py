# SPDX-License-Identifier: Apache-2.0
"""`python -m slackwater`: the same as the command."""

from slackwater.cli.main import run

run()
