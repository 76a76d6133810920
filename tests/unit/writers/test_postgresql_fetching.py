# SPDX-License-Identifier: Apache-2.0
"""An archive asked by a command that does not do what it should, in a folder whose owner puts links there."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slackwater.writers._postgresql.fetching import Asking, Command, command_for

SEGMENT, OTHER = "000000010000000000000003", "000000010000000000000004"
Ask = Callable[[str], Command]


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    folder = tmp_path / "scratch" / "in"
    folder.mkdir(parents=True)
    held: list[int] = []

    def made(command: str) -> Command:
        held.extend(os.open(path, os.O_RDONLY) for path in (folder, folder.parent))
        return Command("the archive", held[-2], "", Asking(command, str(folder), (), SEGMENT, 1 << 20), held[-1])

    yield made
    for fd in held:
        os.close(fd)


def test_no_note_is_written_through_a_link(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "scratch" / "in" / f"{OTHER}.none").symlink_to(tmp_path / "made")
    archive = ask(f'test %f = {SEGMENT} && echo x > "%p"')
    assert archive.fetch(SEGMENT)
    assert not archive.fetch(OTHER)
    assert not (tmp_path / "made").exists()
    again = ask("exit 200")  # what is known is not asked for again
    assert again.fetch(SEGMENT)
    assert not again.fetch(OTHER)
    assert not again.trouble


def test_what_a_command_leaves_that_fails_is_not_used(ask: Ask, tmp_path: Path) -> None:
    archive = ask(f'echo x > "%p"; test %f = {SEGMENT}')
    with archive.opened(SEGMENT) as fd:
        assert fd is not None
    with archive.opened(OTHER) as fd:
        assert fd is None
    assert not (tmp_path / "scratch" / "in" / OTHER).exists()
    assert OTHER not in ask("exit 200").names


def test_one_that_hangs_or_fails_is_asked_once_for_all_replicas(ask: Ask, tmp_path: Path) -> None:
    assert not ask("exit 200").fetch(SEGMENT)
    other = ask(f"touch {tmp_path}/asked; exit 1")
    assert "status 200" in other.trouble
    assert not other.fetch(OTHER)
    assert not (tmp_path / "asked").exists()


def test_a_directory_is_asked_by_a_command(ask: Ask, tmp_path: Path) -> None:
    """Its name may have anything in it; one that lacks a file is not one that is not there."""
    place = tmp_path / 'it\'s $HOME; "here"'
    place.mkdir()
    (place / SEGMENT).write_text("x")
    archive = ask(command_for(str(place)))
    with archive.opened(SEGMENT) as fd:
        assert fd is not None
        assert os.read(fd, 9) == b"x"
    assert not archive.fetch(OTHER)
    assert not archive.trouble
    (place / OTHER).mkdir()
    assert not ask(command_for(str(place.parent / "away"))).fetch("000000010000000000000005")
    assert "No such file" in ask("").trouble
