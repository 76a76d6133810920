# SPDX-License-Identifier: Apache-2.0
"""Providers of the simulated storage: atomic over one volume. Modelled on what the Btrfs provider's effects promise."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

from slackwater.errors import NotFoundError
from slackwater.journal.effects import Effect
from slackwater.model.facts import Facts, Finding, Severity
from slackwater.model.replica import BackupComponents, FoundReplica
from slackwater.model.storage import Capabilities, CommitForm, MountOrder, Room, ShadowCopy, Take, Volume
from slackwater.providers.contract import Switch
from tests.simulation import trees
from tests.simulation.storage import Place, Tree
from tests.simulation.world import now


class SimProvider:
    """One filesystem's provider; two of them make a switch over two providers."""

    name: ClassVar[str] = "sim"
    filesystem: ClassVar[str] = "fs-a"
    capabilities: ClassVar[Capabilities] = Capabilities(
        CommitForm.SYSTEM_CALL, "volume", reads_through_filesystem=True, rootless=True
    )
    effects: ClassVar[tuple[type[Effect], ...]] = trees.EFFECTS

    def __init__(self, owner: str) -> None:
        self._owner = owner

    # -- looking -----------------------------------------------------------------------------------------------------

    def volume_of(self, path: str) -> Volume | None:
        storage = now().storage
        tree = storage.volumes.get(path)
        if tree is None or storage.filesystem_of[path] != self.filesystem:
            return None
        name = path.rpartition("/")[2]
        return Volume(self.name, f"id:{path}", name, path, self.filesystem, {"uuid": tree.uuid})

    def check_backup(self, volume: Volume, trees: Sequence[str], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        return ()

    def check_recovery(self, volume: Volume, pids: frozenset[int], beside: Sequence[Volume] = ()) -> Sequence[Finding]:
        now().point("provider.check_recovery:before", "plain")
        return [
            Finding("held", Severity.REFUSAL, f"Process {each.pid} holds {volume.path}.", "Stop it.")
            for each in now().applications.values()
            if volume.path in each.volumes and each.running and each.pid not in pids
        ]

    def estimate_s(self, volume: Volume) -> float:
        return 0.0

    def foreign(self, volume: Volume, trees: Sequence[str]) -> Sequence[str]:
        return ()

    def room(self, volume: Volume) -> Room:
        return Room(100, 50)

    # -- backup ------------------------------------------------------------------------------------------------------

    def place_effect(self, volume: Volume, session: str) -> Effect:
        return trees.MakePlace(volume.superblock, self._owner, session)

    def snapshot_effect(self, volume: Volume, session: str) -> Effect:
        return trees.Snapshot(
            volume.superblock, self._owner, session, volume.name, volume.path, str(volume.facts["uuid"])
        )

    @contextmanager
    def open(self, take: Take, session: str) -> Iterator[Callable[[], None]]:
        now().point("provider.open:before", "any")
        volume = take.volume
        snapshot = trees.Snapshot(
            volume.superblock, self._owner, session, volume.name, volume.path, str(volume.facts["uuid"])
        )
        yield snapshot.commit

    def copy(self, volume: Volume, session: str, facts: Facts) -> ShadowCopy:
        return ShadowCopy(volume, f"{volume.superblock}/{session}/{volume.name}", facts)

    def write_document(self, document: BackupComponents) -> None:
        world = now()
        world.point("document:before", "plain")
        for filesystem in {each.volume.superblock for each in document.copies if each.provider == self.name}:
            place = world.storage.required(filesystem, document.session, self._owner)
            world.storage.change(partial(_tell, place, document), partial(_tell, place, place.document))
        world.point("document:made")
        world.storage.sync()
        world.point("document:after", "plain")

    # -- copies ------------------------------------------------------------------------------------------------------

    @contextmanager
    def reach(self, copy: ShadowCopy) -> Iterator[str]:
        now().point("provider.reach:before", "plain")
        if self._tree(copy) is None:
            raise NotFoundError(f"{copy.place} is gone.")
        yield f"/reach/{copy.place}"

    def clone_effect(self, copy: ShadowCopy, session: str) -> Effect:
        source = copy.place.split("/")
        return trees.Clone(
            copy.volume.superblock, self._owner, session, copy.volume.name, str(copy.facts["uuid"]), "", "",
            source[1], source[2],
        )  # fmt: skip

    def mount_order(self, copy: ShadowCopy) -> MountOrder:
        if self._tree(copy) is None:
            raise NotFoundError(f"{copy.place} is gone.")
        return MountOrder("sim", self.filesystem, f"/{copy.place}")

    def mounted_at(self, copy: ShadowCopy) -> Sequence[str]:
        where = tuple(copy.place.split("/"))
        return tuple(target for target, shown in now().mounts.items() if shown == where)

    def altered(self, copy: ShadowCopy) -> str:
        now().point("provider.altered:before", "plain")
        return why_altered(self._tree(copy), copy)

    def _tree(self, copy: ShadowCopy) -> Tree | None:
        filesystem, session, name = copy.place.split("/")
        place = now().storage.ours(filesystem, session, self._owner)
        return place.trees.get(name) if place else None

    def delete_effect(self, copies: Sequence[ShadowCopy], session: str) -> Effect:
        mine = [each for each in copies if each.provider == self.name]
        names = tuple(each.place.rpartition("/")[2] for each in mine)
        return trees.Delete(
            self.filesystem, self._owner, session, names, tuple(str(each.facts["uuid"]) for each in mine)
        )

    def pin(self, copies: Sequence[ShadowCopy], session: str, *, pinned: bool) -> None:
        now().point("pin:before", "plain")
        now().storage.required(self.filesystem, session, self._owner).pinned = pinned
        now().point("pin:after", "plain")

    def find(self) -> Sequence[FoundReplica]:
        now().point("provider.find:before", "plain")
        return [
            FoundReplica(session, filesystem, tuple(place.trees), place.document, pinned=place.pinned)
            for filesystem, session, place in now().storage.kept()
            if filesystem == self.filesystem
        ]

    # -- recovery ----------------------------------------------------------------------------------------------------

    def switch(
        self, copies: Sequence[ShadowCopy], live: Sequence[Volume], session: str, *, alone: bool = True
    ) -> Switch:
        now().turned_to = copies[0].place.split("/")[1]
        places = dict.fromkeys(self.place_effect(volume, session) for volume in live)
        turns = [
            (volume.superblock, self._owner, session, volume.name, str(copy.facts["uuid"]), volume.path,
             str(volume.facts["uuid"]))
            for copy, volume in zip(copies, live, strict=True)
        ]  # fmt: skip
        clones = [trees.Clone(*turn, *copy.place.split("/")[1:]) for turn, copy in zip(turns, copies, strict=True)]
        paths, uuids = tuple(volume.path for volume in live), tuple(str(volume.facts["uuid"]) for volume in live)
        several = not (alone and len(live) == 1)
        return Switch(
            clones=(*places, *clones),
            bar=(trees.Bar(self.filesystem, self._owner, session, paths),) if several else (),
            exchange=tuple(trees.Exchange(*turn) for turn in turns),
            unbar=(trees.Unbar(self.filesystem, self._owner, session, paths, uuids),) if several else (),
            seal=tuple(trees.Seal(*turn[:4], turn[6]) for turn in turns),
            aside=tuple(self.copy(volume, session, {"uuid": volume.facts["uuid"]}) for volume in live),
        )


class OtherProvider(SimProvider):
    """The same on another filesystem."""

    name: ClassVar[str] = "simb"
    filesystem: ClassVar[str] = "fs-b"


def why_altered(tree: Tree | None, copy: ShadowCopy) -> str:
    """Why a copy is not the one that was made."""
    if tree is None:
        return "it is gone"
    if not tree.read_only:
        return "it is writable"
    return "" if tree.facts == dict(copy.facts) else "it was written to or replaced"


def _tell(place: Place, document: BackupComponents | None) -> None:
    place.document = document
