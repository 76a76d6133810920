# SPDX-License-Identifier: Apache-2.0
"""What is the provider `plain`'s own: `effects`, by their names in journals; all else is in `_trees`."""
