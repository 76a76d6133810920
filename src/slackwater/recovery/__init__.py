# SPDX-License-Identifier: Apache-2.0
"""Putting an application back on a replica without copying its data.

`checks.py` says what stands against it before anything is touched. `steps.py` turns replica and live volumes into a
list of effects: the preview prints it, a session makes it, the journal finishes or undoes it.
"""
