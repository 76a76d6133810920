# SPDX-License-Identifier: Apache-2.0
"""A laboratory: scratch storage, real servers, a load that never stops, and an oracle that says what was lost.

`lab` the scratch world and its end · `disk` Btrfs volumes on loop devices · `cluster` PostgreSQL servers · `inventory`
what is there, as a list that can be compared · `sweep` taking a lab away by its name · `ledger` the tables · `load` and
`teller` writing into them without end, and counting what was acknowledged · `oracle` whether it is all still there ·
`show` the demonstration, its `scenes`, what it `needs`, its `screen`, and the `strike` at a backup in its window.

The demo and the tests stand on it. It looks at the machine with its own eyes (plain /proc and the tools of the
distribution, nothing of `slackwater.system` that is under test), so that a player is never its own referee.
"""
