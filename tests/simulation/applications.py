# SPDX-License-Identifier: Apache-2.0
"""Applications that acknowledge numbered writes over their volumes, whenever they are let."""

from dataclasses import dataclass, field

from slackwater.model.component import Component, ComponentRef, FileRole, FileSet
from slackwater.model.hold import Consistency, Hold
from tests.simulation.storage import Content, Tree
from tests.simulation.world import World


@dataclass(eq=False)
class Application:
    """One application. Its writes are numbered; each lies on one of its volumes, in turn."""

    world: World
    name: str
    volumes: tuple[str, ...]
    survives: bool
    """A power cut: each write is on the disk before it is acknowledged."""
    offers: tuple[Hold, ...] = ()
    alone: bool = True
    """Its processes have a cgroup to themselves; else they have to be gathered."""
    running: bool = False
    pid: int = 0
    cgroup: str = ""
    lineage: list[int] = field(default_factory=list)
    """What it wrote on the data it runs on, or ran on last, with what it found there."""
    last: int = 0
    owed: set[int] = field(default_factory=set)
    """What it has acknowledged and nobody has given up on purpose."""
    states: set[Content] = field(default_factory=set)
    """Every whole state that its data may be found in when it starts."""
    trees: tuple[Tree, ...] = ()
    """What it runs on, or ran on last, wherever that lies now."""
    locked: bool = False
    rested_by: set[str] = field(default_factory=set)
    """Processes of ours whose writer has brought it to rest."""

    @property
    def home(self) -> str:
        """Where its processes begin."""
        return f"/cg/{self.name}" if self.alone else "/cg/shared"

    @property
    def frozen(self) -> bool:
        return self.cgroup in self.world.frozen

    @property
    def held(self) -> bool:
        """Nobody writes: it stands still, or its lock is taken."""
        return self.frozen or self.locked

    @property
    def image(self) -> Content:
        """All that lies on its volumes now."""
        volumes = self.world.storage.volumes
        return tuple(sorted(number for path in self.volumes for number in volumes[path].content))

    def go_on(self) -> None:
        """Write, if nothing is against it."""
        if self.running and not self.held:
            self.write()

    def write(self) -> None:
        """Make one write, and acknowledge it."""
        self.last = self.world.number()
        path = self.volumes[self.last % len(self.volumes)]
        tree = self.world.storage.volumes[path]
        tree.write((*tree.content, self.last))
        if self.survives:
            tree.synced = tree.content
        self.lineage.append(self.last)
        self.owed.add(self.last)

    def start(self) -> bool:
        """Start on whatever lies there; False where it is barred or runs already."""
        if self.running or self.world.storage.barred.intersection(self.volumes):
            return self.running
        image = self.image
        if image not in self.states:
            self.world.oracle.judge()  # of a replica that was taken in just now
        if image not in self.states:
            self.world.violate(f"{self.name} was started on half a switch (8: {image[-6:]} is no state it ever had)")
            self.states.add(image)
        self.lineage = list(image)
        self.trees = tuple(self.world.storage.volumes[path] for path in self.volumes)
        self.running, self.pid, self.cgroup = True, 5000 + self.world.number(), self.home
        self.world.cgroups.setdefault(self.home, set()).add(self.pid)
        self.world.tell(f"{self.name} starts as {self.pid}")
        return True

    def start_by_itself(self) -> None:
        """Its supervisor, or somebody by hand, starts it."""
        self.start()

    def stop(self) -> None:
        """Come to an orderly end."""
        if self.running:
            for path in self.volumes:
                tree = self.world.storage.volumes[path]
                tree.synced = tree.content
        self.die()

    def die(self, *, power: bool = False) -> None:
        """Be gone at once; with the `power`, what was not on the disk is gone, too."""
        self.world.cgroups.get(self.cgroup, set()).discard(self.pid)
        if self.running:
            self.states.add(tuple(self.lineage))
        if power and not self.survives:
            left = tuple(sorted(number for tree in self.trees for number in tree.synced))
            self.states.add(left)
            self.lineage = list(left)
        if self.running:
            self.world.tell(f"{self.name} ends")
        self.running, self.pid, self.locked = False, 0, False
        self.rested_by.clear()

    def restart(self) -> None:
        """Be restarted by its supervisor: another process, back where its processes begin."""
        if self.running:
            self.die()
            self.start()

    def component(self) -> Component:
        """As its writer describes it."""
        return Component(
            ref=ComponentRef("app", self.name),
            caption=f"Application {self.name}",
            running=self.running,
            files=tuple(FileSet(FileRole.DATA, path) for path in self.volumes),
            survives_power_cut=self.survives,
            offers=self.offers,
            best=Consistency.APPLICATION if self.survives else Consistency.CRASH,
            main_pid=self.pid or None,
        )
