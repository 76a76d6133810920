# SPDX-License-Identifier: Apache-2.0
"""The effects of the simulated storage: each looks how far it came, by uuid, as those of the Btrfs provider do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from slackwater.errors import RefusedError
from slackwater.journal.effects import Effect
from slackwater.model.facts import Facts
from tests.simulation.storage import Place, Storage, Tree
from tests.simulation.world import now

T = TypeVar("T")


def made(effect: "Step", make: Callable[[], Facts]) -> Facts:
    """Make an effect, with a point before it, one before it is on the disk, and one after; sometimes twice."""
    world = now()
    world.point(f"{effect.kind}:before", "plain")
    world.oracle.intended(effect)
    facts = make()
    world.point(f"{effect.kind}:made")
    world.storage.sync()
    if world.faults.twice(effect.kind):
        facts = make()
        world.storage.sync()
    world.point(f"{effect.kind}:after", "plain")
    return facts


def undone(effect: "Step", undo: Callable[[], None]) -> None:
    """The same for its undo."""
    world = now()
    world.point(f"{effect.kind}.undo:before", "plain")
    undo()
    world.point(f"{effect.kind}.undo:made")
    world.storage.sync()
    world.point(f"{effect.kind}.undo:after", "plain")


@dataclass(frozen=True, slots=True)
class Step:
    """What all effects of the storage have."""

    kind: ClassVar[str] = ""
    filesystem: str
    owner: str
    session: str

    def describe(self) -> str:
        return f"{self.kind} of {self.session} on {self.filesystem}"

    def make(self) -> Facts:
        return made(self, self.do)

    def undo(self) -> None:
        undone(self, self.put_back)

    def do(self) -> Facts:
        raise NotImplementedError

    def put_back(self) -> None:
        raise NotImplementedError

    @property
    def place(self) -> Place | None:
        return now().storage.ours(self.filesystem, self.session, self.owner)

    @property
    def required(self) -> Place:
        return now().storage.required(self.filesystem, self.session, self.owner)


def _put(place: Place, name: str, tree: Tree | None) -> None:
    """Have a name stand for a tree, or for none, until a power cut takes it back."""
    before = place.trees.get(name)
    now().storage.change(lambda: _set(place, name, tree), lambda: _set(place, name, before))


def _set(place: Place, name: str, tree: Tree | None) -> None:
    if tree is None:
        place.trees.pop(name, None)
    else:
        place.trees[name] = tree


@dataclass(frozen=True, slots=True)
class MakePlace(Step):
    """The tagged directory of a session."""

    kind: ClassVar[str] = "sim.place"

    def do(self) -> Facts:
        places, key = now().storage.places, (self.filesystem, self.session)
        if self.place is None:
            place = Place(self.owner)
            now().storage.change(lambda: places.update({key: place}), lambda: places.pop(key, None))
        return {}

    def put_back(self) -> None:
        place = now().storage.places.get((self.filesystem, self.session))
        if place is not None and place.owner == self.owner:  # else it was never made: it was somebody else's
            _remove(self.filesystem, self.session, self.owner)


def _remove(filesystem: str, session: str, owner: str) -> None:
    places, key = now().storage.places, (filesystem, session)
    place = now().storage.ours(filesystem, session, owner)
    if place is None:
        return
    if place.trees:
        raise RefusedError(f"{session} on {filesystem} is not empty.")
    now().storage.change(lambda: places.pop(key, None), lambda: places.update({key: place}))


@dataclass(frozen=True, slots=True)
class Snapshot(Step):
    """The read-only copy of a volume, made by the commit of a window."""

    kind: ClassVar[str] = "sim.snapshot"
    name: str
    live: str
    live_uuid: str

    def commit(self) -> None:
        world = now()
        world.point("commit:before", "os")
        world.oracle.intended(self)
        place, live = self.required, world.storage.volumes[self.live]
        if live.uuid != self.live_uuid:
            raise RefusedError(f"{self.live} is not the volume that was found before.")
        tree = Tree(world.storage.uuid(), live.uuid, live.content, live.content, read_only=True)
        _put(place, self.name, tree)
        world.oracle.committed(self.session, self.live)
        world.storage.sync()
        world.point("commit:after", "os")

    def do(self) -> Facts:
        tree = self.required.trees.get(self.name)
        if tree is None or not tree.read_only or tree.parent != self.live_uuid:
            raise RefusedError(f"{self.name} of {self.session} is not there.")
        return tree.facts

    def put_back(self) -> None:
        place = self.place
        tree = place.trees.get(self.name) if place else None
        if place is not None and tree is not None:
            if tree.parent != self.live_uuid:
                raise RefusedError(f"{self.name} of {self.session} is another.")
            _put(place, self.name, None)


@dataclass(frozen=True, slots=True)
class _Turn(Step):
    name: str
    copy_uuid: str
    live: str
    live_uuid: str

    def is_clone(self, tree: Tree | None) -> bool:
        return tree is not None and tree.parent == self.copy_uuid and tree.uuid != self.live_uuid

    def is_live(self, tree: Tree | None) -> bool:
        return tree is not None and tree.uuid == self.live_uuid


@dataclass(frozen=True, slots=True)
class Clone(_Turn):
    """A writable clone of a copy, beside."""

    kind: ClassVar[str] = "sim.clone"
    source_session: str
    source_name: str

    def do(self) -> Facts:
        storage, place = now().storage, self.required
        found = place.trees.get(self.name)
        if found is None:
            copy = storage.required(self.filesystem, self.source_session, self.owner).trees.get(self.source_name)
            if copy is None or copy.uuid != self.copy_uuid:
                raise RefusedError(f"{self.source_session}/{self.source_name} is not the copy that was planned with.")
            found = Tree(storage.uuid(), copy.uuid, copy.content, copy.content)
            _put(place, self.name, found)
        elif self.is_live(found):
            found = storage.volumes[self.live]
        if not self.is_clone(found):
            raise RefusedError(f"{self.name} of {self.session} is no clone.")
        return found.facts

    def keep(self) -> Facts:
        now().point("sim.clone.keep:before", "plain")
        tree = self._beside()
        now().storage.change(lambda: _seal(tree, read_only=True), lambda: _seal(tree, read_only=False))
        now().point("sim.clone.keep:made")
        tree.synced = tree.content
        now().storage.sync()
        now().point("sim.clone.keep:after", "plain")
        return tree.facts

    def _beside(self) -> Tree:
        found = self.required.trees.get(self.name)
        if found is None or not self.is_clone(found):
            raise RefusedError(f"{self.name} of {self.session} is no clone.")
        return found

    def put_back(self) -> None:
        place = self.place
        found = place.trees.get(self.name) if place else None
        if place is None or found is None:
            return
        if not self.is_clone(found):
            raise RefusedError(f"{self.name} of {self.session} is what a recovery set aside.")
        if (self.filesystem, self.session, self.name) in now().mounts.values():
            raise RefusedError(f"{self.name} of {self.session} is mounted.")
        _put(place, self.name, None)


def _seal(tree: Tree, *, read_only: bool) -> None:
    tree.read_only = read_only


def _swap(storage: Storage, place: Place, name: str, live: str) -> None:
    storage.volumes[live], place.trees[name] = place.trees[name], storage.volumes[live]


@dataclass(frozen=True, slots=True)
class Exchange(_Turn):
    """Clone and live volume change places, at once."""

    kind: ClassVar[str] = "sim.exchange"

    def do(self) -> Facts:
        storage, place = now().storage, self.required
        live, aside = storage.volumes.get(self.live), place.trees.get(self.name)
        if self.is_live(live) and self.is_clone(aside):
            self._refuse_held()
            storage.change(
                lambda: _swap(storage, place, self.name, self.live), lambda: _swap(storage, place, self.name, self.live)
            )
        elif not (self.is_clone(live) and self.is_live(aside)):
            raise RefusedError(f"{self.live} is neither the volume that was planned with, nor its clone.")
        return {"aside_uuid": self.live_uuid}

    def exchanged(self) -> bool:
        now().point("sim.exchange.exchanged:before", "plain")
        place = self.place
        return (
            place is not None
            and self.is_clone(now().storage.volumes.get(self.live))
            and self.is_live(place.trees.get(self.name))
        )

    def put_back(self) -> None:
        storage, place = now().storage, self.place
        aside = place.trees.get(self.name) if place else None
        if place is None or aside is None or not self.is_live(aside):
            return
        if not self.is_clone(storage.volumes.get(self.live)):
            raise RefusedError(f"{self.live} is no clone of ours.")
        self._refuse_held()
        _seal(aside, read_only=False)
        storage.change(
            lambda: _swap(storage, place, self.name, self.live), lambda: _swap(storage, place, self.name, self.live)
        )

    def _refuse_held(self) -> None:
        for each in now().applications.values():
            if each.running and self.live in each.volumes:
                raise RefusedError(f"Process {each.pid} holds {self.live}.")


@dataclass(frozen=True, slots=True)
class Seal(Step):
    """What was set aside becomes read-only."""

    kind: ClassVar[str] = "sim.seal"
    name: str
    live_uuid: str

    def do(self) -> Facts:
        tree = self.required.trees.get(self.name)
        if tree is None or tree.uuid != self.live_uuid:
            raise RefusedError(f"{self.name} of {self.session} is not what was set aside.")
        tree.synced = tree.content
        now().storage.change(lambda: _seal(tree, read_only=True), lambda: _seal(tree, read_only=False))
        return tree.facts

    def put_back(self) -> None:
        place = self.place
        tree = place.trees.get(self.name) if place else None
        if tree is not None and tree.uuid == self.live_uuid:
            now().storage.change(lambda: _seal(tree, read_only=False), lambda: _seal(tree, read_only=True))


@dataclass(frozen=True, slots=True)
class Bar(Step):
    """Nobody starts on half a switch."""

    kind: ClassVar[str] = "sim.bar"
    paths: tuple[str, ...]

    def do(self) -> Facts:
        return _bar(self.paths, barred=True)

    def put_back(self) -> None:
        _bar(self.paths, barred=False)


@dataclass(frozen=True, slots=True)
class Unbar(Step):
    """Everybody may start again."""

    kind: ClassVar[str] = "sim.unbar"
    paths: tuple[str, ...]
    live_uuids: tuple[str, ...]
    """Of the volumes that lay there before."""

    def do(self) -> Facts:
        return _bar(self.paths, barred=False)

    def put_back(self) -> None:
        volumes = now().storage.volumes
        if any(volumes[path].uuid != uuid for path, uuid in zip(self.paths, self.live_uuids, strict=True)):
            _bar(self.paths, barred=True)


def _bar(paths: tuple[str, ...], *, barred: bool) -> Facts:
    storage = now().storage
    before = set(storage.barred)
    after = before | set(paths) if barred else before - set(paths)
    storage.change(lambda: setattr(storage, "barred", after), lambda: setattr(storage, "barred", before))
    return {}


@dataclass(frozen=True, slots=True)
class Delete(Step):
    """The copies of a session and its directory."""

    kind: ClassVar[str] = "sim.delete"
    names: tuple[str, ...]
    uuids: tuple[str, ...]

    def do(self) -> Facts:
        place = self.place
        if place is None:
            return {}
        for name, uuid in zip(self.names, self.uuids, strict=True):
            tree = place.trees.get(name)
            if tree is not None and tree.uuid != uuid:
                raise RefusedError(f"{name} of {self.session} is another copy than was recorded.")
            if (self.filesystem, self.session, name) in now().mounts.values():
                raise RefusedError(f"{name} of {self.session} is mounted.")
        now().oracle.deleting(self.filesystem, self.session, place)
        for name in self.names:
            if name in place.trees:
                _put(place, name, None)
                now().point("sim.delete:made")
        _remove(self.filesystem, self.session, self.owner)
        return {}

    def put_back(self) -> None:
        """Nothing comes back."""


EFFECTS: tuple[type[Effect], ...] = (MakePlace, Snapshot, Clone, Exchange, Seal, Bar, Unbar, Delete)
