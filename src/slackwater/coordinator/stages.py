# SPDX-License-Identifier: Apache-2.0
"""What is committed together, in which order: one stage, or two where a log closes the gap.

With a log bridge the first stage takes data and tablespaces, the second the log: it must hold everything up to the end
that the application marks between the two.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

from slackwater.coordinator.grounds import Grounds, Located
from slackwater.model.component import FileRole
from slackwater.model.hold import Hold
from slackwater.model.plan import Holding, Placement
from slackwater.model.storage import Take, Volume

_GUARANTEES = {
    Hold.ATOMIC: "one instant for the whole volume",
    Hold.COLD: "nothing writes while it is copied",
    Hold.STILL: "no file changes while they are copied, or nothing is kept",
    Hold.LOG_BRIDGE: "the log from before the first copy to after the last one",
    Hold.APPLICATION_LOCK: "nobody writes while the application's lock is held",
    Hold.FILESYSTEM_FREEZE: "one instant for every volume, since nothing is written to their filesystems",
    Hold.PROCESS_FREEZE: "one instant for every volume, since no process of the application runs",
}


def placements(grounds: Grounds, holdings: Sequence[Holding]) -> tuple[Placement, ...]:
    """Say for each file set where it lies, when it is taken, and what that guarantees."""
    holds = {each.component: each.hold for each in holdings}
    return tuple(
        Placement(
            component=each.component.ref,
            files=each.files,
            volume=each.volume,
            stage=2 if _late(each, holds[each.component.ref]) else 1,
            guarantee=_GUARANTEES[holds[each.component.ref]],
        )
        for each in grounds.located
        if each.volume is not None
    )


def stages(grounds: Grounds, holdings: Sequence[Holding], volumes: Sequence[Volume]) -> tuple[tuple[Take, ...], ...]:
    """Give what each stage takes, in the order of the volumes."""
    holds = {each.component: each.hold for each in holdings}
    located = [each for each in grounds.located if each.volume is not None and each.component.ref in holds]
    late = [each for each in located if _late(each, holds[each.component.ref])]
    within = [each for each in located if holds[each.component.ref] is Hold.LOG_BRIDGE and each.files.log]
    early = [each for each in located if each not in late]
    patient = set(holds.values()) <= {Hold.COLD, Hold.STILL}
    first = [
        replace(_take(volume, early, _log_of(within, volume)), patient=patient)
        for volume in volumes
        if _on(volume, early)
    ]
    second = [_take(volume, late, (), _log_of(within, volume)) for volume in volumes if _on(volume, [*late, *within])]
    return (tuple(first), tuple(second)) if second else (tuple(first),)


def _late(located: Located, hold: Hold) -> bool:
    """Whether a file set waits for the second stage."""
    return hold is Hold.LOG_BRIDGE and located.files.role is FileRole.LOG


def _on(volume: Volume, located: Iterable[Located]) -> list[Located]:
    return [each for each in located if each.volume is not None and each.volume.id == volume.id]


def _log_of(within: Iterable[Located], volume: Volume) -> tuple[str, ...]:
    """The logs inside of file sets on a volume."""
    return tuple(os.path.join(each.files.path, each.files.log) for each in _on(volume, within))


def _take(volume: Volume, located: Iterable[Located], without: tuple[str, ...], more: tuple[str, ...] = ()) -> Take:
    sets = [each.files for each in _on(volume, located)]
    return Take(
        volume=volume,
        trees=(*(each.path for each in sets), *more),
        without=(*without, *(os.path.join(each.path, name) for each in sets for name in each.never)),
        last=tuple(os.path.join(each.path, name) for each in sets for name in each.last),
    )
