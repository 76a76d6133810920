# SPDX-License-Identifier: Apache-2.0
"""What a user of a simulated host does next, and what has to hold after it."""

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from slackwater.model.replica import Replica, ReplicaKind
from slackwater.sessions import clone, mount
from slackwater.sessions.abort import abort
from slackwater.sessions.backup import backup
from slackwater.sessions.pinning import pin
from slackwater.sessions.reconcile import reconcile
from slackwater.sessions.recover import recover
from slackwater.sessions.rotation import delete
from slackwater.sessions.verify import verify

if TYPE_CHECKING:
    from tests.simulation.worlds import Living

Act = Callable[[], Awaitable[object]]
_KINDS = (
    ("backup", 40), ("recover", 18), ("undo", 8), ("older", 6), ("delete", 14), ("verify", 5), ("clone", 3),
    ("unclone", 2), ("mount", 3), ("unmount", 3), ("pin", 3), ("reconcile", 4), ("two", 4),
)  # fmt: skip
_APART_S = (1.0, 1.0, 60.0, 3600.0, 86400.0)


def step(living: "Living") -> None:
    """One thing that a user does, and what may come between it and the next."""
    world, rng = living.world, living.world.rng
    for each in world.applications.values():
        for _ in range(rng.randrange(3)):
            each.go_on()
    (kind,) = rng.choices([name for name, _ in _KINDS], [weight for _, weight in _KINDS])
    specification = rng.choice(list(world.specifications))
    world.faults.draw()
    apart = random.Random(f"{world.seed} still {living.loop.time()}")
    if apart.random() < 0.15:
        world.faults.stop(apart)
    _ACTS[kind](living, specification)
    _afterwards(living)


def _afterwards(living: "Living") -> None:
    world, rng = living.world, living.world.rng
    living.loop.pass_time(rng.choice(_APART_S))
    for each in world.applications.values():
        if not each.running and rng.random() < 0.4:
            each.start_by_itself()
    if rng.random() < 0.12:
        living.mend()


def _chosen(living: "Living", *kinds: ReplicaKind) -> Replica | None:
    known = [each for each in living.catalog.replicas.list() if each.document.kind in kinds]
    return living.world.rng.choice(known) if known else None


def _backup(living: "Living", specification: str) -> None:
    living.run(f"backup of {specification}", lambda: backup(living.cell(specification), specification, wait_s=2.0))


def _recover(living: "Living", specification: str, replica: str = "", *, undo: bool = False) -> None:
    """A recovery, and then a reconcile without faults, after which there is no half."""
    world = living.world
    apps = [world.applications[ref.name] for ref in world.specifications[specification].components]
    cell, world.turned_to = living.cell(specification), ""
    before = {each.name: each.image for each in apps}
    apart = random.Random(f"{world.seed} {living.loop.time()}")
    stay = apart.random() < 0.25
    end = living.run(
        f"recover of {specification}{' undo' if undo else ''} {replica}".rstrip(),
        lambda: recover(cell, specification, replica, undo=undo, stay=stay, wait_s=2.0),
    )
    if stay and end != "done" and apart.random() < 0.5:
        _take_back(living)
    if not (source := world.turned_to):
        return
    if world.rng.random() < 0.3:
        for each in apps:
            each.start_by_itself()
    living.mend()
    world.oracle.switched(apps, before, source, done=end == "done")


def _take_back(living: "Living") -> None:
    """Ask what was cut off to end: a recovery that stays where it failed is taken back, no other session is."""
    for session in living.cell("").host.pending():
        living.run(f"abort of {session}", partial(abort, living.cell(""), session))


def _undo(living: "Living", specification: str) -> None:
    _recover(living, specification, undo=True)


def _older(living: "Living", specification: str) -> None:
    chosen = _chosen(living, ReplicaKind.BACKUP, ReplicaKind.UNDO)
    if chosen:
        _recover(living, chosen.document.specification, chosen.id)


def _delete(living: "Living", specification: str) -> None:
    kind = ReplicaKind.UNDO if living.world.rng.random() < 0.7 else ReplicaKind.BACKUP
    chosen = _chosen(living, kind)
    if chosen is None:
        return
    living.world.oracle.asked_for.add(chosen.id)
    living.run(f"delete of {chosen.id}", lambda: delete(living.cell(""), chosen, wait_s=2.0))


def _verify(living: "Living", specification: str) -> None:
    chosen = _chosen(living, ReplicaKind.BACKUP)
    if chosen is None:
        return
    living.run(f"verify of {chosen.id}", lambda: verify(living.cell(""), chosen, wait_s=2.0))


def _clone(living: "Living", specification: str) -> None:
    chosen = _chosen(living, ReplicaKind.BACKUP)
    if chosen is None:
        return
    ttl_s = living.world.rng.choice((None, 60.0, 100000.0))
    name = f"clone-{living.world.number()}"
    living.run(f"clone of {chosen.id}", lambda: clone.create(living.cell(""), chosen, name, ttl_s, wait_s=2.0))


def _unclone(living: "Living", specification: str) -> None:
    known = [each.name for each in living.catalog.clones.list() if not each.name.startswith("mount-")]
    if not known:
        return
    name = living.world.rng.choice(known)
    living.run(f"unclone of {name}", lambda: clone.delete(living.cell(""), name, wait_s=2.0))


def _mount(living: "Living", specification: str) -> None:
    chosen = _chosen(living, ReplicaKind.BACKUP, ReplicaKind.UNDO)
    if chosen is None or len(living.world.mounts) > 6:
        return
    read_write = living.world.rng.random() < 0.5
    living.run(f"mount of {chosen.id}", lambda: mount.mount(living.cell(""), chosen, read_write=read_write, wait_s=2.0))


def _unmount(living: "Living", specification: str) -> None:
    shown = mount.everything(living.cell(""))
    if not shown:
        return
    found = living.world.rng.choice(shown)
    living.run(f"unmount of {found.replica}", lambda: mount.unmount(living.cell(""), [found], wait_s=2.0))


def _pin(living: "Living", specification: str) -> None:
    chosen = _chosen(living, ReplicaKind.BACKUP)
    if chosen is not None:
        pinned = not chosen.pinned and living.world.rng.random() < 0.6
        living.run(f"pin of {chosen.id}", lambda: pin(living.cell(""), chosen.id, pinned=pinned))


def _reconcile(living: "Living", specification: str) -> None:
    living.run("reconcile with faults", lambda: reconcile(living.cell("")))


def _two(living: "Living", specification: str) -> None:
    """Two sessions at once: the second one waits for the first, whatever becomes of it."""
    living.run(
        f"backup of {specification}, twice",
        lambda: backup(living.cell(specification), specification),
        lambda: backup(living.cell(specification), specification, wait_s=5000.0),
    )


_ACTS: dict[str, Any] = {
    "backup": _backup, "recover": _recover, "undo": _undo, "older": _older, "delete": _delete, "verify": _verify,
    "clone": _clone, "unclone": _unclone, "mount": _mount, "unmount": _unmount, "pin": _pin,
    "reconcile": _reconcile, "two": _two,
}  # fmt: skip
