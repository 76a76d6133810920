# SPDX-License-Identifier: Apache-2.0
"""A replica that is deleted or altered behind our back between any two commands, and volumes that fill up meanwhile.

Whatever comes next tells the truth, costs no other replica, and once the broken one is deleted all is as ever.
"""

import contextlib
import os
import re
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slackwater.demo.lab import Answer
from slackwater.system.command import run
from tests.e2e.luck_support import MIB, look
from tests.e2e.small_support import Small, said_well, small

pytestmark = [pytest.mark.root]

NAME = "shop"


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[Small]:
    with small(request.param) as made:
        made.add(NAME, keep=20)
        made.run("reconcile")
        made.untouched = look(made.lab)
        yield made


def copy_of(world: Small, replica: str) -> str:
    (volume,) = [each for each in os.listdir(world.place(replica)) if not each.endswith((".txt", ".json"))]
    return f"{world.place(replica)}/{volume}"


def remove(path: str) -> None:
    if os.stat(path).st_ino == 256:  # a subvolume's own (btrfs-subvolume(8))
        run("btrfs", "subvolume", "delete", path)
    else:
        run("rm", "-rf", path)


def lose_copy(world: Small, replica: str) -> None:
    remove(copy_of(world, replica))


def lose_everything(world: Small, replica: str) -> None:
    remove(copy_of(world, replica))
    run("rm", "-rf", world.place(replica))


def lose_document(world: Small, replica: str) -> None:
    os.unlink(f"{world.place(replica)}/components.json")


def tear_document(world: Small, replica: str) -> None:
    os.truncate(f"{world.place(replica)}/components.json", 100)


def alter(world: Small, replica: str) -> None:
    path = copy_of(world, replica)
    if os.stat(path).st_ino == 256:
        run("btrfs", "property", "set", path, "ro", "false")
    with open(f"{path}/shop.db", "ab") as f:
        f.write(b"\0" * 4096)


DEEDS: tuple[Callable[[Small, str], None], ...] = (lose_copy, lose_everything, lose_document, tear_document, alter)
LOST = (lose_copy, lose_everything, alter)
"""After these it is no replica any more; after the others only its document is not beside it."""
NEXT: dict[str, tuple[str, ...]] = {
    "backup": ("backup", NAME),
    "recover": ("recover", NAME, "--yes"),
    "recover it": ("recover", NAME, "--replica", "{broken}", "--yes"),
    "verify": ("replica", "verify", "{broken}"),
    "clone": ("clone", "create", "{broken}", "--name", "look"),
    "mount": ("replica", "mount", "{broken}"),
    "delete": ("replica", "delete", "{broken}", "--yes"),
    "reconcile": ("reconcile",),
    "check": ("catalog", "check"),
    "rebuild": ("catalog", "rebuild"),
}


CASES = [("btrfs", deed) for deed in DEEDS] + [("xfs", lose_copy), ("xfs", alter)]


@pytest.mark.parametrize(("world", "deed"), CASES, indirect=["world"])
def test_between_any_two_commands(world: Small, deed: Callable[[Small, str], None]) -> None:
    """The broken one is the newest; the one before it is whole, and stays."""
    world.sell(NAME)
    whole = str(world.run("backup", NAME).document["replica"])
    at_whole = world.sold(NAME)
    for name, words in NEXT.items():
        where = f"{deed.__name__}, then {name}"
        world.sell(NAME)
        broken = str(world.run("backup", NAME).document["replica"])
        deed(world, broken)
        sold = world.sold(NAME)
        said = tuple(each.format(broken=broken) for each in words)
        answer = world.run(*said, check=False)
        _truth(world, name, answer, (at_whole, sold), where)
        _told(name, answer, broken, lost=deed in LOST, where=where)
        assert world.run("reconcile").document["unmended"] == [], where
        states = {each["id"]: each["state"] for each in world.replicas()}
        assert states[whole] == "good", f"{where}: {states}"
        known = None if name == "delete" else "missing" if deed in LOST else "good"
        assert states.get(broken) == known, f"{where}: {states}"
        if broken in states:
            world.run("replica", "delete", broken, "--yes")
        elif broken in world.on_storage():  # what nobody knows any more is never deleted by us
            remove(copy_of(world, broken))
            run("rm", "-rf", world.place(broken))
    world.honest(deed.__name__)
    world.clear()


@pytest.mark.parametrize("world", ["btrfs"], indirect=True)
@pytest.mark.parametrize("begun", [False, True])
def test_a_deletion_that_was_only_decided_never_takes_the_last_good_one(world: Small, *, begun: bool) -> None:
    """A session that was killed between decision and deletion, and then somebody deletes the newer one by hand."""
    world.sell(NAME)
    first, second = (str(world.run("backup", NAME).document["replica"]) for _ in range(2))
    decide(world, first)
    if begun:
        remove(copy_of(world, first))
    world.run("replica", "delete", second, "--yes")
    told = world.run("reconcile").document
    assert (told["kept"], told["deleted"]) == (([], [first]) if begun else ([first], []))
    if not begun:
        sold = world.sold(NAME)
        world.sell(NAME)
        world.run("recover", NAME, "--yes")
        assert world.sold(NAME) == sold
        world.run("backup", NAME)
        decide(world, first)
        assert world.run("reconcile").document["deleted"] == [first], "beside a newer one it goes"
    world.clear()


@pytest.mark.parametrize("world", ["btrfs"], indirect=True)
def test_a_deletion_that_was_only_decided_looks_for_the_one_in_whose_favour_it_was(world: Small) -> None:
    """The catalog still calls that good when a session puts right what was cut off, before it compares anything."""
    world.sell(NAME)
    first, second = (str(world.run("backup", NAME).document["replica"]) for _ in range(2))
    decide(world, first)
    remove(copy_of(world, second))
    told = world.run("reconcile").document
    assert (told["kept"], told["deleted"], told["missing"]) == ([first], [], [second])
    world.run("replica", "delete", second, "--yes")
    world.honest("gone behind our back")
    world.clear()


def decide(world: Small, replica: str) -> None:
    """What a session that was killed right after that had decided."""
    with contextlib.closing(sqlite3.connect(f"{world.lab.state_dir}/catalog.sqlite")) as db, db:
        db.execute("UPDATE replicas SET state = 'deleting' WHERE id = ?", (replica,))


@pytest.mark.parametrize("world", ["btrfs"], indirect=True)
@pytest.mark.parametrize("place", [0, 1])
def test_one_that_cannot_be_deleted_keeps_no_other_from_going(world: Small, place: int) -> None:
    """Something else lies where its copy was, which is not ours to remove."""
    world.sell(NAME)
    made = [str(world.run("backup", NAME).document["replica"]) for _ in range(2)]
    stuck, other = made[place], made[1 - place]
    remove(copy := copy_of(world, stuck))
    run("btrfs", "subvolume", "create", copy)
    specification = Path(f"{world.lab.config_dir}/specs.d/{NAME}.toml")
    text = specification.read_text()
    specification.write_text(re.sub(r"keep = \d+", "keep = 1", text))
    answer = world.run("backup", NAME, check=False)
    said = [each["text"] for each in answer.document["messages"] if each["severity"] == "error"]
    assert (answer.status, len(said)) == (10, 1), answer
    assert stuck in said[0]
    states = {each["id"]: each["state"] for each in world.replicas()}
    assert states == {stuck: "deleting", str(answer.document["replica"]): "good"}
    assert other not in world.on_storage()
    remove(copy)
    specification.write_text(text)
    assert world.run("reconcile").document["deleted"] == [stuck]
    world.clear()


@pytest.mark.parametrize("world", ["btrfs"], indirect=True)
def test_an_undo_never_goes_further_back_than_the_last_recovery(world: Small) -> None:
    world.sell(NAME)
    world.run("backup", NAME)
    sold: list[object] = []
    undo: list[str] = []
    for _ in range(2):
        world.sell(NAME)
        sold.append(world.sold(NAME))
        undo.append(str(world.run("recover", NAME, "--yes").document["session"]))
    world.run("replica", "delete", undo[1], "--yes")
    answer = world.run("recover", NAME, "--undo", "--yes", check=False)
    error = answer.document["error"]
    assert (answer.status, error["code"]) == (4, "no-replica"), answer
    assert undo[1] in error["sentence"]
    assert undo[0] in error["hint"]
    world.run("recover", NAME, "--replica", undo[0], "--yes")
    assert world.sold(NAME) == sold[0]
    world.run("recover", NAME, "--undo", "--yes")
    world.clear()


@pytest.mark.parametrize("world", ["btrfs"], indirect=True)
def test_what_a_recovery_sets_aside_never_fills_a_volume_in_silence(world: Small) -> None:
    world.sell(NAME)
    world.run("backup", NAME)
    quiet = world.run("recover", NAME, "--preview").document["findings"]
    specification = Path(f"{world.lab.config_dir}/specs.d/{NAME}.toml")
    text = specification.read_text()
    specification.write_text(text.replace('min_free = "1%"', 'min_free = "99%"'))
    (low,) = [each for each in world.run("recover", NAME, "--preview").document["findings"] if each not in quiet]
    assert (low["code"], low["severity"]) == ("low-room", "warning")
    told = [each["text"] for each in world.run("recover", NAME, "--yes").document["messages"]]
    assert [each for each in told if "What the recovery sets aside takes more and more of it" in each]
    refused = world.run("backup", NAME, check=False).document["error"]
    assert refused["code"] == "min-free"
    assert "what recoveries have set aside" in refused["hint"]
    specification.write_text(text)
    world.clear()


def _truth(world: Small, name: str, answer: Answer, sold: tuple[int, int], where: str) -> None:
    """What a command does with a replica that is broken, and says of it."""
    at_whole, now = sold
    if name in ("backup", "reconcile", "delete"):
        assert answer.status == 0, f"{where}: {answer}"
    if name == "recover" and answer.status == 0:  # from the one that is whole, or whose copy is
        assert world.sold(NAME) in (at_whole, now), where
        world.run("recover", NAME, "--undo", "--yes")
    if name == "clone" and answer.status == 0:
        world.run("clone", "delete", "look", "--yes")
    if name == "mount" and answer.status == 0:
        world.run("replica", "unmount", str(answer.document["replica"]))
    assert world.sold(NAME) == now, where


def _told(name: str, answer: Answer, broken: str, *, lost: bool, where: str) -> None:
    """Whoever needs it says that it is broken; whoever looks at both sides names it."""
    if name in ("recover", "recover it", "verify", "clone"):
        code = answer.document.get("error", {}).get("code")
        assert (answer.status != 0, code) == ((True, "replica-altered") if lost else (False, None)), (
            f"{where}: {answer}"
        )
    if name == "check":
        assert answer.status == 1, f"{where}: {answer}"
        assert [each["replica"] for each in answer.document["differences"]] == [broken], f"{where}: {answer}"


# -- a volume that fills up ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["btrfs", "xfs"])
def tight(request: pytest.FixtureRequest) -> Iterator[Small]:
    with small(request.param, 320 * MIB) as made:
        made.add(NAME)
        made.run("reconcile")
        made.untouched = look(made.lab)
        yield made


BACKUP, RECOVER = ("backup", NAME), ("recover", NAME, "--yes")
MOMENTS: list[tuple[tuple[str, ...], str]] = [(BACKUP, phase) for phase in ("plan", "prepare", "thaw", "record")]
MOMENTS += [(RECOVER, phase) for phase in ("check", "prepare", "switch", "record")]


@pytest.mark.parametrize(("words", "phase"), MOMENTS, ids=lambda each: each if isinstance(each, str) else each[0])
def test_a_volume_that_is_full_from_one_moment_on(tight: Small, words: tuple[str, ...], phase: str) -> None:
    """It ends as it was, or done; with room again, everything goes on."""
    where = f"{words[0]}, full from {phase} on"
    tight.sell(NAME)
    first = str(tight.run("backup", NAME).document["replica"])
    sold = tight.sold(NAME)
    tight.sell(NAME)
    filler = f"{tight.disk.path}/filler"
    command = tight.spawn(*words, "--progress", "json")
    while not command.told("phase", phase) and command.poll() is None:
        os.sched_yield()
    command.send(signal.SIGSTOP)
    run("dd", "if=/dev/zero", f"of={filler}", "bs=64K", check=False)
    run("dd", "if=/dev/zero", f"of={filler}", "bs=4K", "oflag=append", "conv=notrunc", check=False)
    command.send(signal.SIGCONT)
    answer = said_well(command.answer(120.0), words)
    assert answer.status in (0, 1, 5, 12), f"{where}: {answer}"
    os.unlink(filler)
    run("sync", "-f", tight.disk.path)
    tight.run("reconcile")
    known = {each["id"]: each["state"] for each in tight.replicas()}
    assert known[first] == "good", f"{where}: {known}"
    if words[0] == "backup":
        assert (answer.status == 0) == (len(known) == 2) or answer.status != 0, f"{where}: {known}: {answer}"
        assert tight.sold(NAME) == sold + 1, where
    else:
        recovered = any(each["kind"] == "undo" for each in tight.replicas())
        assert recovered or answer.status != 0, f"{where}: {answer}"
        assert tight.sold(NAME) == (sold if recovered else sold + 1), where
    tight.honest(where)
    tight.run("backup", NAME)
    tight.clear()
