# SPDX-License-Identifier: Apache-2.0
"""The part of the writer `files`: `keeper.py`, the program that locks by a user's commands."""
