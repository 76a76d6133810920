# SPDX-License-Identifier: Apache-2.0
"""What is the provider `reflink`'s own: `effects`, by their names in journals; all else is in `_trees`."""
