# SPDX-License-Identifier: Apache-2.0
"""The parts of the writer `postgresql`.

`find` servers, as the kernel shows them · `debian` clusters as Debian keeps them · `connect` logging in, and why not ·
`ask` what only the server knows · `describe` all of it as components · `managed` cluster managers · `controlfile` what
a data directory says without a server · `control` stopping and starting · `effects` the same for the journal ·
`bridge` and `segments` a log that spans copies which are not of one instant · `autoconf`, `archive` and `rewrite`
making a clone ready · `confirm` the proof that it recovered.
"""
