# SPDX-License-Identifier: Apache-2.0
"""Btrfs volumes on sparse image files behind loop devices."""

import os
from typing import Literal

from slackwater.system.command import run


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
