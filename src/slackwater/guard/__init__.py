# SPDX-License-Identifier: Apache-2.0
"""The thaw process: what is frozen is released at its deadline, whatever becomes of us.

`guard.py` is a program of its own: standard library only, it imports nothing of ours and fits on a page. `client.py`
starts it and speaks with it. A set is good only after the guard's answer "released by your order, and not before".
"""
