# SPDX-License-Identifier: Apache-2.0
"""The argument for a hold: what each component needs, what its volumes guarantee, and what closes the gap between.

A set has one moment. A component that is held (locked, frozen, stopped) is of every moment of the window, so any number
of them may be in a set; one that is not held is of the instant of its commit, and so are all that share this one volume
with it. A bridged log has a moment of its own, so it stands alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from slackwater.coordinator.grounds import Grounds
from slackwater.model.component import Component, FileRole
from slackwater.model.facts import Finding, Severity
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Holding
from slackwater.model.storage import Volume


@dataclass(frozen=True, slots=True)
class Argument:
    """A holding for each component, or what stands against it."""

    holdings: tuple[Holding, ...]
    against: tuple[Finding, ...] = ()


def argue(grounds: Grounds, wanted: Hold | None, *, stop: bool = False) -> Argument:
    """Choose the cheapest hold for each component that gives the set one moment.

    Args:
        grounds: what was found.
        wanted: the only hold to choose; None for the cheapest.
        stop: with a cold one wanted, who runs may be stopped for the copies.
    """
    components = [each for each in grounds.components if grounds.volumes_of(each)]
    together = _of_one_instant(components, grounds) if wanted in (None, Hold.ATOMIC) else []
    parts = [_hold(each, together, components, grounds, wanted, stop=stop) for each in components]
    return Argument(tuple(each for each, _ in parts), tuple(chain.from_iterable(against for _, against in parts)))


def _hold(
    component: Component, together: Sequence[Component], components: Sequence[Component], grounds: Grounds,
    wanted: Hold | None, *, stop: bool,
) -> tuple[Holding, Sequence[Finding]]:  # fmt: skip
    """The first hold, cheapest first, against which nothing stands; else the last, with what stands against it."""
    alone = len(components) == 1
    whole = [volume for each in components for volume in grounds.volumes_of(each) if grounds.copies(volume)]
    ways: list[tuple[Hold, Callable[[], tuple[str, list[Finding]] | None]]] = [
        (Hold.COLD, lambda: _cold(component, grounds)),
        (Hold.ATOMIC, lambda: _atomic(component, together, grounds)),
        (Hold.STILL, lambda: _still(component, grounds) if alone else None),
        (Hold.LOG_BRIDGE, lambda: _bridge(component, grounds) if alone and not whole else None),
        (Hold.APPLICATION_LOCK, lambda: _lock(component) if not whole else None),
        (Hold.FILESYSTEM_FREEZE, lambda: _freeze_filesystems(component, grounds, components) if not whole else None),
        (Hold.PROCESS_FREEZE, lambda: _freeze(component, grounds, components) if not whole else None),
        (Hold.COLD, lambda: _stopped(component, asked=stop)),
    ]
    refused: tuple[Holding, Sequence[Finding]] | None = None
    for hold, way in ways:
        found = way() if wanted in (None, hold) or hold is Hold.COLD else None
        if found is not None:
            reason, against = found
            refused = (_holding(component, hold, reason), against)
            if not against:
                return refused
    if refused is None and whole:
        return _holding(component, wanted or Hold.COLD, ""), [_too_long(component, whole[0], grounds)]
    return refused or (_holding(component, wanted or Hold.PROCESS_FREEZE, ""), [_not_to_be_had(component, wanted)])


def _holding(component: Component, hold: Hold, reason: str) -> Holding:
    held = hold in (Hold.COLD, Hold.APPLICATION_LOCK)
    return Holding(component.ref, hold, Consistency.APPLICATION if held else component.best, reason)


def _of_one_instant(components: Sequence[Component], grounds: Grounds) -> list[Component]:
    """The components that lie whole on one and the same volume of one instant and need no more.

    Of several such groups the one with most components that could not be held anyway; then the largest.
    """
    groups: dict[str, list[Component]] = {}
    for component in components:
        volumes = grounds.volumes_of(component)
        if len(volumes) == 1 and not grounds.by_file(volumes[0]) and component.survives_power_cut:
            groups.setdefault(volumes[0].id, []).append(component)
    return max(groups.values(), key=lambda each: (sum(_only_so(one, grounds) for one in each), len(each)), default=[])


def _only_so(component: Component, grounds: Grounds) -> bool:
    """Whether nothing else could keep it still."""
    return component.ref in grounds.not_freezable and not component.offers


def _cold(component: Component, grounds: Grounds) -> tuple[str, list[Finding]] | None:
    if component.running or grounds.writers_of(component):
        return None
    return "The application is stopped: nothing writes, so nothing has to be held.", []


def _stopped(component: Component, *, asked: bool) -> tuple[str, list[Finding]] | None:
    """The dearest way: it is stopped for the copies, and started again."""
    if Hold.COLD not in component.offers and not (asked and component.can_stop):
        return None
    return "The application is stopped for as long as the copies take, and started again.", []


def _atomic(component: Component, together: Sequence[Component], grounds: Grounds) -> tuple[str, list[Finding]] | None:
    if component not in together:
        return None
    (volume,) = grounds.volumes_of(component)
    reason = (
        f"All files lie on one volume ({volume.path}), which is snapshotted at one instant, and "
        + ("the application recovers from a power cut by itself" if component.best is Consistency.APPLICATION
           else "no more is promised than what a power cut leaves")
        + ": nothing has to be held."
    )  # fmt: skip
    return reason, []


def _still(component: Component, grounds: Grounds) -> tuple[str, list[Finding]] | None:
    """Files that nobody is known to write: whether they were of one moment is seen afterwards."""
    volumes = grounds.volumes_of(component)
    if grounds.writers_of(component) or not all(grounds.by_file(volume) for volume in volumes):
        return None
    if any(grounds.copies(volume) for volume in volumes) and component.ref in grounds.in_use:
        return None  # whoever has it open for writing would be found when all is copied, and in vain
    if component.best is Consistency.APPLICATION and not _at_rest(component, grounds):
        return None
    reason = (
        "Each file has an instant of its own. Nobody has one open for writing, and the set is kept only if none changed"
        " from the first copy to the last: so all copies show the same moment."
    )
    return reason, []


def _at_rest(component: Component, grounds: Grounds) -> bool:
    """Whether nobody uses it at all, so that one moment of its files is all it needs."""
    copied = all(grounds.copies(volume) for volume in grounds.volumes_of(component))
    return copied and component.survives_power_cut and component.ref not in grounds.in_use


def _bridge(component: Component, grounds: Grounds) -> tuple[str, list[Finding]] | None:
    if Hold.LOG_BRIDGE not in component.offers or not component.running or not separable(component, grounds):
        return None
    reason = (
        "The files are not of one instant. The application keeps a log of every change and marks where the copies"
        " begin and end in it; the log is copied last and closes the gap: nothing has to be held."
    )
    return reason, []


def separable(component: Component, grounds: Grounds) -> bool:
    """Whether the log can be copied after everything else: it lies on volumes of its own, or is copied by file."""
    mine = [each for each in grounds.located if each.component.ref == component.ref and each.volume]
    other = {each.volume.id for each in mine if each.volume and each.files.role is not FileRole.LOG}
    logs = [each.volume for each in mine if each.volume and (each.files.role is FileRole.LOG or each.files.log)]
    return bool(logs) and all(grounds.by_file(volume) or volume.id not in other for volume in logs)


def _lock(component: Component) -> tuple[str, list[Finding]] | None:
    if Hold.APPLICATION_LOCK not in component.offers or not component.running:
        return None
    reason = (
        "The application's own lock keeps everybody from writing while the copies are made, so all of them show the"
        " same moment."
    )
    return reason, []


def _freeze_filesystems(
    component: Component, grounds: Grounds, components: Sequence[Component]
) -> tuple[str, list[Finding]] | None:
    """Nobody writes to the filesystems; only for providers below them, whose commits need no write there."""
    volumes = grounds.volumes_of(component)
    if any(map(grounds.through, volumes)) or not component.survives_power_cut:
        return None
    why = _why_not_one_instant(component, volumes, grounds, components)
    reason = (
        f"{why}: their filesystems are written out and frozen while every volume is snapshotted, so all copies show the"
        " same moment, and the application recovers from it as from a power cut."
    )
    every = {volume.id: volume for each in components for volume in grounds.volumes_of(each)}.values()
    frozen = {grounds.filesystems[each.id].superblock for each in volumes if each.id in grounds.filesystems}
    against = [
        (f"the filesystem of {each.path} cannot be frozen: {grounds.not_freezable_volumes.get(each.id, 'unknown')}")
        for each in volumes
        if each.id not in grounds.filesystems
    ]
    against += [
        f"the provider {name} makes its snapshots by a command, which may itself have to write"
        for name in sorted({each.provider for each in every if grounds.by_command(each)})
    ]
    against += [
        f"the snapshot of {each.path} is written to a filesystem that would be frozen"
        for each in every
        if grounds.through(each) and each.superblock in frozen
    ]
    return reason, [Finding("filesystem-freeze", Severity.REFUSAL, f"{why}, and {what}.") for what in against]


def _freeze(component: Component, grounds: Grounds, components: Sequence[Component]) -> tuple[str, list[Finding]]:
    """The processes stand still; what stands against that."""
    volumes = grounds.volumes_of(component)
    why = _why_not_one_instant(component, volumes, grounds, components)
    flushed = "" if all(map(grounds.through, volumes)) else ", and what they wrote is put on the disks"
    reason = (
        f"{why}: its processes stand still while every volume is snapshotted{flushed}, so all copies show the same"
        " moment."
    )
    found = []
    if component.running and (cannot := grounds.not_freezable.get(component.ref)):
        found.append(
            Finding(
                "not-freezable",
                Severity.REFUSAL,
                f"{why}, and the processes cannot be frozen: {cannot}.",
                "Put all files on one volume, or run the application in a cgroup of its own. Of files or SQLite the "
                "specification has to name its unit, cgroup or lock.",
            )
        )
    found += [
        Finding(
            "outside-writer",
            Severity.REFUSAL,
            f"{who} writes on a volume of the set and would not stand still with the application.",
            "Stop it, or move its files to another volume.",
        )
        for who in grounds.writers_of(component)
    ]
    return reason, found


def _why_not_one_instant(
    component: Component, volumes: Sequence[Volume], grounds: Grounds, components: Sequence[Component]
) -> str:
    if len(volumes) > 1:
        return f"The files lie on {len(volumes)} volumes, which no single commit covers"
    if grounds.by_file(volumes[0]):
        return f"Each file of {volumes[0].path} has an instant of its own"
    if not component.survives_power_cut:
        return "The application does not promise to survive a power cut"
    return "The set must be of one moment" if len(components) > 1 else "A freeze is asked for"


def _too_long(component: Component, volume: Volume, grounds: Grounds) -> Finding:
    """Nobody is held for as long as data is copied."""
    time_s = grounds.estimates.get(volume.id, 0.0)
    stop = (
        'Write hold = "stop" in the specification\'s [options] to have it stopped for that time and started again'
        if component.can_stop
        else "Say in its table of the specification how it is stopped and started (unit, or stop and start), and write"
        ' hold = "stop" in [options]'
    )
    return Finding(
        "copied-whole",
        Severity.REFUSAL,
        f"{component.ref} is in use, and the files of {volume.path} can only be copied whole, which takes about"
        f" {max(time_s, 1):.0f} s: nothing is locked or frozen for so long.",
        f"{stop}; or stop it yourself before the backup; or move its files to Btrfs or XFS, where that is an instant.",
    )


def _not_to_be_had(component: Component, wanted: Hold | None) -> Finding:
    return Finding(
        "hold",
        Severity.REFUSAL,
        f"{component.ref} cannot be kept still by {wanted or 'any hold'} with its files where they are.",
        'Take hold = "…" out of the specification, or lay out the files for it.',
    )
