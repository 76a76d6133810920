# SPDX-License-Identifier: Apache-2.0
"""Timelines: which of them stems from which, and where it left it.

A timeline's history file names every one it stems from, oldest first, each with the position at which the next began
(writeTimeLineHistory in timeline.c, "Timelines" in PostgreSQL's documentation): so one file tells the whole way.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from slackwater.writers._postgresql.controlfile import format_lsn, parse_lsn

NAME = re.compile(r"([0-9A-F]{8})\.history")
#: Of a segment or a history: of what lies in a log, and in an archive.
OF_TIMELINE = re.compile(r"([0-9A-F]{8})(?:[0-9A-F]{16}|\.history)")
_LINE = re.compile(r"\s*(\d+)\s+([0-9A-Fa-f]+/[0-9A-Fa-f]+)")


@dataclass(frozen=True, slots=True)
class Branch:
    """A timeline on the way to another."""

    timeline: int
    begin: int
    """Where its own part begins; of the first one, where the way does."""


def newest(names: Iterable[str]) -> str:
    """The timeline that a server with these files in its log is on, as eight digits; empty where nothing tells."""
    return max((match[1] for name in names if (match := OF_TIMELINE.fullmatch(name))), default="")


def name_of(timeline: int) -> str:
    """The name of a timeline's history file."""
    return f"{timeline:08X}.history"


def parse(text: str) -> tuple[tuple[int, int], ...]:
    """Read a history file: each ancestor with the position at which its child began.

    A recovery that was aimed at one timeline and stopped before it was reached writes a history that goes back (the
    engine names the timeline aimed at as the parent): it stems from the one that it had come to.

    Raises:
        ValueError: it is none (a note that a number is taken, a damaged file).
    """
    lines = (line.partition("#")[0] for line in text.splitlines())
    found = [(int(match[1]), parse_lsn(match[2])) for match in map(_LINE.match, lines) if match]
    way: list[tuple[int, int]] = []
    for number, position in found:
        parent = number
        while way and way[-1][1] > position:
            parent = way.pop()[0]
        way.append((parent, position))
    if not way or any(one[0] >= two[0] for one, two in itertools.pairwise(way)):
        raise ValueError("not the history of a timeline")
    return tuple(way)


def text_of(ancestors: Sequence[tuple[int, int]]) -> str:
    """Write a history file that says what `parse` understood."""
    return "".join(f"{number}\t{format_lsn(position)}\tas found by slackwater\n" for number, position in ancestors)


def way(timeline: int, start: int, goal: int, histories: Mapping[int, Sequence[tuple[int, int]]]) -> tuple[Branch, ...]:
    """The timelines from a position on one of them to another.

    Args:
        timeline: the one to start on.
        start: the position to start at.
        goal: the one to end on.
        histories: what `parse` made of each known history file.

    Raises:
        ValueError: the goal does not stem from there, or its history is not to be had.
    """
    if goal == timeline:
        return (Branch(timeline, start),)
    ancestors = histories.get(goal)
    if ancestors is None:
        raise ValueError(f"the history of timeline {goal} is not to be had")
    numbers = [number for number, _ in ancestors]
    if timeline not in numbers:
        raise ValueError(f"timeline {goal} does not stem from timeline {timeline}")
    first = numbers.index(timeline)
    children = [*numbers[first + 1 :], goal]
    begins = [switch for _, switch in ancestors[first:]]
    if begins[0] < start:
        raise ValueError(
            f"timeline {children[0]} left timeline {timeline} at {format_lsn(begins[0])}, before {format_lsn(start)}"
        )
    return (Branch(timeline, start), *(Branch(child, begin) for child, begin in zip(children, begins, strict=True)))
