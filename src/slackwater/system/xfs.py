# SPDX-License-Identifier: Apache-2.0
"""XFS as the kernel offers it: what a filesystem is, and when its names are on the disk.

Numbers and structures are those of `xfs_fs.h` of xfsprogs. Everything raises OSError when the kernel refuses.
"""

import fcntl
import os
import struct
from dataclasses import dataclass
from uuid import UUID

from slackwater.system import files

_GEOMETRY = 0x8100587E
_REFLINK = 1 << 20  # XFS_FSOP_GEOM_FLAGS_REFLINK


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is needed of XFS_IOC_FSGEOMETRY."""

    uuid: str
    reflink: bool
    """Files can share extents."""


def geometry(fd: int) -> Geometry:
    """Describe the XFS that a descriptor lies on.

    Raises:
        OSError: it does not lie on XFS.
    """
    told = bytearray(256)
    fcntl.ioctl(fd, _GEOMETRY, told)
    flags: int = struct.unpack_from("=I", told, 92)[0]
    return Geometry(str(UUID(bytes=bytes(told[64:80]))), bool(flags & _REFLINK))


def commit(fd: int) -> None:
    """Wait until all names that were changed up to now are on the disk.

    fsync(2) of a directory would wait for its own changes only. That of a file without a name, made just now, waits for
    all that came before it in the log.

    Args:
        fd: a directory.
    """
    try:
        unnamed = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=fd)
    except OSError:  # no room for one
        files.write_back(fd)
        return
    try:
        os.fsync(unnamed)
    finally:
        os.close(unnamed)
