# SPDX-License-Identifier: Apache-2.0
"""Pure functions that decide, and give their reasons: which replicas rotation keeps, whether there is room."""
