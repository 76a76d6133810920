# SPDX-License-Identifier: Apache-2.0
"""Which hold makes this set consistent, and why: computed from needs and guarantees, never assumed.

Pure: what the host looked up goes in as values, a plan or its refusals come out. What cannot be argued for is refused
with the reason; nothing is lowered in silence. `holds.py` has the argument, `stages.py` what is committed together.
"""

from collections.abc import Mapping, Sequence

from slackwater.coordinator.grounds import Grounds, Located
from slackwater.coordinator.holds import argue
from slackwater.coordinator.stages import placements, stages
from slackwater.model.facts import Finding, Severity
from slackwater.model.hold import Hold, lowest
from slackwater.model.plan import Holding, Limits, Plan, PlanOptions
from slackwater.model.storage import Filesystem, Volume

_WORTH_TELLING_S = 0.1
#: Those under which the application waits for the copies.
_WAITING = (Hold.APPLICATION_LOCK, Hold.FILESYSTEM_FREEZE, Hold.PROCESS_FREEZE)
#: From the cheapest for the application to the dearest.
_COST = (
    Hold.COLD, Hold.ATOMIC, Hold.STILL, Hold.LOG_BRIDGE, Hold.APPLICATION_LOCK, Hold.FILESYSTEM_FREEZE,
    Hold.PROCESS_FREEZE,
)  # fmt: skip


def make_plan(grounds: Grounds, options: PlanOptions) -> Plan:
    """Argue for the cheapest hold that closes the gap between what writers need and providers guarantee.

    Args:
        grounds: what was found.
        options: what the specification says.
    """
    components = tuple(grounds.components)
    volumes = tuple({each.volume.id: each.volume for each in grounds.located if each.volume}.values())
    volumes = tuple(sorted(volumes, key=lambda each: each.provider))
    findings = [finding for component in components for finding in component.findings]
    findings += grounds.checks
    findings += _without_files(grounds)
    findings += _unprovided(grounds.located)
    findings += _same_names(volumes)
    findings += foreign_findings(grounds.foreign, options.configuration_check)
    argument = argue(grounds, options.hold, stop=options.stop)
    findings += argument.against
    findings += _duration(grounds, argument.holdings, options.limits)
    findings += _stopped_for(grounds, argument.holdings)
    holds = {each.hold for each in argument.holdings}
    dearest = max(holds, key=_COST.index, default=Hold.ATOMIC)
    return Plan(
        components=components,
        volumes=volumes,
        placements=placements(grounds, argument.holdings),
        holdings=argument.holdings,
        stages=stages(grounds, argument.holdings, volumes),
        hold=dearest,
        reason=" ".join(dict.fromkeys(each.reason for each in argument.holdings)),
        consistency=lowest([each.consistency for each in argument.holdings]),
        limits=options.limits,
        findings=tuple(findings),
        filesystems=_frozen(grounds, argument.holdings),
    )


def _frozen(grounds: Grounds, holdings: Sequence[Holding]) -> tuple[Filesystem, ...]:
    """The filesystems that are to be frozen, each once: what lies in another one before that."""
    held = {each.component for each in holdings if each.hold is Hold.FILESYSTEM_FREEZE}
    volumes = [volume for each in grounds.components if each.ref in held for volume in grounds.volumes_of(each)]
    found = {each.superblock: each for volume in volumes if (each := grounds.filesystems.get(volume.id))}
    return tuple(sorted(found.values(), key=lambda each: each.rank))


def _duration(grounds: Grounds, holdings: Sequence[Holding], limits: Limits) -> list[Finding]:
    """Copies that take longer than the application may be held would be taken for nothing: the guard lets it go."""
    held = {each.component for each in holdings if each.hold in _WAITING}
    if not held:
        return []
    total_s = sum(grounds.estimates.values())  # all volumes of the set are taken within the hold
    if total_s > limits.hold_s:
        return [
            Finding(
                "too-slow",
                Severity.REFUSAL,
                f"The copies are likely to take {total_s:.1f} s, and the application may be held for"
                f" {limits.hold_s:g} s.",
                "Raise hold_timeout in the specification's options, let fewer or less fragmented files be written"
                " shortly before, or use a provider whose snapshots take no longer for many files (Btrfs).",
            )
        ]
    if total_s < _WORTH_TELLING_S:
        return []
    return [
        Finding(
            "duration",
            Severity.NOTE,
            f"The copies are likely to take {total_s:.1f} s; the application may be held for {limits.hold_s:g} s.",
        )
    ]


def _stopped_for(grounds: Grounds, holdings: Sequence[Holding]) -> list[Finding]:
    """How long who is stopped for the copies is likely to be down."""
    stopped = {each.component for each in holdings if each.hold is Hold.COLD and each.reason}
    running = [each for each in grounds.components if each.running and each.ref in stopped]
    total_s = sum(grounds.estimates.values())
    return [
        Finding(
            "downtime",
            Severity.NOTE,
            f"{each.ref} is stopped for about {max(total_s, 1):.0f} s, for as long as the copies take.",
        )
        for each in running
    ]


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
            "Move it to a Btrfs subvolume of its own, to XFS or to ext4; a replica without it could not be recovered.",
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
            "Rename one of them.",
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
