# SPDX-License-Identifier: Apache-2.0
"""Many sessions at once: each has run or said why not, and afterwards catalog and storage are one."""

import os
import random
from collections.abc import Iterator
from itertools import combinations_with_replacement

import pytest

from slackwater.demo.lab import Answer
from tests.e2e.luck_support import look
from tests.e2e.small_support import Small, said_well, small
from tests.seeds import seed

pytestmark = [pytest.mark.root]

SEED = seed()
WAIT = ("--wait", "100s")


@pytest.fixture(scope="module")
def world() -> Iterator[Small]:
    with small() as made:
        for name in ("one", "two", "three"):
            made.add(name)
        made.run("reconcile")
        made.untouched = look(made.lab)
        for name in made.names:
            made.sell(name)
            made.run("backup", name)
        yield made


def words_of(world: Small, kind: str, name: str) -> tuple[str, ...]:
    """A command of a kind that has something to do."""
    newest = world.replicas(name)[-1]["id"]
    return {
        "backup": ("backup", name),
        "recover": ("recover", name, "--yes"),
        "undo": ("recover", name, "--undo", "--yes"),
        "verify": ("replica", "verify", newest),
        "delete": ("replica", "delete", newest, "--yes"),
        "reconcile": ("reconcile",),
    }[kind]


def at_once(world: Small, commands: list[tuple[str, ...]], where: str) -> list[Answer]:
    """Begin them all, and wait for the end of all; who was told to wait had its turn."""
    running = [world.spawn(*words) for words in commands]
    answers = [said_well(command.answer(150.0), words) for command, words in zip(running, commands, strict=True)]
    for words, answer in zip(commands, answers, strict=True):
        assert answer.status != 3 or WAIT[0] not in words, f"{where}: {words}: {answer}"
        if answer.status not in (0, 3):  # what it was about was gone when its turn came
            code = answer.document["error"]["code"]
            assert code in ("not-found", "no-replica", "replica-altered"), f"{where}: {words}: {answer}"
    ids = [answer.document["session"] for answer in answers if isinstance(answer.document.get("session"), str)]
    assert len(set(ids)) == len(ids), f"{where}: {ids}"
    return answers


PAIRS = [(pair, ("one", "one")) for pair in combinations_with_replacement(("backup", "recover", "delete", "verify"), 2)]
PAIRS += [(pair, ("one", "two")) for pair in (("backup", "backup"), ("backup", "recover"), ("recover", "recover"))]


@pytest.mark.parametrize(("kinds", "names"), PAIRS, ids=" ".join)
def test_two_at_once(world: Small, kinds: tuple[str, str], names: tuple[str, str]) -> None:
    for name in names:
        world.run("backup", name)
    commands = [words_of(world, kind, name) for kind, name in zip(kinds, names, strict=True)]
    answers = at_once(world, commands, str(kinds))
    assert 0 in {each.status for each in answers}, answers
    world.honest(str(kinds))


def test_twenty_at_once(world: Small) -> None:
    rng = random.Random(SEED)
    where = f"seed {SEED}"
    for name in world.names:
        world.run("backup", name)
    commands = []
    for number in range(20):
        kind = (
            "backup"
            if number == 1
            else rng.choice(("backup", "backup", "backup", "recover", "undo", "verify", "delete", "reconcile"))
        )
        words = words_of(world, kind, rng.choice(world.names))
        commands.append((*words, *WAIT) if number % 2 and kind != "reconcile" else words)
    answers = at_once(world, commands, where)
    done = [
        each.document for each, words in zip(answers, commands, strict=True) if (words[0], each.status) == ("backup", 0)
    ]
    made = [each["replica"] for each in done]
    assert made, where
    world.honest(where)
    known = {each["id"]: each for each in world.run("session", "list").document["sessions"]}
    assert all(known[each]["outcome"] == "completed" for each in made), where
    assert not [each for each in known.values() if each["outcome"] in ("running", "waiting")], where
    for name in world.names:
        world.sold(name)
        good = [each for each in world.replicas(name) if each["kind"] == "backup"]
        assert len(good) <= 2, f"{where}: {good}"


def test_what_does_not_agree_is_seen(world: Small) -> None:
    """The twin: something lies where replicas lie that the catalog does not know."""
    stray = world.place("2001-01-01-1")
    os.mkdir(stray)
    with pytest.raises(AssertionError):
        world.honest("the twin")
    os.rmdir(stray)
    world.honest("without it")
