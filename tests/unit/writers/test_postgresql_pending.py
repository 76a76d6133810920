# SPDX-License-Identifier: Apache-2.0
"""What servers say of their log: whether it is archived."""

import os
from contextlib import ExitStack
from pathlib import Path

from slackwater.writers._postgresql.chain import Source
from slackwater.writers._postgresql.pending import told


def name(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{number:016X}"


def test_what_a_later_server_of_the_same_timeline_has_no_more_is_archived(tmp_path: Path) -> None:
    def said(*, later: list[str], ready: list[str], ours: bool = False) -> bool:
        found = []
        with ExitStack() as stack:
            for place, (names, waiting) in enumerate([([name(7), name(8)], [name(7)]), (later, ready)]):
                status = tmp_path / str(len(list(tmp_path.iterdir()))) / "archive_status"
                status.mkdir(parents=True)
                for each in names:
                    (status.parent / each).touch()
                for each in waiting:
                    (status / f"{each}.ready").touch()
                folder = os.open(status.parent, os.O_RDONLY)
                stack.callback(os.close, folder)
                found.append(Source(str(place), folder))
            return told([*found, *(found[1:] if ours else ())])[name(7)]

    assert said(later=[name(9)], ready=[])
    assert not said(later=[name(7), name(9)], ready=[])  # it may only be about to say so
    assert not said(later=[name(9)], ready=[name(7)])
    assert not said(later=[name(9), name(9, 2)], ready=[])  # it has recovered, and may never have had it
    assert not said(later=[name(9)], ready=[], ours=True)  # its recovery is not over
    assert not said(later=[], ready=[])  # nothing is left of it
