# SPDX-License-Identifier: Apache-2.0
"""Filesystems in loop files, one in another where that is asked for; all are gone with their context."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slackwater.system import mounts
from tests.platform.crowd import eventually

MAKE = {
    "ext4": (16, ("mkfs.ext4", "-q", "-F")),
    "xfs": (320, ("mkfs.xfs", "-q", "-f")),
    "btrfs": (128, ("mkfs.btrfs", "-q", "-f")),
}


@contextmanager
def mounted(kind: str, folder: Path, name: str = "disk") -> Iterator[Path]:
    """A filesystem in the file `folder/name.image`, mounted at a place of its own below /dev/shm."""
    mib, make = MAKE[kind]
    image = folder / f"{name}.image"
    with open(image, "wb") as f:
        f.truncate(mib << 20)
    subprocess.run([*make, str(image)], check=True, stdout=subprocess.DEVNULL)
    place = Path(f"/dev/shm/sw-{os.urandom(4).hex()}-{name}")
    place.mkdir()
    try:
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
        try:
            yield place
        finally:
            while mounts.at(str(place)):
                thaw(place)
                assert eventually(lambda: subprocess.run(["umount", str(place)], check=False).returncode == 0, 20)
    finally:
        place.rmdir()


def thaw(place: Path) -> bool:
    """Thaw, as a stranger does; whether it had been frozen."""
    return subprocess.run(["fsfreeze", "-u", str(place)], check=False, stderr=subprocess.DEVNULL).returncode == 0


def writable(place: Path, within_s: float = 0.3) -> bool:
    """Whether a write comes back in time; one that has to wait is left behind, and ends when it may."""
    words = ["/bin/sh", "-c", 'exec touch "$0"', str(place / f"t{os.urandom(4).hex()}")]
    writer = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        return writer.wait(within_s) == 0
    except subprocess.TimeoutExpired:
        writer.kill()
        return False
