# SPDX-License-Identifier: Apache-2.0
"""The folder that a chain is read from: no reader waits for a segment behind the end of a timeline."""

import os
from contextlib import ExitStack
from pathlib import Path

from slackwater.writers._postgresql.chain import Chain, Link, Log, Source
from slackwater.writers._postgresql.directory import opened
from slackwater.writers._postgresql.history import Branch
from slackwater.writers._postgresql.waldump import shown

MIB = 1 << 20
LOG = Log("1", MIB)
LAST, BEHIND = "000000010000000000000002", "000000010000000000000003"


def shown_of(tmp_path: Path, fork: int) -> dict[str, str]:
    """What lies in the folder, and to what it leads, where timeline 2 leaves timeline 1 at a position."""
    first = [LOG.name_at(1, each * MIB) for each in (1, 2)]
    second = [LOG.name_at(2, each * MIB) for each in range(fork // MIB, 4)]
    for name in (*first, *second):
        (tmp_path / name).write_bytes(b"")
    with ExitStack() as stack:
        source = Source("the replica", stack.enter_context(opened(str(tmp_path))))
        names = [each for each in first if LOG.name_at(2, 0)[8:16] + each[16:] not in [n[8:] for n in second]]
        links = tuple(Link(each, source, 4 * MIB) for each in (*names, *second))
        chain = Chain((Branch(1, MIB), Branch(2, fork)), MIB, links, 4 * MIB)
        folder, _ = stack.enter_context(shown(chain, LOG))
        return {each: os.readlink(f"{folder}/{each}") for each in os.listdir(folder)}


def test_where_a_timeline_is_left_in_a_segment(tmp_path: Path) -> None:
    found = shown_of(tmp_path, 2 * MIB + 100)
    assert found[BEHIND] == LAST
    assert found[LAST].endswith(LOG.name_at(2, 2 * MIB)), "the fork's own segment serves as both"


def test_where_a_timeline_is_left_between_two(tmp_path: Path) -> None:
    found = shown_of(tmp_path, 3 * MIB)
    assert found[LAST].endswith(LAST)
    assert BEHIND in found


def test_where_there_is_one_timeline_nothing_is_added(tmp_path: Path) -> None:
    name = LOG.name_at(1, MIB)
    (tmp_path / name).write_bytes(b"")
    with opened(str(tmp_path)) as fd:
        chain = Chain((Branch(1, MIB),), MIB, (Link(name, Source("x", fd), 2 * MIB),), 2 * MIB)
        with shown(chain, LOG) as (folder, _):
            assert os.listdir(folder) == [name]


class Fetched(Source):
    """An archive of which only some was fetched."""

    fetches = True

    def __init__(self, caption: str, folder: int, fetched: frozenset[str]) -> None:
        super().__init__(caption, folder)
        self.names = fetched


def test_what_was_never_fetched_is_not_shown(tmp_path: Path) -> None:
    """A link that leads nowhere may be the one that the reader looks into first."""
    names = [LOG.name_at(1, MIB), LOG.name_at(1, 2 * MIB), LOG.name_at(2, 3 * MIB)]
    (tmp_path / names[2]).write_bytes(b"")
    with opened(str(tmp_path)) as fd:
        archive = Fetched("the archive", fd, frozenset(names[2:]))
        links = tuple(Link(each, archive, (2 + at) * MIB) for at, each in enumerate(names))
        branches = (Branch(1, MIB), Branch(2, 3 * MIB))
        with shown(Chain(branches, MIB, links, 4 * MIB), LOG, since=3 * MIB) as (folder, _):
            assert os.listdir(folder) == names[2:]
            assert all(os.path.exists(f"{tmp_path}/{each}") for each in os.listdir(folder))
