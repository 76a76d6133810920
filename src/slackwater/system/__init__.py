# SPDX-License-Identifier: Apache-2.0
"""What a host's kernel and init know and can do, in small tools without opinions.

`clock` the time · `command` running a program · `crew` blocking calls side by side · `mounts` mountinfo, mounting,
fstab · `processes` who is there and who holds what · `cgroups` freezing and moving processes · `filesystems`,
`btrfs`, `xfs`, `reflink` the filesystems' ioctls · `files` names, data and dirty pages · `services` systemd units ·
`locks` one session at a time · `story` what a session tells · `credentials` being another user for one call. Nothing
here knows a writer, a provider or a session.
"""
