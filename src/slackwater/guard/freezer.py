# SPDX-License-Identifier: Apache-2.0
"""Freezes one filesystem and thaws it, for the guard: FIFREEZE may wait, unkillably, and the guard must not.

A program of its own: `python -I -S -B freezer.py`, standard library only, nothing of ours. One JSON object per line on
standard input: first which filesystem, then the orders `freeze`, `until` (a new deadline) and `thaw`; one answer each
on standard output. It has the mount open before the window, so what is unmounted meanwhile never gets the filesystem
below it frozen. It thaws when ordered; when a freeze comes back after its deadline; and by itself, when whoever gave
the orders is gone or has let the deadline pass. `thaw` also lifts a freeze that a dead freezer has left.
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import fcntl
import json
import math
import os
import select
import signal
import time
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h
#: What tells a filesystem's UUID, how much that is, and where it lies: linux/btrfs.h (FS_INFO), xfs_fs.h (FSGEOMETRY).
UUIDS = ((0x8400941F, 1024, 16), (0x8100587E, 256, 64))
MCL_CURRENT = 1
#: Nobody sets it. Taking it away changes nothing, but has to wait as long as the filesystem is frozen.
NOTHING = "trusted.slackwater.nothing"
#: How late the guard may be before we thaw by ourselves, and the longest sleep: deadlines go on in a machine's sleep.
GRACE_S, ROUND_MS = 0.25, 50.0


def now() -> float:
    """Give the time that deadlines are measured in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def unescape(text: str) -> str:
    r"""Resolve the octal escapes of mountinfo (a blank is \040)."""
    parts = os.fsencode(text).split(b"\\")
    return os.fsdecode(parts[0] + b"".join(bytes([int(each[:3], 8)]) + each[3:] for each in parts[1:]))


def mountinfo() -> list[tuple[str, str, str]]:
    """Number, superblock (`major:minor`) and target of each mount, the newest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        fields = [line.split(" ", 5) for line in f]
    return [(each[0], each[2], unescape(each[4])) for each in reversed(fields)]


def superblock_of(fd: int) -> str:
    """The superblock of an open file as mountinfo has it, one for all subvolumes of a Btrfs; st_dev is not that."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as f:
        number = next(line.split()[1] for line in f if line.startswith("mnt_id:"))
    return next((superblock for each, superblock, _ in mountinfo() if each == number), "")


def fsid_of(fd: int) -> str:
    """What tells two filesystems apart that bore one device number after the other; XFS's own fsid is that number."""
    for request, size, start in UUIDS:
        told = bytearray(size)
        with suppress(OSError):
            fcntl.ioctl(fd, request, told)
            return told[start : start + 16].hex()
    return f"{os.fstatvfs(fd).f_fsid:x}"


def reach(start: dict[str, Any]) -> int:
    """Open the mount of the filesystem that is meant, and of no other; with `anywhere` another mount of it will do.

    Raises:
        OSError: it is not mounted there any more.
    """
    paths = [start["mount"]]
    if start.get("anywhere"):
        paths += [target for _, superblock, target in mountinfo() if superblock == start["superblock"]]
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue
        if (superblock_of(fd), fsid_of(fd)) == (start["superblock"], start["fsid"]):
            return fd
        os.close(fd)
    raise OSError(errno.ENODEV, f"the filesystem {start['superblock']} is not mounted there", start["mount"])


class Freezer:
    """One filesystem: idle, frozen, or lost, when somebody else seems to have thawed what we froze."""

    def __init__(self, start: dict[str, Any]) -> None:
        self.mount, self.fd, self.master = start["mount"], reach(start), int(start["master_fd"])
        # Sent for what a dead freezer may have left, we have to take it for frozen.
        self.state, self.deadline, self.input = "frozen" if start.get("anywhere") else "idle", math.inf, b""
        self.moved, self.mover = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Carry out orders until they end or their giver does; nothing stays frozen then."""
        poll = select.poll()
        for fd in (0, self.master, self.moved):
            poll.register(fd, select.POLLIN)
        self.say({"event": "ready"})
        while True:
            ready = {fd for fd, _ in poll.poll(None if self.deadline == math.inf else ROUND_MS)}
            if self.moved in ready:
                os.read(self.moved, 64)
                self.notice()
            if 0 in ready and not self.obey():
                return
            if self.master in ready:
                return
            if now() >= self.deadline + GRACE_S:
                self.thaw()

    def obey(self) -> bool:
        """Carry out what lies in the pipe; False at its end."""
        text = os.read(0, 65536)
        *lines, self.input = (self.input + text).split(b"\n")
        for line in lines:
            order = json.loads(line)
            if order["order"] == "freeze":
                self.freeze(order["deadline"])
            elif order["order"] == "until":
                self.deadline = order["deadline"]
            elif order["order"] == "thaw":
                self.say({"event": self.thaw(), "at": now()})
        return bool(text)

    def freeze(self, deadline: float) -> None:
        """Freeze, unless it is too late already; what comes back too late is thawed at once."""
        if now() >= deadline or select.select([self.master], [], [], 0)[0]:  # the order of a dead one may lie here
            return self.say({"event": "late"})
        try:
            fcntl.ioctl(self.fd, FIFREEZE, 0)
        except OSError as e:
            why = "was frozen by somebody else before" if e.errno == errno.EBUSY else f"cannot be frozen ({e.strerror})"
            return self.say({"event": "refused", "why": f"{self.mount} {why}"})
        self.state, self.deadline = "frozen", deadline
        if now() >= deadline:
            self.thaw()
            return self.say({"event": "late"})
        _thread.start_new_thread(self.wait_for_a_thaw, ())
        return self.say({"event": "frozen", "at": now()})

    def wait_for_a_thaw(self) -> None:
        """Wait until writes are possible again, by whomever, in a thread of its own."""
        try:
            os.removexattr(self.fd, NOTHING)
        except OSError as e:
            if e.errno == errno.EROFS:
                return  # nobody writes here, and nothing has to wait
        os.write(self.mover, b"x")

    def notice(self) -> None:
        """Writes are possible again; if that is not our doing, the hold is broken."""
        if self.state == "frozen":
            self.state = "lost"
            self.say({"event": "disturbed"})

    def thaw(self) -> str:
        """Thaw what we froze: `thawed`, `broken` if it was not frozen all the time, `idle` if it never was."""
        if self.state == "idle":
            return "idle"
        lost, self.state, self.deadline = self.state == "lost", "idle", math.inf
        try:
            fcntl.ioctl(self.fd, FITHAW, 0)
        except OSError:
            return "broken"
        return "broken" if lost else "thawed"

    def say(self, answer: dict[str, Any]) -> None:
        """Answer, unless nobody listens any more."""
        with suppress(OSError):
            os.write(1, json.dumps(answer).encode() + b"\n")


def main() -> None:
    """Serve one guard; whatever goes wrong here, what we froze is thawed."""
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    os.set_blocking(1, False)
    if os.geteuid() == 0:
        ctypes.CDLL(None).mlockall(MCL_CURRENT)  # lost over exec (mlockall(2)), so each of us does it
    freezer = None
    try:
        with open(0, "rb", buffering=0, closefd=False) as lines:
            freezer = Freezer(json.loads(lines.readline()))
        freezer.run()
    except OSError as e:
        why = ": ".join(str(each) for each in (e.filename, e.strerror) if each)
        with suppress(OSError):
            os.write(1, json.dumps({"event": "refused", "why": why}).encode() + b"\n")
    finally:
        if freezer and freezer.state != "idle":
            freezer.thaw()


if __name__ == "__main__":
    main()
