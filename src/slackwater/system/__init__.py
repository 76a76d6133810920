# SPDX-License-Identifier: Apache-2.0
"""What a host's kernel and init know and can do, in small tools without opinions.

`clock` the time · `command` running a program · `mounts` mountinfo, mounting, fstab · `processes` who is there and who
holds what · `cgroups` freezing and moving processes · `btrfs` the filesystem's ioctls · `services` systemd units ·
`locks` one session at a time. Nothing here knows a writer, a provider or a session.
"""
