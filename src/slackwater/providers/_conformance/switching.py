# SPDX-License-Identifier: Apache-2.0
"""What a switch makes, undoes, and survives."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from slackwater.journal.effects import Effect
from slackwater.model.storage import ShadowCopy
from slackwater.providers._conformance.ground import Ground, read, steps, write
from slackwater.providers._conformance.pictures import picture, zoo
from slackwater.providers._conformance.promises import promise
from slackwater.providers.contract import Clone, Exchange

_HOLDER = "import sys, time; f = open(sys.argv[1]); print('ready', flush=True); time.sleep(60)"
_KILLS = 10


@promise
def twice_is_as_once(ground: Ground) -> None:
    """Every effect can be made again, which changes nothing and returns the same, and undone again."""
    write(path := ground.paths[0], "rows", "one")
    copies = ground.backup()
    write(path, "rows", "two")
    effects = steps(ground.switch(copies, ground.session()))
    for effect in effects:
        facts = ground.make(effect)
        ground.check(ground.stored(effect).make() == facts, f"{effect.kind} returns something else when made again")
    ground.check(read(path, "rows") == "one", "not recovered")
    for effect in reversed(effects):
        for _ in range(2):
            ground.stored(effect).undo()
    ground.check(read(path, "rows") == "two", "not undone")


@promise
def a_switch_turns_back_and_is_undone(ground: Ground) -> None:
    """A switch puts the copy in the volume's place, keeps what was there, and leaves the copy as it was."""
    zoo(path := ground.paths[0])
    wanted = picture(path)
    copies = ground.backup()
    ids = [volume.id for volume in ground.volumes()]
    write(path, "plain", "lost")
    write(path, "more", "")
    lost = picture(path)
    switch = ground.recover(copies)
    ground.same(wanted, path, "what was recovered")
    ground.check([volume.id for volume in ground.volumes()] == ids, "a volume has another id after a switch")
    with ground.provider.reach(switch.aside[0]) as aside:
        ground.same(lost, aside, "what was set aside")
    ground.check(ground.provider.altered(copies[0]) == "", "the copy was altered by the switch")
    write(path, "plain", "used")
    ground.check(ground.provider.altered(copies[0]) == "", "the copy changes with what was recovered from it")
    for effect in reversed(steps(switch)):
        ground.stored(effect).undo()
    ground.same(lost, path, "after the undo")


@promise
def what_was_set_aside_is_a_copy(ground: Ground) -> None:
    """What a switch set aside, sealed, is a copy as any other: the undo can be recovered, and undone again."""
    write(path := ground.paths[0], "rows", "one")
    copies = ground.backup()
    write(path, "rows", "two")
    session = ground.session()
    switch = ground.switch(copies, session)
    facts = [ground.make(effect) for effect in steps(switch)][-len(copies) :]
    aside = [ground.provider.copy(each.volume, session, f) for each, f in zip(switch.aside, facts, strict=True)]
    ground.check(ground.provider.altered(aside[0]) == "", f"altered: {ground.provider.altered(aside[0])}")
    write(path, "rows", "three")
    ground.recover(aside)
    ground.check(read(path, "rows") == "two", "the undo replica was not recovered")
    ground.check(ground.provider.altered(aside[0]) == "", "the undo replica was altered by its recovery")


@promise
def cut_off_anywhere(ground: Ground) -> None:
    """A switch that is cut off after any of its effects can be undone, and made from there to its end."""
    copies, effects = _planned(ground)
    exchanges = [effect for effect in effects if isinstance(effect, Exchange)]
    ground.check(len(exchanges) == len(copies), "a switch needs one Exchange for each volume")
    for made in range(len(effects) + 1):
        _make(effects[:made])
        done = [each.exchanged() for each in exchanges]
        ground.check(done == [effects.index(each) < made for each in exchanges], f"after {made} effects made is {done}")
        _undo(effects)
        ground.check(_rows(ground) == {"two"}, f"cut off after {made} effects and undone: {_rows(ground)}")
        _make(effects[:made])
        _make(effects[max(made - 1, 0) :])
        ground.check(_rows(ground) == {"one"}, f"cut off after {made} effects and finished: {_rows(ground)}")
        _undo(effects)


@promise
def killed_anywhere(ground: Ground) -> None:
    """A process that makes or undoes a switch can be killed at any instant: another undoes it."""
    copies, effects = _planned(ground)
    make_s, undo_s = _lasts_s(lambda: _make(effects)), _lasts_s(lambda: _undo(effects))
    for attempt in range(_KILLS):
        part = attempt / _KILLS
        _killed(lambda: _make(effects), make_s * part)
        _killed(lambda: _undo(effects), undo_s * part)
        _undo(effects)
        ground.check(_rows(ground) == {"two"}, f"killed after {part:.0%} of the time and undone: {_rows(ground)}")
        ground.check(ground.provider.altered(copies[0]) == "", "the copy was altered by a switch that was killed")


@promise
def killed_while_copying(ground: Ground) -> None:
    """A process that takes copies can be killed at any instant: another takes away what it left."""
    for path in ground.paths:
        zoo(path)
    session, volumes = ground.session(), ground.volumes()
    whole_s = _lasts_s(lambda: ground.backup(session))
    ground.clear_copies()
    for attempt in range(_KILLS):
        _killed(lambda: ground.backup(session), whole_s * attempt / _KILLS)
        for effect in (
            *(ground.provider.snapshot_effect(volume, session) for volume in volumes),
            *dict.fromkeys(ground.provider.place_effect(volume, session) for volume in volumes),
        ):
            ground.stored(effect).undo()
        ground.check(not ground.found(), f"killed after {attempt / _KILLS:.0%} of the time: something is left")


@promise
def undoing_never_takes_live_data(ground: Ground) -> None:
    """Undoing a clone after its exchange never deletes what was set aside; a clone that was undone can be kept."""
    write(path := ground.paths[0], "rows", "one")
    copies = ground.backup()
    write(path, "rows", "live")
    switch = ground.recover(copies)
    clone = ground.stored(next(each for each in switch.clones if isinstance(each, Clone)))
    ground.raises(clone.undo, "a clone is undone although it is in the volume's place")
    with ground.provider.reach(switch.aside[0]) as aside:
        ground.check(read(aside, "rows") == "live", "undoing the clone changed what was set aside")
    write(path, "rows", "acknowledged")
    for effect in reversed((*switch.bar, *switch.exchange, *switch.unbar, *switch.seal)):
        ground.stored(effect).undo()
    ground.check(read(path, "rows") == "live", "the exchange was not undone")
    if not isinstance(clone, Clone):
        raise TypeError("a stored clone is none")  # it was chosen so
    facts = clone.keep()
    ground.check(clone.keep() == facts, "keeping a clone twice returns something else")
    kept = ground.provider.copy(switch.aside[0].volume, _session_of(switch.aside[0].place), facts)
    ground.check(ground.provider.altered(kept) == "", f"a kept clone is altered: {ground.provider.altered(kept)}")
    with ground.provider.reach(kept) as root:
        ground.check(read(root, "rows") == "acknowledged", "the kept clone is not what the application ran on")


@promise
def who_holds_the_volume_is_told(ground: Ground) -> None:
    """A process that holds a file of the volume is named, and stops the exchange; one that will be stopped does not."""
    write(path := ground.paths[0], "rows", "one")
    copies = ground.backup()
    with _holder(os.path.join(path, "rows")) as pid:
        found = ground.refusals(ground.volume())
        ground.check(any(str(pid) in each for each in found), f"process {pid} holds a file, and is not named: {found}")
        ground.check(
            not ground.refusals(ground.volume(), frozenset({pid})), "a process that will be stopped is refused"
        )
        switch = ground.switch(copies, ground.session())
        for effect in (*switch.clones, *switch.bar):
            ground.make(effect)
        ground.raises(lambda: [ground.make(each) for each in switch.exchange], "a volume that is held is exchanged")
    ground.check(read(path, "rows") == "one", "the volume was changed")


def _planned(ground: Ground) -> tuple[list[ShadowCopy], list[Effect]]:
    """Copies of volumes that say `one`, which say `two` now, and the switch back; undone when the check has ended."""
    for path in ground.paths:
        zoo(path)
        write(path, "rows", "one")
    copies = ground.backup()
    for path in ground.paths:
        write(path, "rows", "two")
    effects = [ground.stored(effect) for effect in steps(ground.switch(copies, ground.session()))]
    for effect in effects:
        ground.make(effect)
    _undo(effects)
    return copies, effects


def _make(effects: Sequence[Effect]) -> None:
    for effect in effects:
        effect.make()


def _undo(effects: Sequence[Effect]) -> None:
    for effect in reversed(effects):
        effect.undo()


def _lasts_s(work: Callable[[], object]) -> float:
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


def _rows(ground: Ground) -> set[str]:
    return {read(path, "rows") for path in ground.paths}


def _session_of(place: str) -> str:
    return next(part for part in place.split("/") if part.startswith("check-"))


@contextmanager
def _holder(path: str) -> Iterator[int]:
    """The pid of a process that holds a file."""
    with subprocess.Popen([sys.executable, "-c", _HOLDER, path], stdout=subprocess.PIPE, cwd="/") as process:
        try:
            if process.stdout is not None:
                process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def _killed(work: Callable[[], object], delay_s: float) -> None:
    """Do something in a child process, and kill it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
