# SPDX-License-Identifier: Apache-2.0
"""Settings and specifications: TOML, checked by pydantic; unknown keys are errors that name the valid ones.

`places.py` where things lie · `quantities.py` durations and sizes as people write them · `settings.py` the host's
`slackwater.toml` · `specification.py` what to back up, and its commented file.
"""
