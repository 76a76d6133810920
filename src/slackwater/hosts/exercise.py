# SPDX-License-Identifier: Apache-2.0
"""An exercise, seen as a whole: whether what its file names exists in the contracts, and what everybody is told."""

from collections.abc import Iterator

from slackwater.errors import UsageError
from slackwater.exercise.faults import DEFECT, ERRORS, SYSTEM
from slackwater.exercise.file import Exercise, Fault, current, named
from slackwater.exercise.lies import NoLieError
from slackwater.exercise.weave import Room
from slackwater.providers import test as providers
from slackwater.writers import test as writers
from slackwater.writers._test.keeper import EVENTS as KEEPER

ROOMS = (writers.ROOM, providers.ROOM)

CAUGHT = "is caught or harmless: afterwards storage, catalog and applications agree"
"""What a lie is that is not in `COSTS`."""
COSTS: dict[str, str] = {
    "provider.place.undo": "costs a directory that stays; `catalog check` names it",
    "writer.stop.undo": "costs the application its restart: it stays stopped",
}
"""What a lie costs that nobody but its plug-in can know of."""
_KEEPER = {"ready": "Whether the lock can be had.", "hold": "Take the lock.", "release": "Give it back."}


def events() -> dict[str, bool]:
    """Every event at which something can go wrong, and whether one can lie there."""
    found = {event: _lies(room, event) for room in ROOMS for event in room.events}
    return dict(sorted((found | dict.fromkeys(KEEPER, True)).items()))


def asked(event: str) -> str:
    """What an event is, in the words of the contract."""
    if event in KEEPER:
        return _KEEPER[event.rpartition(".")[2]]
    method = next(room.events[event] for room in ROOMS if event in room.events)
    return (method.__doc__ or "").partition("\n")[0].replace("|", "or")


def cost(event: str) -> str:
    """What a lie at an event costs; empty where it is caught or harmless."""
    return COSTS.get(event, "")


def announce() -> str:
    """Check the exercise that is on, and say so in one line.

    Raises:
        UsageError: it cannot be understood, or names what there is not.
        RefusedError: others could have written it.
    """
    exercise = current()
    if exercise is None:
        return ""
    for why in _wrong(exercise):
        raise UsageError(
            f"The exercise {named()} cannot be understood: {why}.",
            data="Nothing was changed.",
            hint="docs/reference/exercise.md lists the events.",
        )
    faults = f"{len(exercise.fault)} {'fault' if len(exercise.fault) == 1 else 'faults'}"
    return f"warning: An exercise is on ({named()}, {faults}): what `test` says and makes is not to be relied on."


def _wrong(exercise: Exercise) -> Iterator[str]:
    known = events()
    for fault in exercise.fault:
        if fault.at not in known:
            yield f"there is no event {fault.at}"
        elif fault.do == "lie" and not known[fault.at]:
            yield f"nobody can lie at {fault.at}"
        elif why := _contradiction(fault):
            yield f"{fault.at}: {why}"


def _contradiction(fault: Fault) -> str:
    room = fault.at.partition(".")[0]
    if (fault.component and room != "writer") or (fault.volume and room != "provider"):
        return "components are a writer's and volumes a provider's"
    if fault.kind and fault.do in ("fail", "hang") and fault.kind not in (*ERRORS, DEFECT, SYSTEM):
        return f"there is no error {fault.kind}"
    if fault.do == "delay" and not fault.seconds:
        return "a delay needs its seconds"
    return ""


def _lies(room: Room, event: str) -> bool:
    try:
        room.lie(event)
    except NoLieError:
        return False
    return True
