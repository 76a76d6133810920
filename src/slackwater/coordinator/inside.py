# SPDX-License-Identifier: Apache-2.0
"""Whether who was frozen was really the whole application, asked when the window is over."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from slackwater.errors import DeadlineError
from slackwater.model.component import Component
from slackwater.system import cgroups, processes
from slackwater.writers.contract import Writer


@dataclass
class Crowd:
    """The components that were gathered: for each its cgroup, and the identities of those who have to stay.

    An application may be restarted by its supervisor between the gathering and the snapshot; the new processes are then
    outside, and nobody has frozen them.
    """

    held: list[tuple[Component, str, frozenset[str]]] = field(default_factory=list)

    def add(self, component: Component, cgroup: str) -> None:
        """Remember a component whose processes are in a cgroup that will be frozen."""
        stay = {component.main_pid} & cgroups.members(cgroup)
        self.held.append((component, cgroup, frozenset(name for pid in stay if pid and (name := _identity(pid)))))

    def check(self, writers: Mapping[str, Writer]) -> None:
        """See that every process of each component is in its cgroup, and that its main process is still the same.

        Raises:
            DeadlineError: somebody of it was not held, and may have written during the snapshot.
        """
        for component, cgroup, stay in self.held:
            outside = writers[component.ref.writer].processes(component) - cgroups.members(cgroup)
            free = sorted(pid for pid in outside if (stat := processes.stat_of(pid)) and not stat.dead)
            if free or not all(map(processes.alive, stay)):
                who = f"process {free[0]} ({processes.command_of(free[0])})" if free else "a new main process"
                raise DeadlineError(
                    f"{component.ref} was restarted while it was to stand still: {who} was not held.",
                    data="It goes on, and nothing was kept.",
                    hint="See what restarts it, and run it again.",
                    code="restarted",
                )


def _identity(pid: int) -> str:
    try:
        return processes.identity(pid)
    except ProcessLookupError:
        return ""
