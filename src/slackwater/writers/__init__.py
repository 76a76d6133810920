# SPDX-License-Identifier: Apache-2.0
"""The parts that speak for applications: one file each.

`contract.py` is what all of them do. A writer finds an application and its files by asking it, brings it to a still
point where a plan needs that, stops and starts it, and proves that it has recovered. It knows nothing of storage:
which volume carries a path, and how that is snapshotted, is the providers' business.
"""
