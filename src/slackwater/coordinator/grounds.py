# SPDX-License-Identifier: Apache-2.0
"""What a planner argues from, as the host looked it up."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from slackwater.model.component import Component, ComponentRef, FileSet
from slackwater.model.facts import Finding
from slackwater.model.storage import Capabilities, CommitForm, Filesystem, Volume


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
    not_freezable: Mapping[ComponentRef, str] = field(default_factory=dict)
    """Why the processes of a component cannot be frozen; those that can are missing."""
    filesystems: Mapping[str, Filesystem] = field(default_factory=dict)
    """By volume id, for providers below the filesystem: what would be frozen, with the rank it then has."""
    not_freezable_volumes: Mapping[str, str] = field(default_factory=dict)
    """By volume id: why its filesystem cannot be frozen."""
    estimates: Mapping[str, float] = field(default_factory=dict)
    """By volume id: how long its commit is likely to take, in seconds."""
    in_use: Collection[ComponentRef] = ()
    """Components whose own processes are there now."""
    outside_writers: Mapping[ComponentRef, Sequence[str]] = field(default_factory=dict)
    """Who else has files of the component's volumes open for writing, in words."""

    def volumes_of(self, component: Component) -> tuple[Volume, ...]:
        """The volumes that carry a component, each once."""
        mine = [each.volume for each in self.located if each.component.ref == component.ref and each.volume]
        return tuple({volume.id: volume for volume in mine}.values())

    def by_file(self, volume: Volume) -> bool:
        """Whether each file of the volume has an instant of its own, or not even that."""
        return self.capabilities[volume.provider].by_file

    def copies(self, volume: Volume) -> bool:
        """Whether a copy of the volume takes as long as its data is large."""
        return self.capabilities[volume.provider].copies

    def through(self, volume: Volume) -> bool:
        """Whether what processes have written is in a copy of the volume, also when it is on no disk yet."""
        return self.capabilities[volume.provider].reads_through_filesystem

    def by_command(self, volume: Volume) -> bool:
        """Whether a commit of the volume starts a program."""
        return self.capabilities[volume.provider].commit_form is CommitForm.COMMAND

    def writers_of(self, component: Component) -> Sequence[str]:
        """Who else writes on the component's volumes."""
        return self.outside_writers.get(component.ref, ())
