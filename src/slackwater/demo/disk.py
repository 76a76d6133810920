# SPDX-License-Identifier: Apache-2.0
"""Filesystems on sparse image files behind loop devices."""

import os
from collections.abc import Sequence
from typing import Literal

from slackwater.system.command import run


class PlainDisk:
    """A filesystem without subvolumes; the lab's sweep takes it away."""

    def __init__(self, path: str, size_bytes: int, make: Sequence[str], fstype: str) -> None:
        """Make it and mount it at `path`; the image lies beside, at `path.img`.

        Args:
            path: where.
            size_bytes: of the sparse image.
            make: the command that makes the filesystem, without the device.
            fstype: what it is then mounted as.

        Raises:
            CommandError: no loop device, no such filesystem in the kernel, or no room.
        """
        self.path = path
        self.image = f"{path}.img"
        with open(self.image, "wb") as f:
            f.truncate(size_bytes)
        self.device = run("losetup", "--find", "--show", self.image).output.strip()
        run(*make, self.device)
        os.mkdir(path)
        run("mount", "-t", fstype, self.device, path)

    def directory(self, name: str) -> str:
        """Make a directory on it and return its path."""
        path = os.path.join(self.path, name)
        os.makedirs(path)
        return path


class XfsDisk(PlainDisk):
    """An XFS whose files can share extents, or cannot."""

    def __init__(self, path: str, size_bytes: int, label: str, *, reflink: bool = True) -> None:
        """See `PlainDisk`."""
        super().__init__(path, size_bytes, ("mkfs.xfs", "-q", "-m", f"reflink={reflink:d}", "-L", label), "xfs")


class Ext4Disk(PlainDisk):
    """An ext4, which can snapshot nothing."""

    def __init__(self, path: str, size_bytes: int, label: str) -> None:
        """See `PlainDisk`."""
        super().__init__(path, size_bytes, ("mkfs.ext4", "-q", "-L", label), "ext4")


class BtrfsDisk:
    """A Btrfs filesystem of our own, its top level mounted; the lab's sweep takes it away."""

    def __init__(self, path: str, size_bytes: int, label: str) -> None:
        """Make it and mount its top level at `path`; the image lies beside, at `path.img`.

        Raises:
            CommandError: no loop device, no Btrfs in the kernel, or no room.
        """
        self.path = path
        """Where the top level (subvolume 5) is mounted."""
        self.image = f"{path}.img"
        with open(self.image, "wb") as f:
            f.truncate(size_bytes)
        self.device = run("losetup", "--find", "--show", self.image).output.strip()
        run("mkfs.btrfs", "-q", "-L", label, self.device)
        os.mkdir(path)
        run("mount", "-t", "btrfs", "-o", "subvolid=5", self.device, path)

    def subvolume(self, name: str) -> str:
        """Create a subvolume below the top level and return its path there."""
        path = os.path.join(self.path, name)
        run("btrfs", "subvolume", "create", path)
        return path

    def subvolume_id(self, name: str) -> int:
        """The number that the `subvolid=` mount option takes."""
        return int(run("btrfs", "inspect-internal", "rootid", os.path.join(self.path, name)).output)

    def mount_subvolume(self, name: str, target: str, by: Literal["subvol", "subvolid"] = "subvol") -> str:
        """Mount a subvolume on its own, by its path or by its number; the folder is made when it is missing."""
        os.makedirs(target, exist_ok=True)
        option = f"subvol=/{name}" if by == "subvol" else f"subvolid={self.subvolume_id(name)}"
        run("mount", "-t", "btrfs", "-o", option, self.device, target)
        return target

    def unmount(self, target: str) -> None:
        """Unmount what `mount_subvolume` mounted.

        Raises:
            CommandError: it is in use.
        """
        run("umount", target)
