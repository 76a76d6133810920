# SPDX-License-Identifier: Apache-2.0
"""A host as sessions see it: local now, remote later, one contract.

`contract.py` is what a session may ask of a host; `local.py` is the host we run on, with its writers, providers,
journal and guard. Nothing in `sessions` knows which of the two it talks to.
"""
