# SPDX-License-Identifier: Apache-2.0
"""The checksum of the control file and of every record of the log."""


def crc32c(data: bytes) -> int:
    """The checksum that the engine uses (port/pgcrc32c.h): polynomial 0x1EDC6F41, here with its bits reversed."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 & -(crc & 1))
    return crc ^ 0xFFFFFFFF
