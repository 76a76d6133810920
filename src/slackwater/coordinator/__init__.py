# SPDX-License-Identifier: Apache-2.0
"""The part that brings writers and providers to one moment.

`plan.py` computes which hold makes a set consistent, and why, from what writers need and providers guarantee; it does
no input or output. `events.py` is the order of events of a backup, one function that reads like the design page's list.
"""
