# SPDX-License-Identifier: Apache-2.0
"""The nouns of the design page as plain immutable values.

Here: what a component, a volume, a plan, a replica and a session *are*. Not here: how any of them is found, made or
stored; no file of this room does input or output or imports another room. Values are frozen dataclasses of strings,
numbers, tuples and each other, so that every one of them can be written into a document and read back unchanged.

Begin with `component.py`, then `storage.py`, then `plan.py`, which joins the two.
"""
