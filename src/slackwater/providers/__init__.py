# SPDX-License-Identifier: Apache-2.0
"""The parts that make snapshots: one file for each storage technology.

`contract.py` is what all of them do. A provider knows volumes, copies, clones and how to put one in another's place;
it knows nothing of applications. Everything it makes bears the owner's tag on the storage itself; nothing without it
is touched.
"""
