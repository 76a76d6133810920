# SPDX-License-Identifier: Apache-2.0
"""From one schema to the next. What stands in a migration is history: it is never changed, and imports nothing of ours.

A new one is a file in `versions/` with the next number, that number at the end of `schema.VERSIONS`, and the change in
`schema.py`.
"""
