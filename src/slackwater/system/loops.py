# SPDX-License-Identifier: Apache-2.0
"""Loop devices (loop(4)): the file behind one, and one for as long as it is needed."""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_CONTROL = "/dev/loop-control"
_GET_FREE, _CONFIGURE, _GET_STATUS64 = 0x4C82, 0x4C0A, 0x4C05
_AUTOCLEAR = 4
_ATTEMPTS = 32


def backing_file(device: str) -> str:
    """The file behind a loop device; empty for any other device."""
    name = os.path.basename(os.path.realpath(device))
    try:
        with open(f"/sys/block/{name}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as f:
            return f.read().removesuffix("\n")
    except OSError:
        return ""


def backing_device(number: str) -> str:
    """The `st_dev` of the file behind a loop device, `major:minor` like the device's own number; empty if untold."""
    try:
        with open(f"/sys/dev/block/{number}/uevent", encoding="ascii") as f:
            name = next(line[8:-1] for line in f if line.startswith("DEVNAME="))
        with open(f"/dev/{name}", "rb") as device:
            told = fcntl.ioctl(device, _GET_STATUS64, bytes(232))  # struct loop_info64, lo_device first
    except (OSError, StopIteration):
        return ""
    (encoded,) = struct.unpack_from("=Q", told)
    return f"{os.major(encoded)}:{os.minor(encoded)}"


def backing_files() -> dict[str, str]:
    """The file behind each loop device of the host, by the device's name."""
    names = (name for name in os.listdir("/sys/block") if name.startswith("loop"))
    return {name: file for name in names if (file := backing_file(f"/dev/{name}"))}


@contextmanager
def attached(file: str) -> Iterator[str]:
    """A loop device for a file. The kernel frees it when nobody has it open or mounted any more, us included.

    A filesystem whose last mount went away has lost its loop device with it (`mount -o loop`), so whoever works on it
    while it is not mounted needs one anew.
    """
    backing = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        device, path = _attach(backing)
    finally:
        os.close(backing)
    try:
        yield path
    finally:
        os.close(device)


def _attach(backing: int) -> tuple[int, str]:
    for _ in range(_ATTEMPTS):
        with open(_CONTROL, "rb") as control:
            number = fcntl.ioctl(control, _GET_FREE)
        device = os.open(path := f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
        order = bytearray(304)  # struct loop_config; the flags of its struct loop_info64 begin at byte 60
        struct.pack_into("=I", order, 0, backing)
        struct.pack_into("=I", order, 60, _AUTOCLEAR)
        try:
            fcntl.ioctl(device, _CONFIGURE, order)
        except OSError as e:
            os.close(device)
            if e.errno != errno.EBUSY:  # somebody else was quicker: try the next free one
                raise
        else:
            return device, path
    raise OSError(errno.EBUSY, "no loop device stayed free")
