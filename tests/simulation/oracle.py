# SPDX-License-Identifier: Apache-2.0
"""What must never be. It sees the storage and the applications as they are, and believes nothing that is recorded.

1 nothing is held past its deadline · 2 whoever was asked to freeze is asked to thaw · 3 no effect without a committed
intent · 4 a replica promises only what it keeps · 5 only ours is touched · 6 the last good replica stays · 7 catalog
and storage agree after a reconcile · 8 live data is what it was or the replica, and nothing acknowledged is lost
"""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from slackwater.journal.effects import Effect, fields_of
from slackwater.model.clone import CloneState
from slackwater.model.hold import Consistency, Hold
from slackwater.model.plan import Limits
from slackwater.model.replica import BackupComponents, Replica, ReplicaKind, ReplicaState
from slackwater.model.storage import ShadowCopy
from tests.simulation.applications import Application
from tests.simulation.guards import SimGuard
from tests.simulation.provider import why_altered
from tests.simulation.storage import Content, Place
from tests.simulation.world import PROCESS, Process, World

#: How late a release may be: a dead coordinator is noticed, a dead guard replaced.
_GRACE_S = 1.0


class Oracle:
    """Watches a world."""

    def __init__(self, world: World, journal: Any, catalog: Any) -> None:
        self._world, self._journal, self._catalog = world, journal, catalog
        self.limits = Limits()
        self.asked_for: set[str] = set()
        """Replicas whose deletion the user has ordered."""
        self.images: dict[tuple[str, str], Content] = {}
        """By replica and application, what was found in it."""
        self._commits: dict[str, dict[str, tuple[Process, set[str], dict[str, list[int]]]]] = {}
        """By session and volume: who took it, who was held at that instant, and what had been written."""
        self._judged: set[str] = set()

    # -- while it happens ----------------------------------------------------------------------------------------------

    def held(self, guard: SimGuard) -> None:
        """1: whatever the guard was told, this is how long the specification allows."""
        left_s = min(self.limits.hold_s, self.limits.freeze_s) + _GRACE_S
        asyncio.get_event_loop().call_later(left_s, self._released, guard)

    def _released(self, guard: SimGuard) -> None:
        if guard.state == "frozen" and guard not in self._world.leftovers:
            names = ", ".join(each.name for each in guard.applications)
            self._world.violate(f"1: {names} is held past its deadline")

    def intended(self, effect: Effect) -> None:
        """3: its intent is committed; of a deletion, its decision."""
        if effect.kind == "sim.delete":
            return
        rows = self._journal._db.execute(
            "SELECT fields FROM effect WHERE kind = ? AND state != 'undone'", (effect.kind,)
        )
        wanted = json.dumps(fields_of(effect))
        if all(row[0] != wanted for row in rows):
            self._world.violate(f"3: {effect.describe()} is made, and nothing of it is in the journal")

    def committed(self, session: str, path: str) -> None:
        """Remember how it stood at the instant of a commit."""
        apps = self._world.applications.values()
        held = {each.name for each in apps if each.held or not each.running}
        # One that is stopped has not seen what a recovery has put there since.
        lineages = {
            each.name: each.lineage if each.running or each.image not in each.states else list(each.image)
            for each in apps
        }
        self._commits.setdefault(session, {})[path] = (PROCESS.get(), held, lineages)

    def deleting(self, filesystem: str, session: str, place: Place) -> None:
        """5, 6: it was decided, by the user or by rotation, and another good one is there."""
        if place.trees and session not in self._decided():
            self._world.violate(f"5: {session} is deleted, and nobody has decided that")
        document = place.document
        # What is half deleted is no replica any more: whoever deletes the others meanwhile knows that it goes.
        whole = document is not None and not any(map(self._altered, document.copies))
        if document is not None and whole and session not in self.asked_for:
            if document.kind is ReplicaKind.UNDO:
                self._world.violate(f"6: {session}, set aside by a recovery, is deleted by itself")
            elif not any(self._good(each, document) for each in self._documents()):
                self._world.violate(f"6: {session} is deleted, and there is no other good replica")
        elsewhere = self._present(without=(filesystem, session))
        for each in self._world.applications.values():
            each.owed &= elsewhere

    def _decided(self) -> set[str]:
        replicas = self._catalog.replicas.list(state=ReplicaState.DELETING)
        clones = [each for each in self._catalog.clones.list() if each.state is CloneState.DELETING]
        return {each.id for each in (*replicas, *clones)}

    def _documents(self) -> list[BackupComponents]:
        return [place.document for _, _, place in self._world.storage.kept() if place.document is not None]

    def _good(self, other: BackupComponents, going: BackupComponents) -> bool:
        same = other.specification == going.specification and other.session != going.session
        return same and other.kind is ReplicaKind.BACKUP and not any(map(self._altered, other.copies))

    def _altered(self, copy: ShadowCopy) -> str:
        filesystem, session, name = copy.place.split("/")
        place = self._world.storage.places.get((filesystem, session))
        return why_altered(place.trees.get(name) if place else None, copy)

    # -- after each session --------------------------------------------------------------------------------------------

    def after(self, process: Process, *, killed: bool) -> None:
        """Check what holds at any time."""
        if not killed:
            for name, count in process.asked.items():
                if count:
                    self._world.violate(f"2: {name} was asked to freeze, and never to thaw")
        self.judge()
        if changed := self._world.storage.strangers_changed():
            self._world.violate(f"5: {changed}, which is not ours, was touched")

    def nothing_lost(self) -> None:
        """8: whatever was acknowledged lies somewhere. What is lost does not come back, so this may be asked late."""
        present = self._present()
        for each in self._world.applications.values():
            if lost := each.owed - present:
                self._world.violate(f"8: {each.name} acknowledged {sorted(lost)[:5]}, which are nowhere any more")
                each.owed -= lost

    def _present(self, without: tuple[str, str] = ("", "")) -> set[int]:
        found: set[int] = set()
        for tree in self._world.storage.volumes.values():
            found.update(tree.content)
        for filesystem, session, place in self._world.storage.kept():
            if (filesystem, session) != without:
                for tree in place.trees.values():
                    found.update(tree.content)
        return found

    def released(self) -> None:
        """1: some time after the last session nobody is held, but for what the next command releases."""
        for cgroup, guard in self._world.frozen.items():
            if guard not in self._world.leftovers:
                self._world.violate(f"1: {cgroup} is still frozen")

    def judge(self) -> None:
        """4: every replica that is called good, or was until its verification failed, once.

        Also one that could not be looked at and is taken for missing: named by its id it is looked at again.
        """
        for replica in self._catalog.replicas.list():
            known = replica.state in (ReplicaState.GOOD, ReplicaState.FAILED)
            lost = replica.state is ReplicaState.MISSING and any(map(self._altered, replica.document.copies))
            if replica.id not in self._judged and (known or (replica.state is ReplicaState.MISSING and not lost)):
                self._judged.add(replica.id)
                self._judge(replica)

    def _judge(self, replica: Replica) -> None:
        document = replica.document
        places = {copy.volume.path: copy for copy in document.copies}
        for record in document.components:
            app = self._world.applications[record.component.ref.name]
            if missing := set(app.volumes) - set(places):
                self._world.violate(f"4: {replica.id} is called good and lacks {sorted(missing)}")
                continue
            if why := next(filter(None, (self._altered(places[path]) for path in app.volumes)), ""):
                self._world.violate(f"4: {replica.id} is called good, and of a copy of {app.name} {why}")
                continue
            image = self._image(app, places.values())
            self.images[replica.id, app.name] = image
            app.states.add(image)
            if record.holding is not None and record.holding.consistency is Consistency.APPLICATION:
                for wrong in self._promised(app, image, document):
                    self._world.violate(f"4: {replica.id} is called application-consistent for {app.name}, and {wrong}")

    def _image(self, app: Application, copies: Iterable[ShadowCopy]) -> Content:
        found: list[int] = []
        for copy in copies:
            if copy.volume.path in app.volumes:
                filesystem, session, name = copy.place.split("/")
                found += self._world.storage.places[filesystem, session].trees[name].content
        return tuple(sorted(found))

    def _promised(self, app: Application, image: Content, document: BackupComponents) -> list[str]:
        """What is wrong with an image that is called consistent."""
        wrong = []
        commits = self._commits[document.session]
        process = commits[app.volumes[0]][0]
        newest = max(image, default=0)
        lineage = max((commits[path][2][app.name] for path in app.volumes), key=lambda each: max(each, default=0))
        if image != tuple(each for each in lineage if each <= newest):
            wrong.append(f"is no moment of it: {image[-6:]}")
        if newest < process.marks.get(app.name, 0):
            wrong.append(f"lacks {process.marks[app.name]}, acknowledged before")
        if app.name in process.failed:
            wrong.append("its writer had failed")
        holding = next(e.holding for e in document.components if e.component.ref.name == app.name)
        if holding is not None and holding.hold in (Hold.APPLICATION_LOCK, Hold.PROCESS_FREEZE, Hold.COLD):
            free = [path for path in app.volumes if app.name not in commits[path][1]]
            wrong += [f"was not held when {path} was taken" for path in free]
        return wrong

    # -- after a reconcile that met no fault ---------------------------------------------------------------------------

    def agreed(self) -> None:
        """7: nothing is left to be put right, and both sides say the same."""
        open_sessions = [each.id for each in self._journal.open_sessions() if each.process not in self._world.processes]
        if open_sessions:
            self._world.violate(f"7: {open_sessions} cannot be put right")
            return
        self._both_sides()
        if self._world.storage.barred:
            self._world.violate(f"7: {sorted(self._world.storage.barred)} are barred for ever")
        for each in self._world.at_work:
            if each.running and each.cgroup != each.home:
                self._world.violate(f"7: {each.name} was not moved back")
        live = {each.id for each in self._journal.open_sessions()}
        if running := [each.id for each in self._catalog.sessions.running() if each.id not in live]:
            self._world.violate(f"7: {running} run for ever")

    def _both_sides(self) -> None:
        """What lies on the storage is in the catalog, and the other way round."""
        replicas = {each.id: each for each in self._catalog.replicas.list()}
        known = {*replicas, *(each.id for each in self._catalog.clones.list())}
        known |= {each.id for each in self._journal.open_sessions()}
        for filesystem, session, place in self._world.storage.kept():
            if session not in known:
                what = "a replica" if place.document else f"a place with {sorted(place.trees)}"
                self._world.violate(f"7: {session} on {filesystem} is {what} that the catalog does not know")
        for replica in replicas.values():
            why = next(filter(None, map(self._altered, replica.document.copies)), "")
            state = ReplicaState.MISSING if why else ReplicaState.GOOD
            if replica.state not in (state, ReplicaState.FAILED):
                self._world.violate(f"7: the catalog calls {replica.id} {replica.state}, and {why or 'it is whole'}")

    def switched(self, apps: Iterable[Application], before: dict[str, Content], replica: str, *, done: bool) -> None:
        """8: each application's data when a recovery has been put right: what it was or the replica, and what came."""
        for app in apps:
            live = app.image
            was, new = before[app.name], self.images.get((replica, app.name), ())
            old = live[: len(was)] == was or (not app.survives and _cut(was, live, app.states))
            turned = live[: len(new)] == new
            if not turned if done else not (old or turned):
                self._world.violate(f"8: after a recovery, {app.name} has {live[-6:]}, not {was[-6:]} or {new[-6:]}")


def _cut(was: Content, live: Content, states: Iterable[Content]) -> bool:
    """Whether one goes on where a power cut has left the other."""
    return any(was[: len(each)] == each == live[: len(each)] for each in states)
