# SPDX-License-Identifier: Apache-2.0
"""Files that share extents (ioctl_ficlone(2)), on XFS and Btrfs, and the flags that decide how their data lies.

Everything raises OSError when the kernel refuses.
"""

import fcntl
import struct

_FICLONE, _FIEMAP = 0x40049409, 0xC020660B
_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602
_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
#: chattr(1): C, c, m. A file with C and one without cannot share extents, and it can be set only on an empty one.
_FLAGS = 0x00800000 | 0x00000004 | 0x00000400
#: Extent size hints and the inheritance of a project (xfs_quota(8)): without its project a directory cannot be renamed.
_XFLAGS = 0x00000200 | 0x00000800 | 0x00001000


def clone(target: int, source: int) -> None:
    """Let a file share all extents of another, in one instant. What is not yet on the disk of it is written first.

    The target keeps what it has beyond the end of the source.
    """
    fcntl.ioctl(target, _FICLONE, source)


def extents(fd: int) -> int:
    """In how many pieces a file lies, with which the time of `clone` grows."""
    told = bytearray(28)
    fcntl.ioctl(fd, _FSGETXATTR, told)
    if count := struct.unpack_from("=I", told, 8)[0]:
        return int(count)
    order = bytearray(struct.pack("=QQIIII", 0, 2**64 - 1, 0, 0, 0, 0))
    fcntl.ioctl(fd, _FIEMAP, order)
    return int(struct.unpack_from("=I", order, 20)[0])


def carry_flags(target: int, source: int, fstype: str) -> None:
    """Give a file or directory, still empty, the flags of another that decide how its data lies."""
    if fstype == "btrfs":
        wanted, present = (_flags(fd) for fd in (source, target))
        if (wanted ^ present) & _FLAGS:
            fcntl.ioctl(target, _SETFLAGS, bytearray(struct.pack("=q", (present & ~_FLAGS) | (wanted & _FLAGS))))
        return
    told = bytearray(28)
    try:
        fcntl.ioctl(source, _FSGETXATTR, told)
    except OSError:
        if fstype == "xfs":
            raise
        return  # a filesystem that knows no such flags
    flags, hint, _, project, cow_hint = struct.unpack_from("=5I", told)
    if flags & _XFLAGS or project:
        fcntl.ioctl(target, _FSSETXATTR, struct.pack("=5I8x", flags & _XFLAGS, hint, 0, project, cow_hint))


def _flags(fd: int) -> int:
    told = bytearray(8)
    fcntl.ioctl(fd, _GETFLAGS, told)
    return int(struct.unpack_from("=I", told)[0])
