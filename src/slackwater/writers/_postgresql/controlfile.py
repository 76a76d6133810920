# SPDX-License-Identifier: Apache-2.0
"""What a data directory says of itself without a server: `global/pg_control`.

Read here and not by pg_controldata, because a clone may be reachable only through a descriptor of ours, and because a
program found beside a server that somebody else runs is never run as root. The fields read here lie at the same place
in PostgreSQL 13 to 18 (src/include/catalog/pg_control.h; control versions 1300, 1700, 1800).
"""

import os
import struct
from dataclasses import dataclass

from slackwater.errors import SlackwaterError
from slackwater.writers._postgresql.checksum import crc32c

#: Control versions, and where each has its checksum: CRC-32C of all bytes before it.
_CHECKSUMS = {1300: 288, 1700: 288, 1800: 292}
_WAL_LEVELS = {0: "minimal", 1: "replica", 2: "logical"}
#: DBState of pg_control.h.
_SHUT_DOWN = 1


@dataclass(frozen=True, slots=True)
class ControlFile:
    """The part of pg_control that recovery needs."""

    system_identifier: str
    shut_down: bool
    """False for the image of a running, or a crashed, server."""
    checkpoint_lsn: str
    redo_lsn: str
    """Where a recovery without a backup label begins to read."""
    timeline: int
    """The one that recovery starts on: of the last checkpoint, or of a promotion that had no checkpoint yet."""
    wal_level: str
    segment_bytes: int
    intact: bool
    """Whether its checksum is right; the engine starts on no other."""


def read_control_file(directory: str | int) -> ControlFile:
    """Read `global/pg_control` below a data directory, given by path or descriptor.

    Raises:
        SlackwaterError: it is missing, cut short, or of a version not known here.
    """
    below = {"dir_fd": directory} if isinstance(directory, int) else {}
    path = "global/pg_control" if below else f"{directory}/global/pg_control"
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC, **below), "rb") as f:
            image = f.read(8192)
    except OSError as e:
        raise SlackwaterError(f"The control file {path} cannot be read: {e.strerror}.", code="control-file") from e
    return parse(image, str(directory))


def parse(image: bytes, name: str) -> ControlFile:
    """Understand the bytes of a control file; `name` is for the error."""
    version = struct.unpack_from("=I", image, 8)[0] if len(image) >= 296 else 0
    if version not in _CHECKSUMS:
        raise SlackwaterError(
            f"global/pg_control of {name} is not a control file of PostgreSQL 15 to 18.",
            data="Nothing was changed.",
            hint="It may be damaged: recover from another replica.",
            code="control-file",
        )
    system, checkpoint, redo = (struct.unpack_from("=Q", image, at)[0] for at in (0, 32, 40))
    state, checkpoint_timeline, minimum_timeline, level, segment_bytes = (
        struct.unpack_from("=I", image, at)[0] for at in (16, 48, 144, 172, 228)
    )
    checksum = _CHECKSUMS[version]
    return ControlFile(
        system_identifier=str(system),
        shut_down=state == _SHUT_DOWN,
        checkpoint_lsn=format_lsn(checkpoint),
        redo_lsn=format_lsn(redo),
        timeline=max(checkpoint_timeline, minimum_timeline),
        wal_level=_WAL_LEVELS.get(level, str(level)),
        segment_bytes=segment_bytes,
        intact=crc32c(image[:checksum]) == struct.unpack_from("=I", image, checksum)[0],
    )


def format_lsn(position: int) -> str:
    """Write a log position as PostgreSQL does: two hexadecimal numbers."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """Read a log position.

    Raises:
        ValueError: the text is not one.
    """
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) | int(low, 16)
