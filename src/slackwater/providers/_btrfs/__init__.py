# SPDX-License-Identifier: Apache-2.0
"""The parts of the provider `btrfs`.

`places` the tagged directories that hold a session's copies · `effects` snapshots, clones, the exchange, the seal,
deletions · `mounts` taking mounts away and bringing them back, and the bar over half a switch · `checks` what is looked
at before · `room` how much the filesystem can still take · `manual` the plain commands that recover without us.
"""
