# SPDX-License-Identifier: Apache-2.0
"""One cell of the matrix: a session, a moment of it, a fault; and what must be true afterwards."""

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.e2e import strikes
from tests.e2e.spawner import Command
from tests.e2e.support import is_guest
from tests.matrix import facts
from tests.matrix.kinds import Kind, tidy
from tests.matrix.site import BACK_S, GOES_ON_S, Site

TRIES = 30
TRIES_AT_LAST = 3
TOO_SHORT = {"catalog: session ended": "nothing but the end of the process comes after it"}
"""Moments that a session may be over too soon to be struck in, and why; every other one has to be hit."""
STANDS_S = 0.03
WINDOW = "window"
"""The moment in which the guard's record is there."""


class Fault(StrEnum):
    """What is done to a session."""

    KILL = "SIGKILL"
    STOP_CONTINUE = "SIGSTOP, SIGCONT"
    STOP_KILL = "SIGSTOP, SIGKILL"
    TERM = "SIGTERM"
    INTERRUPT = "Ctrl-C"
    ABORT = "SIGSTOP, abort --kill"
    GUARD = "guard killed"
    BOTH = "guard and session killed"
    ENGINE = "application killed"
    STANDS = "application stopped"


ANYWHERE = (Fault.KILL, Fault.STOP_CONTINUE, Fault.STOP_KILL, Fault.TERM, Fault.INTERRUPT, Fault.ABORT)
IN_WINDOW = (Fault.GUARD, Fault.BOTH, Fault.ENGINE, Fault.STANDS)
DEADLY = (Fault.KILL, Fault.STOP_KILL, Fault.ABORT, Fault.BOTH)
"""A session that these have hit was ended by SIGKILL, and by nothing else."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Kind, moment and fault."""

    kind: Kind
    moment: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.kind.name} | {self.moment} | {self.fault}"


@dataclass(slots=True)
class Seen:
    """What was seen in a cell."""

    landed: str = ""
    """How far the session had come when it was struck; empty: in its window, or nowhere that is known."""
    tries: int = 0
    fault: Fault | None = None
    """What was done to it; None when it came too late, or did nothing."""
    outcome: str = ""
    replicas: int = 0
    """How many were judged by the oracle."""
    notes: list[str] = field(default_factory=list)

    @property
    def hit(self) -> bool:
        """Whether the session was struck."""
        return self.fault is not None


def run_cell(site: Site, cell: Cell, known: list[str], rng: random.Random) -> Seen:
    """Strike, and look at everything afterwards.

    Raises:
        AssertionError: something is not as it must be.
    """
    seen, where = Seen(), f"{site.engine} on {site.storage}: {cell}"
    for _ in range(TRIES_AT_LAST if cell.moment in TOO_SHORT else TRIES):
        words = cell.kind.begin(site)
        before, floor = site.replicas(), site.floor()
        with facts.Watch(site.lab.state_dir) as watch:
            command = site.spawn(*words)
            seen.tries += 1

            def land(seen: Seen = seen, watch: facts.Watch = watch) -> None:
                seen.landed = facts.last_of(known, watch)

            seen.fault = _inflict(site, cell, command, rng, land) if _reach(site, cell, watch, command, known) else None
            status = command.wait()
            if seen.fault in DEADLY and status != -signal.SIGKILL:
                seen.fault = None  # it had ended by itself before
        site.floors.setdefault(command.session, floor)  # of what a later command may find and keep
        if seen.hit or status != 0:
            break
        _note(site, before, floor)
        tidy(site)
        assert site.goes_on(BACK_S), f"{where}: the application does not come back"
    if not seen.hit and is_guest(command.answer()):
        time.sleep(0.2)
        return run_cell(site, cell, known, rng)
    assert seen.hit or status == 0, f"{where}: it did not do its work before it was struck: {command.answer()}"
    seen.outcome = _outcome(site, cell, command, where)
    if seen.hit:
        _afterwards(site, cell, command, where, rng)
    else:  # a client that has not connected anew yet speaks of what was set aside
        assert site.goes_on(BACK_S), f"{where}: the application does not come back"
    _judge(site, cell, seen, before, floor, where)
    tidy(site)
    return seen


def _reach(site: Site, cell: Cell, watch: facts.Watch, command: Command, known: list[str]) -> bool:
    """Wait for the moment, or for one well after it when it was too short to be seen; False when the command ended."""
    late = known.index(cell.moment) + 2 if cell.moment in known else len(known)
    enough = {cell.moment, *known[late:]}
    there: Callable[[], bool] = lambda: not enough.isdisjoint(watch.look())  # noqa: E731
    if cell.moment == WINDOW:
        there = lambda: bool(glances(site))  # noqa: E731
    return watch.until(command, there)


def glances(site: Site) -> dict[str, Any]:
    """The record of the guard that holds something; empty when none does."""
    return strikes.record_of(site) or {}  # type: ignore[arg-type]  # it asks for the lab only


def _inflict(site: Site, cell: Cell, command: Command, rng: random.Random, land: Callable[[], None]) -> Fault | None:
    """Do to it what the fault says, and note by `land` how far it had come.

    Returns: what was done; None when nobody was there any more to do it to.
    """
    if not strikes.exists(command.pid):
        return None
    match cell.fault:
        case Fault.KILL:
            command.send(signal.SIGKILL, group=rng.random() < 0.5)
            command.wait()
        case Fault.TERM:
            command.send(signal.SIGTERM)
        case Fault.INTERRUPT:
            command.send(signal.SIGINT, group=True)
        case Fault.STOP_CONTINUE | Fault.STOP_KILL | Fault.ABORT:
            command.send(signal.SIGSTOP)
            if not strikes.exists(command.pid):
                return None
            land()
            return _inflict_on_stopped(site, cell, command, rng)
        case _:
            return cell.fault if _inflict_in_window(site, cell.fault, command) else None
    land()
    return cell.fault


def _inflict_on_stopped(site: Site, cell: Cell, command: Command, rng: random.Random) -> Fault:
    if cell.fault is Fault.ABORT:
        return _abort(site, cell, command)
    if cell.kind.stops:
        time.sleep(rng.random() * STANDS_S)
    else:
        assert site.goes_on(1.0 + GOES_ON_S), f"{cell}: beside a stopped session the application stands still"
    command.send(signal.SIGCONT if cell.fault is Fault.STOP_CONTINUE else signal.SIGKILL)
    return cell.fault


def _abort(site: Site, cell: Cell, command: Command) -> Fault:
    """Have a session that is stopped taken over; one that has not told its id yet, or has just ended, is only killed.

    Returns: which of the two.
    """
    known = site.catalog(f"SELECT id FROM sessions WHERE outcome = 'running' AND id = '{command.session}'")
    if not known:
        command.send(signal.SIGKILL)
        return Fault.STOP_KILL
    answer = site.ask("session", "abort", command.session, "--kill")
    assert answer.status == 0, f"{cell}: {answer.output}"
    assert command.wait() == -signal.SIGKILL, f"{cell}: {command.output()}"
    assert site.pending() == [], f"{cell}: it was taken over and not put right"
    return Fault.ABORT


def faults_of(kind: Kind) -> list[Fault]:
    """What can be done to sessions of this kind at any moment; a reconcile is no session that could be aborted."""
    return [each for each in ANYWHERE if each is not Fault.ABORT or not kind.name.startswith("reconcile")]


def _inflict_in_window(site: Site, fault: Fault, command: Command) -> bool:
    """Whether it was done; the window may be over again by now."""
    if not (record := glances(site)):
        return False
    match fault:
        case Fault.GUARD:
            return _kill(strikes.guard_of(record))
        case Fault.BOTH:
            command.send(signal.SIGSTOP)  # or it would see its guard's death
            killed = _kill(strikes.guard_of(record))
            command.send(signal.SIGKILL if killed else signal.SIGCONT)
            return killed
        case Fault.ENGINE:
            return sum(map(_kill, site.pids())) > 0
        case _:
            _stand(site, command)
            return True


def _kill(pid: int) -> bool:
    """Kill a process; False when it was gone already."""
    if not strikes.exists(pid):
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _stand(site: Site, command: Command) -> None:
    """Let the application stand still until the session has ended."""
    pids = site.pids()
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if number is signal.SIGSTOP:
            command.wait()


def _outcome(site: Site, cell: Cell, command: Command, where: str) -> str:
    """How the session ended: in words of ours, or by the signal; a defect of ours is a violation."""
    status = command.wait()
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    if status == 0:
        return "completed"
    error = command.answer().document.get("error", {})
    code = str(error.get("code", f"status {status}"))
    assert code != "internal", f"{where}: {error}"
    assert "Traceback" not in command.complaint(), f"{where}: {command.complaint()}"
    asked = cell.fault in (Fault.TERM, Fault.INTERRUPT) and status in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert asked or cell.fault not in (Fault.TERM, Fault.INTERRUPT) or code == "aborted", f"{where}: {error}"
    return f"refused: {code}"


def _afterwards(site: Site, cell: Cell, command: Command, where: str, rng: random.Random) -> None:
    """The application writes again in time; one reconcile, or the next session, puts everything right."""
    frees_itself = not cell.kind.stops and cell.fault is not Fault.ENGINE
    if cell.fault is Fault.ENGINE:
        site.cut_off |= {command.session}
        site.revive()
    if frees_itself:
        assert site.goes_on(), f"{where}: the application stands still"
    status = command.wait()
    by_itself = status >= 0 and (cell.kind.undoes or status == 0)
    if by_itself:  # it was still there, and has put back what it had begun
        assert site.pending() == [], f"{where}: it has left something to a reconcile"
    elif rng.random() < 0.75 or cell.kind.stops:
        reconcile(site, where)
    else:
        site.backup("plain")
    assert site.goes_on(BACK_S), f"{where}: the application does not come back"


def reconcile(site: Site, where: str) -> None:
    """Once, and nothing is left to be put right."""
    told = site.run("reconcile")
    assert told["unmended"] == [], f"{where}: {told}"


def _judge(site: Site, cell: Cell, seen: Seen, before: dict[str, Any], floor: Any, where: str) -> None:
    """Catalog, storage, machine, replicas and the application itself."""
    assert (left := deleting(site)) == [], f"{where}: the deletion of {left} is not finished"
    after = site.replicas()
    site.agree(where)
    tidy(site)  # what is kept on purpose; what nobody knows of stays, and is seen
    site.whole(where, after)
    _note(site, before, floor)
    source = "" if site.dear else cell.kind.source
    looked_at = [each for name, each in after.items() if name not in before or each["specification"] == source]
    for each in looked_at[-3:]:
        assert (found := site.judge(each)) == [], f"{where}: {found}"
    seen.replicas = len(looked_at[-3:])
    _nothing_lost(cell, before, after, where)
    floors = [site.floor(), floor if cell.kind.forward else _turned_to(site, before, after, floor)]
    assert (found := [each for at in floors for each in site.live_complaints(at)]) == [], f"{where}: {found}"


def _turned_to(site: Site, before: dict[str, Any], after: dict[str, Any], floor: Any) -> Any:
    """What has to be there: all that was acknowledged before, or all of the replica that was recovered from."""
    for name, each in after.items():
        if name not in before and each["kind"] == "undo":
            return site.floors[each["replaced_by"]] if each["replaced_by"] else floor
    return floor


def _nothing_lost(cell: Cell, before: dict[str, Any], after: dict[str, Any], where: str) -> None:
    """Only what was to be deleted is gone, and never the last of its specification for a backup that is not there."""
    gone = [each for name, each in before.items() if name not in after]
    if cell.kind.name == "replica delete":
        assert len(gone) <= 1, f"{where}: {gone}"
        return
    rotated = [each for each in gone if cell.kind.rotates and each["specification"] == cell.kind.source]
    assert gone == rotated, f"{where}: gone is {[each['id'] for each in gone]}"
    left = [each for each in after.values() if each["specification"] == cell.kind.source and each["kind"] == "backup"]
    assert not rotated or left, f"{where}: the last good one went"


def deleting(site: Site) -> list[str]:
    """What the catalog has decided to delete and still knows."""
    sql = "SELECT id FROM {} WHERE state = 'deleting'"
    return [row[0] for table in ("replicas", "clones") for row in site.catalog(sql.format(table))]


def _note(site: Site, before: dict[str, Any], floor: Any) -> None:
    """Whatever came since has to hold what was acknowledged before the session began.

    But for what is kept of a recovery that was taken back: it began with what was recovered from.
    """
    for name, each in site.replicas().items():
        if name not in before and each["kind"] == "undo" and not each["replaced_by"]:
            site.floors[name] = site.kept_floor(floor)
        elif name not in before:
            site.floors.setdefault(name, floor)
