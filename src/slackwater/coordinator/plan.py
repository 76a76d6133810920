# SPDX-License-Identifier: Apache-2.0
"""Which hold makes this set consistent, and why: computed from needs and guarantees, never assumed.

Pure: what the host looked up goes in as values, a plan or its refusals come out. What cannot be argued for is refused
with the reason; nothing is lowered in silence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from slackwater.model.component import Component, FileSet
from slackwater.model.facts import Finding, Severity
from slackwater.model.plan import Consistency, Hold, Limits, Placement, Plan
from slackwater.model.storage import Capabilities, Volume


@dataclass(frozen=True, slots=True)
class Located:
    """One group of files with the storage that carries it, as the host found it."""

    component: Component
    files: FileSet
    volume: Volume | None
    """None: no provider here can snapshot it."""
    filesystem: str = ""
    """The type of a filesystem that has no provider; empty where nothing could be looked at."""


@dataclass(frozen=True, slots=True)
class Grounds:
    """Everything the planner argues from."""

    components: Sequence[Component]
    """Everything that is to be backed up, also what has no files that can be seen."""
    located: Sequence[Located]
    capabilities: Mapping[str, Capabilities]
    """By provider."""
    checks: Sequence[Finding] = ()
    """What writers and providers found by themselves."""
    foreign: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By volume id: what lies on it and belongs to no component of the set; folders end with a slash."""
    not_freezable: str = ""
    """Why the processes of the set cannot be frozen; empty when they can."""
    outside_writers: Sequence[str] = ()
    """Who else has files of the set's volumes open for writing, in words."""


def make_plan(grounds: Grounds, *, configuration_check: str, limits: Limits) -> Plan:
    """Argue for the cheapest hold that closes the gap between what writers need and providers guarantee.

    Args:
        grounds: what was found.
        configuration_check: `strict` (nothing foreign on the volumes), `non-strict` (foreign files are tolerated,
            folders are not) or `disabled` (foreign things are named).
        limits: how long the application may be kept waiting.
    """
    components = tuple(grounds.components)
    volumes = tuple({each.volume.id: each.volume for each in grounds.located if each.volume}.values())
    findings = [finding for component in components for finding in component.findings]
    findings += grounds.checks
    findings += _without_files(grounds)
    findings += _unprovided(grounds.located)
    findings += _same_names(volumes)
    findings += foreign_findings(grounds.foreign, configuration_check)
    hold, reason = Hold.ATOMIC, ""
    if volumes:
        hold, reason, against = _argue(components, volumes, grounds)
        findings += against
    return Plan(
        components=components,
        volumes=volumes,
        placements=_placements(grounds, hold),
        hold=hold,
        reason=reason,
        consistency=Consistency.APPLICATION,
        limits=limits,
        findings=tuple(findings),
    )


def _argue(
    components: Sequence[Component], volumes: Sequence[Volume], grounds: Grounds
) -> tuple[Hold, str, list[Finding]]:
    """Choose the hold: the argument, or the refusals."""
    if not any(component.running for component in components) and not grounds.outside_writers:
        return Hold.COLD, "The application is stopped: nothing writes, so nothing has to be held.", []
    if len(volumes) == 1 and all(component.survives_power_cut for component in components):
        reason = (
            f"All files lie on one volume ({volumes[0].path}), which is snapshotted at one instant, and the application"
            " recovers from a power cut by itself: nothing has to be held."
        )
        return Hold.ATOMIC, reason, []
    why = (
        f"The files lie on {len(volumes)} volumes, which no single commit covers"
        if len(volumes) > 1
        else "The application does not promise to survive a power cut"
    )
    reason = f"{why}: its processes stand still while every volume is snapshotted, so all copies show the same moment."
    return Hold.PROCESS_FREEZE, reason, _against_freezing(volumes, grounds, why)


def _against_freezing(volumes: Sequence[Volume], grounds: Grounds, why: str) -> list[Finding]:
    """Under which conditions a process freeze proves nothing, or cannot be had."""
    found = []
    if grounds.not_freezable:
        found.append(
            Finding(
                "not-freezable",
                Severity.REFUSAL,
                f"{why}, and the processes cannot be frozen: {grounds.not_freezable}.",
                "Put all files on one volume, or run the application in a cgroup of its own.",
            )
        )
    found += [
        Finding(
            "below-filesystem",
            Severity.REFUSAL,
            f"{why}, and the provider {name} copies below the filesystem, where a process freeze leaves data in the"
            " kernel's memory.",
        )
        for name in sorted({volume.provider for volume in volumes})
        if not grounds.capabilities[name].reads_through_filesystem
    ]
    found += [
        Finding(
            "outside-writer",
            Severity.REFUSAL,
            f"{who} writes on a volume of the set and would not stand still with the application.",
            "Stop it, or move its files to another volume.",
        )
        for who in grounds.outside_writers
    ]
    return found


def _without_files(grounds: Grounds) -> list[Finding]:
    """A replica of nothing must never look like a replica."""
    located = {each.component.ref for each in grounds.located}
    return [
        Finding(
            "no-files",
            Severity.REFUSAL,
            f"Nothing is known of the files of {component.ref}.",
            "`slackwater discover` shows what is known of it.",
        )
        for component in grounds.components
        if component.ref not in located and not component.refusals
    ]


def _unprovided(located: Sequence[Located]) -> list[Finding]:
    return [
        Finding(
            "no-provider",
            Severity.REFUSAL,
            f"The {each.files.role} of {each.component.ref} in {each.files.path} lies on"
            f" {each.filesystem}, which no provider here can snapshot.",
            "Move it to a Btrfs subvolume of its own; a replica without it could not be recovered.",
        )
        for each in located
        if each.volume is None and each.filesystem
    ]


def _same_names(volumes: Sequence[Volume]) -> list[Finding]:
    """Two volumes of a set must not share the directory name that their copies will have."""
    names = [volume.name for volume in volumes]
    return [
        Finding(
            "same-name",
            Severity.REFUSAL,
            f"The volumes {volume.path} and another of the set would both be called {volume.name} in the replica.",
            "Rename one of the subvolumes.",
        )
        for position, volume in enumerate(volumes)
        if volume.name in names[:position]
    ]


def foreign_findings(foreign: Mapping[str, Sequence[str]], check: str) -> list[Finding]:
    """The configuration check: recovery turns whole volumes back, and whatever else lies on them goes along."""
    found = []
    for entries in foreign.values():
        if not entries:
            continue
        counted = [entry for entry in entries if check == "strict" or entry.endswith("/")]
        refuse = check != "disabled" and bool(counted)
        found.append(
            Finding(
                "foreign-files",
                Severity.REFUSAL if refuse else Severity.WARNING,
                f"{_few(counted if refuse else entries)} would be turned back along with the application,"
                " since recovery turns back whole volumes.",
                'Give the application a subvolume of its own, or set configuration_check = "disabled" to accept it.'
                if refuse
                else "",
            )
        )
    return found


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _placements(grounds: Grounds, hold: Hold) -> tuple[Placement, ...]:
    said = {
        Hold.ATOMIC: "one instant for the whole volume",
        Hold.COLD: "nothing writes while it is copied",
        Hold.PROCESS_FREEZE: "one instant for every volume, since no process of the application runs",
    }[hold]
    return tuple(
        Placement(each.component.ref, each.files, each.volume, stage=1, guarantee=said)
        for each in grounds.located
        if each.volume is not None
    )
