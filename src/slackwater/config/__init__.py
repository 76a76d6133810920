# SPDX-License-Identifier: Apache-2.0
"""Settings and specifications: TOML, checked by pydantic; unknown keys are errors that name the valid ones.

`places.py` where things lie · `files.py` who may have written them · `quantities.py` durations and amounts as people
write them · `tables.py` checking, with errors that teach · `settings.py` the host's `slackwater.toml` ·
`specification.py` what to back up · `template.py` its commented file.
"""
