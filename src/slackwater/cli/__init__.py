# SPDX-License-Identifier: Apache-2.0
"""The command line: one file per noun. Commands call a session or a query and return values; `render.py` shows them."""
