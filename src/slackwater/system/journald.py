# SPDX-License-Identifier: Apache-2.0
"""Lines with fields for systemd's journal, by its native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

import os
import socket
import struct
from contextlib import suppress

SOCKET = "/run/systemd/journal/socket"
_LONGEST_BYTES = 32 << 10
"""Of one value. Longer datagrams would need a file of their own; nothing of ours is that long."""


def connected() -> bool:
    """Say whether standard error goes into the journal, by $JOURNAL_STREAM (systemd.exec(5))."""
    with suppress(OSError, ValueError):
        device, inode = map(int, os.environ.get("JOURNAL_STREAM", "").split(":"))
        status = os.fstat(2)
        return (status.st_dev, status.st_ino) == (device, inode)
    return False


def send(message: str, priority: int, **fields: str) -> None:
    """Hand over one entry; never waits, and never fails: a journal that is gone is no reason to fail a session.

    Args:
        message: what happened.
        priority: 3 error, 4 warning, 5 notice, 6 info, as in syslog(3).
        **fields: further fields, capital letters; empty ones are left out.
    """
    entry = {"MESSAGE": message, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "slackwater", **fields}
    text = b"".join(_field(name, value) for name, value in entry.items() if value)
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sink:
        sink.setblocking(False)
        sink.sendto(text, SOCKET)


def _field(name: str, value: str) -> bytes:
    """`NAME=value`; a value of several lines goes with its length."""
    told = value.encode(errors="surrogateescape")[:_LONGEST_BYTES]
    if b"\n" in told:
        return name.encode() + b"\n" + struct.pack("<Q", len(told)) + told + b"\n"
    return name.encode() + b"=" + told + b"\n"
