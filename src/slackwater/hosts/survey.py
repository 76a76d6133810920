# SPDX-License-Identifier: Apache-2.0
"""Looking up what the planner argues from: which volume carries which files, and who else is there. Reads only."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from slackwater.coordinator.grounds import Grounds, Located
from slackwater.coordinator.plan import foreign_findings
from slackwater.errors import NotFoundError, SlackwaterError
from slackwater.model.component import Component, ComponentRef, FileSet
from slackwater.model.facts import Finding, Severity
from slackwater.model.plan import Plan
from slackwater.model.replica import BackupComponents
from slackwater.model.storage import Filesystem, ShadowCopy, Volume
from slackwater.providers.contract import Provider
from slackwater.recovery.checks import standing_against
from slackwater.system import cgroups, mounts, namespaces, processes, topology
from slackwater.system.configuration import owner_of, read_text
from slackwater.writers.contract import Writer

Writers = Mapping[str, Writer]
Providers = Mapping[str, Provider]
NO_WISHES: Mapping[ComponentRef, str] = {}


def grounds(
    components: Sequence[Component],
    writers: Writers,
    providers: Providers,
    state_dir: str,
    wanted: Mapping[ComponentRef, str] = NO_WISHES,
) -> Grounds:
    """Survey the storage under some components; `wanted` names the provider that is wished for some of them.

    Of a volume that carries our own state, in `state_dir`, nothing more is looked at: see `own_state`.
    """
    located = locate(components, providers, wanted)
    volumes = {each.volume.id: each.volume for each in located if each.volume}
    pids = _processes([component for component in components if component.running], writers)
    found = _absent(located)
    ours = {volume.id: own_state([volume], state_dir, providers) for volume in volumes.values()}
    found += [finding for findings in ours.values() for finding in findings]
    free = [volume for volume in volumes.values() if not ours[volume.id]]
    for volume in free:
        trees = _trees(components, volume, located)
        found += providers[volume.provider].check_backup(volume, trees, _beside(volume, volumes.values()))
    found += needs_root(volumes.values(), providers)
    freezable = {each.ref: why for each in components if (why := _not_freezable(each, writers))}
    outside = {
        volume.id: _outside_writers(volume, pids, by_file=_by_file(providers[volume.provider]))
        for volume in volumes.values()
    }
    filesystems, not_freezable_volumes = _filesystems(free, providers, state_dir)
    return Grounds(
        components=components,
        located=located,
        capabilities={name: provider.capabilities for name, provider in providers.items()},
        checks=found,
        foreign={v.id: _foreign(components, v, located, providers) for v in free},
        not_freezable=freezable,
        filesystems=filesystems,
        not_freezable_volumes=not_freezable_volumes,
        in_use=[each.ref for each in components if writers[each.ref.writer].processes(each)],
        estimates={v.id: providers[v.provider].estimate_s(v) for v in free},
        outside_writers={
            component.ref: tuple(
                dict.fromkeys(
                    who
                    for each in located
                    if each.component.ref == component.ref and each.volume
                    for who in outside[each.volume.id]
                )
            )
            for component in components
        },
    )


def locate(
    components: Sequence[Component], providers: Providers, wanted: Mapping[ComponentRef, str] = NO_WISHES
) -> list[Located]:
    """Find the volume of each file set: of the provider that is wished for, else of the best that can."""
    able = best_first(providers)
    return [
        _locate(component, files, [each for each in able if wanted.get(component.ref, each.name) == each.name])
        for component in components
        for files in component.files
    ]


def best_first(providers: Providers) -> list[Provider]:
    """Providers whose instant covers a whole volume, then those with one for each file, then others; then by name."""
    return sorted(providers.values(), key=lambda each: (_by_file(each), each.capabilities.copies, each.name))


def _by_file(provider: Provider) -> bool:
    return provider.capabilities.by_file


def _locate(component: Component, files: FileSet, providers: Sequence[Provider]) -> Located:
    """Find the volume. Of a component that was refused nothing is looked at: it may live in another mount namespace."""
    if component.refusals or not os.path.exists(files.path):
        return Located(component, files, None)
    for provider in providers:
        if volume := provider.volume_of(files.path):
            return Located(component, files, volume)
    mount = mounts.mount_of(files.path)
    return Located(component, files, None, mount.fstype if mount else "an unknown filesystem")


def volume_at(provider: Provider, path: str) -> Volume | None:
    """The volume at a path that was recorded; None when there is no such volume, or no such path, any more."""
    try:
        return provider.volume_of(path)
    except NotFoundError:
        return None


def live(copy: ShadowCopy, first: Provider, providers: Providers) -> Volume | None:
    """The volume in whose place a copy is to be put; a full one fits a volume of any provider."""
    able = [first, *(best_first(providers) if copy.by else ())]
    found = (volume_at(provider, copy.volume.path) for provider in able)
    return next((volume for volume in found if volume is not None), None)


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


def _not_freezable(component: Component, writers: Writers) -> str:
    """Why a component's processes could not be frozen together and alone; nothing is moved or frozen to find out."""
    if component.running:
        try:
            cgroups.plan_gather("PREVIEW", writers[component.ref.writer].processes(component))
        except SlackwaterError as e:
            return e.sentence.rstrip(".")
    return ""


def _filesystems(
    volumes: Sequence[Volume], providers: Providers, state_dir: str
) -> tuple[dict[str, Filesystem], dict[str, str]]:
    """What providers below the filesystem could have frozen, by volume, and why it cannot be for the others."""
    under = [each for each in volumes if not providers[each.provider].capabilities.reads_through_filesystem]
    found: dict[str, Filesystem] = {}
    why: dict[str, str] = {}
    needed = topology.needed({os.path.realpath(state_dir): "Slackwater's own state"}) if under else {}
    for volume in under:
        try:
            filesystem = topology.find(volume.path)
            if what := needed.get(filesystem.superblock):
                why[volume.id] = f"{filesystem.mount} carries {what}"
            else:
                found[volume.id] = filesystem
        except SlackwaterError as e:
            why[volume.id] = e.sentence.rstrip(".")
    try:
        ranked = {each.superblock: each for each in topology.ranked(found.values())}
    except SlackwaterError as e:
        return {}, why | dict.fromkeys(found, e.sentence.rstrip("."))
    return {volume: ranked[each.superblock] for volume, each in found.items()}, why


def _outside_writers(volume: Volume, pids: frozenset[int], *, by_file: bool) -> list[str]:
    """Who else has files on the volume open for writing; of what is called stopped, that is everybody."""
    writing = [each for each in processes.holders(os.stat(volume.path).st_dev, exclude=pids) if each.writing]
    if by_file and writing:
        inodes = _inodes(volume.path)  # a container reaches the same file by another path
        writing = [each for each in writing if mounts.inside(each.path, volume.path) or each.inode in inodes]
    found = {each.pid: f"Process {each.pid} ({each.command}), which has {each.path} open," for each in writing}
    return list(found.values())


def _inodes(path: str) -> set[int]:
    """The inode numbers of everything in a directory tree that can be seen."""
    found = set()
    for _, folders, files, fd in os.fwalk(path):
        for name in (*folders, *files):
            with suppress(OSError):
                found.add(os.stat(name, dir_fd=fd, follow_symlinks=False).st_ino)
    return found


def needs_root(volumes: Iterable[Volume], providers: Providers) -> list[Finding]:
    """Refuse, to users without root, volumes whose provider cannot do without."""
    return [
        Finding(
            "needs-root",
            Severity.REFUSAL,
            f"The provider {volume.provider} of {volume.path} works with root only.",
            "Run it with sudo.",
        )
        for volume in volumes
        if os.geteuid() != 0 and not providers[volume.provider].capabilities.rootless
    ]


def denied(volumes: Iterable[Volume], paths: Sequence[str], providers: Providers) -> list[Finding]:
    """Refuse volumes that lie in a path that the settings deny, or carry one."""
    return [
        Finding(
            "denied",
            Severity.REFUSAL,
            f"The volume {volume.path} {why}, and [volumes] deny in the settings forbids to snapshot or switch that.",
            "Move the application's files to a volume of their own, or take the path out of deny.",
        )
        for volume in volumes
        for path in paths
        if (why := _of_denied(volume, os.path.realpath(path), providers[volume.provider]))
    ]


def own_state(volumes: Iterable[Volume], state_dir: str, providers: Providers) -> list[Finding]:
    """Refuse volumes that carry our own state.

    A recovery would turn back the very journal that says how to finish it; and a copy file by file, or an estimate of
    its time, opens and closes our databases, which drops the locks that we hold on them ("How To Corrupt An SQLite
    Database File", 2.2). So this opens no file, and comes before whatever may.
    """
    return [
        Finding(
            "own-state",
            Severity.REFUSAL,
            f"The volume {volume.path} carries Slackwater's own state in {state_dir}.",
            "Move the state to another volume (SLACKWATER_STATE_DIR), or the application to one of its own.",
        )
        for volume in volumes
        if _carries(volume, os.path.realpath(state_dir), providers[volume.provider])
    ]


def _of_denied(volume: Volume, path: str, provider: Provider) -> str:
    here = os.path.realpath(volume.path)
    if here == path or mounts.inside(here, path):
        return f"lies in {path}"
    return f"carries {path}" if _carries(volume, path, provider) else ""


def _carries(volume: Volume, path: str, provider: Provider) -> bool:
    while not os.path.exists(path):  # what is not there yet will be where its folder is
        path = os.path.dirname(path)
    if _by_file(provider):
        return _lies_in(path, os.path.realpath(volume.path))
    on = provider.volume_of(path)
    return on is not None and on.id == volume.id


def _lies_in(path: str, directory: str) -> bool:
    """Whether a path is in a directory tree, by its name or through bind mounts of either or of a part of the tree."""
    here = os.stat(directory)
    folders = [path]
    while folders[-1] != os.path.dirname(folders[-1]):
        folders.append(os.path.dirname(folders[-1]))
    if any(os.path.samestat(os.stat(folder), here) for folder in folders):
        return True
    ours, theirs = _on_filesystem(path), _on_filesystem(directory)
    return ours[0] == theirs[0] and mounts.inside(ours[1], theirs[1])


def _on_filesystem(path: str) -> tuple[str, str]:
    """The superblock that carries a path, and its path inside that filesystem; both empty for none."""
    mount = mounts.mount_of(path)
    if mount is None:
        return "", ""
    return mount.superblock, os.path.normpath(os.path.join(mount.root, os.path.relpath(path, mount.target)))


def recoverable(plan: Plan, writers: Writers, providers: Providers) -> list[Finding]:
    """What would stand against putting clones in the places of a plan's volumes today."""
    pids = _processes(plan.components, writers) | namespaces.no_hindrance(volume.path for volume in plan.volumes)
    found = [finding for component in plan.components for finding in standing_against(component)]
    for volume in plan.volumes:
        found += providers[volume.provider].check_recovery(volume, pids, _beside(volume, plan.volumes))
    return found


def foreign(
    components: Sequence[Component], volumes: Sequence[Volume], providers: Providers, configuration_check: str
) -> list[Finding]:
    """The configuration check of a recovery: what else would be turned back along with the components.

    Also files that are gone, and those of a component that cannot be asked, are its own.
    """
    able = [each for each in best_first(providers) if each.name in {volume.provider for volume in volumes}]
    asked = [replace(component, findings=()) for component in components]
    located = [
        replace(found, volume=found.volume or mounts.innermost(found.files.path, volumes, lambda volume: volume.path))
        for found in (_locate(component, files, able) for component in asked for files in component.files)
    ]
    entries = {v.id: _foreign(components, v, located, providers) for v in volumes}
    return foreign_findings(entries, configuration_check)


def configuration(component: Component) -> dict[str, str]:
    """The texts of a component's configuration outside its volumes; what the engine cannot read is left out."""
    return _texts(component, component.configuration)


def present_texts(source: BackupComponents) -> dict[ComponentRef, dict[str, str]]:
    """The texts that a document's configuration files have now; what the engine cannot read is left out."""
    return {
        record.component.ref: _texts(record.component, (*record.configuration, *record.absent))
        for record in source.components
    }


def _texts(component: Component, paths: Iterable[str]) -> dict[str, str]:
    owner = owner_of(component)
    texts = {path: read_text(path, owner) for path in paths}
    return {path: text for path, text in texts.items() if text is not None}
