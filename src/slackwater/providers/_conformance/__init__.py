# SPDX-License-Identifier: Apache-2.0
"""The parts of the conformance kit of providers.

`ground` scratch volumes, and backups and recoveries on them · `pictures` what is in a directory, to be compared ·
`promises` the list of checks · `looking`, `instant`, `switching`, `keeping`, `parts` the checks, in this order.
"""
