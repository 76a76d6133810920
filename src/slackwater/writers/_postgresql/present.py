# SPDX-License-Identifier: Apache-2.0
"""Whose the data is that lies where the application's was: after a loss somebody may have made a new cluster there."""

import contextlib
from collections.abc import Iterable

from slackwater.errors import SlackwaterError
from slackwater.writers._postgresql import segments
from slackwater.writers._postgresql.chain import Source
from slackwater.writers._postgresql.controlfile import ControlFile, read_control_file


def foreign(directory: str | None, folders: Iterable[Source], image: ControlFile) -> bool:
    """Whether it is another cluster's: the names of files are the same in every cluster, and tell nothing.

    Args:
        directory: the live data directory; None where it has none.
        folders: with its log.
        image: of the cluster that it should be.
    """
    with contextlib.suppress(OSError, SlackwaterError):
        control = read_control_file(directory) if directory else None
        if control and control.intact:
            return control.system_identifier != image.system_identifier
    whose = {system for each in folders for name in each.names if (system := _system(each, name))}
    return bool(whose) and image.system_identifier not in whose


def _system(source: Source, name: str) -> str | None:
    """The cluster that a segment is of; None for what tells of none."""
    if not segments.NAME.fullmatch(name):
        return None
    with source.opened(name) as fd, contextlib.suppress(OSError):
        return None if fd is None else segments.system_of(fd)
    return None
