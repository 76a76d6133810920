# SPDX-License-Identifier: Apache-2.0
"""What a user asks for: one file per kind of session.

A session takes the cell (catalog, settings, host) and plain values, tells its story through an observer, and returns a
result value; it prints nothing. Start with `backup.py`.
"""
