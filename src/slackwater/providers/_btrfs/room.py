# SPDX-License-Identifier: Apache-2.0
"""How much a Btrfs can still take: judged by what is given out to chunks, not by statfs.

A Btrfs gives its devices out in chunks for data or for metadata (btrfs(5), "Typical use cases", and
btrfs-filesystem(8), `usage`). When everything is given out and the metadata chunks are full, every write fails with
ENOSPC and the filesystem may turn read-only, while statfs(2), whose `f_bavail` looks at data alone, still shows free
space. So the smaller of two counts:

- what data can take: what is free in its chunks, and all that is not given out, over the copies its profile makes;
- what metadata can take, likewise, without `RESERVES` times the reserve that the kernel keeps for itself
  (`GlobalReserve`): once for it, and once for what a running transaction holds. Measured on Linux 6.18: with 4.3 MiB
  more than the reserve of 5.5 MiB free, every write failed. What is left counts `DATA_PER_METADATA` times. Measured:
  a database that overwrites random pages of 8 KiB after a snapshot needs one byte of new metadata for 26 of data.
"""

from slackwater.model.storage import Room
from slackwater.system.btrfs import Allocation, Space

DATA_PER_METADATA = 16
RESERVES = 2
_DATA, _METADATA = 1, 4
_GLOBAL_RESERVE = 1 << 49
_RAID1, _DUP, _RAID10, _RAID5, _RAID6, _RAID1C3, _RAID1C4 = 0x10, 0x20, 0x40, 0x80, 0x100, 0x200, 0x400


def room_of(allocation: Allocation) -> Room:
    """Judge the room of a filesystem."""
    free = [total - used for total, used in allocation.devices]
    reserve = sum(s.total_bytes for s in allocation.spaces if s.flags & _GLOBAL_RESERVE)
    kinds = [s for s in allocation.spaces if not s.flags & _GLOBAL_RESERVE]
    data = [s for s in kinds if s.flags & _DATA]
    metadata = [s for s in kinds if s.flags & _METADATA]
    mixed = any(s.flags & _DATA for s in metadata)
    for_data = _fits(free, data) + _inside(data)
    for_metadata = _fits(free, metadata) + _inside(metadata) - RESERVES * reserve
    worth = for_metadata * (1 if mixed else DATA_PER_METADATA)
    total = _fits([total for total, _ in allocation.devices], data)
    return Room(total, max(0, min(for_data, worth, total)))


def _inside(spaces: list[Space]) -> int:
    return sum(space.total_bytes - space.used_bytes for space in spaces)


def _fits(free: list[int], spaces: list[Space]) -> int:
    """How many bytes new chunks of this kind can hold, with the profile of those that are there."""
    flags = 0
    for space in spaces:
        flags |= space.flags
    whole, largest, devices = sum(free), max(free, default=0), len(free)
    if flags & (_RAID5 | _RAID6):
        parity = 2 if flags & _RAID6 else 1
        return whole * max(devices - parity, 0) // max(devices, 1)
    if flags & _DUP:
        return whole // 2
    copies = 4 if flags & _RAID1C4 else 3 if flags & _RAID1C3 else 2 if flags & (_RAID1 | _RAID10) else 1
    if copies == 1:
        return whole
    # Copies lie on different devices: what one has more than all others together cannot be used.
    return min(whole // copies, (whole - largest) // (copies - 1))
