# SPDX-License-Identifier: Apache-2.0
"""Looking up what the planner argues from: which volume carries which files, and who else is there. Reads only."""

import os
from collections.abc import Iterable, Mapping, Sequence

from slackwater.coordinator.plan import Grounds, Located, foreign_findings
from slackwater.errors import SlackwaterError
from slackwater.model.component import Component, FileSet
from slackwater.model.facts import Finding, Severity
from slackwater.model.plan import Plan
from slackwater.model.storage import Volume
from slackwater.providers.contract import Provider
from slackwater.recovery.checks import read_text
from slackwater.system import cgroups, mounts, processes
from slackwater.writers.contract import Writer

Writers = Mapping[str, Writer]
Providers = Mapping[str, Provider]


def grounds(components: Sequence[Component], writers: Writers, providers: Providers) -> Grounds:
    """Survey the storage under some components."""
    located = [_locate(component, files, providers) for component in components for files in component.files]
    volumes = {each.volume.id: each.volume for each in located if each.volume}
    running = [component for component in components if component.running]
    found = _absent(located)
    for volume in volumes.values():
        trees = _trees(components, volume, located)
        found += providers[volume.provider].check_backup(volume, trees, _beside(volume, volumes.values()))
    several = len(volumes) > 1 or not all(component.survives_power_cut for component in components)
    return Grounds(
        components=components,
        located=located,
        capabilities={name: provider.capabilities for name, provider in providers.items()},
        checks=found,
        foreign={v.id: _foreign(components, v, located, providers) for v in volumes.values()},
        not_freezable=_not_freezable(components, writers) if several else "",
        outside_writers=_outside_writers(volumes.values(), _processes(running, writers))
        if several or not running
        else (),
    )


def _locate(component: Component, files: FileSet, providers: Providers) -> Located:
    """Find the volume. Of a component that was refused nothing is looked at: it may live in another mount namespace."""
    if component.refusals or not os.path.exists(files.path):
        return Located(component, files, None)
    for provider in providers.values():
        if volume := provider.volume_of(files.path):
            return Located(component, files, volume)
    mount = mounts.mount_of(files.path)
    return Located(component, files, None, mount.fstype if mount else "an unknown filesystem")


def _absent(located: Sequence[Located]) -> list[Finding]:
    """Files that a component should have and that are not there."""
    return [
        Finding(
            "no-such-path",
            Severity.REFUSAL,
            f"The {each.files.role} of {each.component.ref} should be in {each.files.path}, which does not exist.",
            "Mount the volume that holds it, or put the configuration right.",
        )
        for each in located
        if not each.component.refusals and not os.path.exists(each.files.path)
    ]


def _trees(components: Sequence[Component], volume: Volume, located: Sequence[Located]) -> list[str]:
    """The directory trees of the set that lie on a volume."""
    refs = {component.ref for component in components}
    return [
        each.files.path
        for each in located
        if each.volume and each.volume.id == volume.id and each.component.ref in refs
    ]


def _foreign(
    components: Sequence[Component], volume: Volume, located: Sequence[Located], providers: Providers
) -> Sequence[str]:
    return providers[volume.provider].foreign(volume, _trees(components, volume, located))


def _beside(volume: Volume, volumes: Iterable[Volume]) -> list[Volume]:
    """The other volumes of a set."""
    return [each for each in volumes if each.id != volume.id]


def _processes(components: Sequence[Component], writers: Writers) -> frozenset[int]:
    pids: frozenset[int] = frozenset()
    for component in components:
        pids |= writers[component.ref.writer].processes(component)
    return pids


def _not_freezable(components: Sequence[Component], writers: Writers) -> str:
    """Why some component's processes could not be frozen together and alone; nothing is moved or frozen to find out."""
    for component in components:
        if component.running:
            try:
                cgroups.plan_gather("PREVIEW", writers[component.ref.writer].processes(component))
            except SlackwaterError as e:
                return e.sentence.rstrip(".")
    return ""


def _outside_writers(volumes: Iterable[Volume], pids: frozenset[int]) -> list[str]:
    """Who else has files on the volumes open for writing; of what is called stopped, that is everybody."""
    found = {}
    for volume in volumes:
        for holder in processes.holders(os.stat(volume.path).st_dev, exclude=pids):
            if holder.writing:
                found[holder.pid] = f"Process {holder.pid} ({holder.command}), which has {holder.path} open,"
    return list(found.values())


def recoverable(plan: Plan, writers: Writers, providers: Providers) -> list[Finding]:
    """What would stand against putting clones in the places of a plan's volumes today."""
    pids = _processes(plan.components, writers)
    found: list[Finding] = []
    for volume in plan.volumes:
        found += providers[volume.provider].check_recovery(volume, pids, _beside(volume, plan.volumes))
    return found


def foreign(
    components: Sequence[Component], volumes: Sequence[Volume], providers: Providers, configuration_check: str
) -> list[Finding]:
    """The configuration check of a recovery: what else would be turned back along with the components."""
    located = [_locate(component, files, providers) for component in components for files in component.files]
    entries = {v.id: _foreign(components, v, located, providers) for v in volumes}
    return foreign_findings(entries, configuration_check)


def configuration(component: Component) -> dict[str, str]:
    """The texts of a component's configuration outside its volumes; what cannot be read is left out."""
    texts = {path: read_text(path) for path in component.configuration}
    return {path: text for path, text in texts.items() if text is not None}
