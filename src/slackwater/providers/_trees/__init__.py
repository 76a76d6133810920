# SPDX-License-Identifier: Apache-2.0
"""What the providers of directories share: `reflink`, whose copies share their extents, and `plain`, which copies.

`provider` the provider itself, but for what its files can · `commit` the instant of a copy · `mirror` one directory
tree made like another · `attributes` what a file is besides its data · `manifest` what tells whether a copy is
unaltered, and what a copy will cost · `places` the tagged directories that hold a session's copies, and who holds or
mounts a tree · `find` where such places can be · `effects` snapshots, clones, the exchange, the seal, deletions ·
`bars` the bar over half a switch · `checks` what is looked at before · `manual` the plain commands that recover
without us.
"""
