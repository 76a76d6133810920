# SPDX-License-Identifier: Apache-2.0
"""Mounting a replica to look into it, and unmounting it. What is mounted is read from the kernel, never remembered."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from slackwater.errors import NotFoundError, SlackwaterError, UsageError
from slackwater.model.clone import Clone, CloneDocument, CloneKind
from slackwater.model.replica import Replica
from slackwater.model.session import SessionKind
from slackwater.model.storage import ShadowCopy
from slackwater.sessions.cell import Cell
from slackwater.sessions.clone import forget
from slackwater.sessions.running import running
from slackwater.sessions.target import refuse_going
from slackwater.system.story import Listener


@dataclass(frozen=True, slots=True)
class Mounted:
    """A replica that is mounted."""

    session: str
    replica: str
    read_write: bool
    mounts: tuple[tuple[str, str], ...]
    """Path of the volume, and where its copy is seen."""


@dataclass(frozen=True, slots=True)
class Unmounted:
    """What was unmounted."""

    session: str
    targets: tuple[str, ...]
    deleted: tuple[str, ...]
    """Clones that were mounted read-write, and are gone with what was written to them."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A replica or a clone that is mounted."""

    replica: str
    targets: tuple[str, ...]
    clone: Clone | None


async def mount(
    cell: Cell,
    chosen: Replica,
    path: str = "",
    *,
    read_write: bool = False,
    wait_s: float = 0.0,
    listener: Listener | None = None,
) -> Mounted:
    """Mount a replica: read-only, or read-write on a thin clone, so that the replica itself stays what was backed up.

    Raises:
        RefusedError: a path is occupied.
        UsageError: the path is not absolute.
    """
    copies = chosen.document.copies
    targets = _targets(cell, chosen, path)
    specification = chosen.document.specification
    async with running(cell, SessionKind.MOUNT, specification, wait_s=wait_s, listener=listener) as run:
        refuse_going(cell, chosen)
        run.document["replica"] = chosen.id
        shown: Sequence[ShadowCopy] = copies
        if read_write:
            shown = await cell.host.clone_plainly(run.id, chosen.document)
        pairs = list(zip(shown, targets, strict=True))
        run.document["folders"] = list(await cell.host.present(run.id, pairs, writable=read_write))
        if read_write:
            now = cell.clock.now()
            document = CloneDocument(run.id, folder="", enclosure="", components=(), copies=tuple(shown))
            name = f"mount-{run.id}"
            clone = Clone(run.id, name, CloneKind.MOUNT, chosen.id, specification, now, None, document)
            cell.catalog.clones.add(clone)
            cell.catalog.replicas.set_used(chosen.id, now)
        run.keep("It is mounted.")
    mounts = tuple((copy.volume.path, target) for copy, target in zip(copies, targets, strict=True))
    return Mounted(run.id, chosen.id, read_write, mounts)


def mounted(cell: Cell, what: str) -> tuple[Shown, ...]:
    """What an unmount of `what`, a path or a replica's id, would unmount.

    Raises:
        NotFoundError: nothing of ours is mounted there.
    """
    if what.startswith("/"):
        target = os.path.normpath(what)
        found = [replace(each, targets=(target,)) for each in everything(cell) if target in each.targets]
    else:
        chosen = cell.catalog.replicas.find(what).id
        found = [each for each in everything(cell) if each.replica == chosen]
    if not found:
        raise NotFoundError(
            f"No replica is mounted {'at' if what.startswith('/') else 'by the id'} {what}.",
            data="Nothing was changed.",
            hint="`slackwater replica list` shows which are.",
            code="not-mounted",
        )
    return tuple(found)


async def unmount(
    cell: Cell, found: Sequence[Shown], *, wait_s: float = 0.0, listener: Listener | None = None
) -> Unmounted:
    """Unmount what `mounted` found; a clone that was mounted read-write is deleted when nothing shows it any more.

    Raises:
        RefusedError: somebody holds it.
    """
    replicas = {each.id: each for each in cell.catalog.replicas.list()}
    known = replicas.get(found[0].replica)
    specification = known.document.specification if known else ""
    targets = tuple(target for each in found for target in each.targets)
    deleted = []
    async with running(cell, SessionKind.MOUNT, specification, wait_s=wait_s, listener=listener) as run:
        run.document["replica"] = found[0].replica
        run.keep("What was unmounted stays unmounted.")
        await cell.host.unpresent(targets, _folders(cell, found[0].replica))
        for each in found:
            if each.clone is not None and not cell.host.presented(each.clone.document.copies):
                await forget(cell, each.clone)
                deleted.append(each.clone.name)
    return Unmounted(run.id, targets, tuple(deleted))


def _folders(cell: Cell, replica: str) -> list[str]:
    """The folders that were made to mount a replica, innermost first."""
    sessions = (each.document for each in cell.catalog.sessions.list() if each.kind is SessionKind.MOUNT)
    made = {str(f) for each in sessions if each.get("replica") == replica for f in each.get("folders", ())}
    return sorted(made, key=len, reverse=True)


def everything(cell: Cell) -> list[Shown]:
    """Every replica and every clone that is mounted now, by the mount table."""
    kept: list[tuple[str, Sequence[ShadowCopy], Clone | None]] = [
        (each.id, each.document.copies, None) for each in cell.catalog.replicas.list()
    ]
    kept += [
        (each.replica, each.document.copies, each)
        for each in cell.catalog.clones.list()
        if each.kind is CloneKind.MOUNT
    ]
    return [
        Shown(replica, tuple(targets), clone)
        for replica, copies, clone in kept
        if (targets := cell.host.presented(copies))
    ]


def with_presented(cell: Cell, replicas: Iterable[Replica]) -> tuple[Replica, ...]:
    """The same replicas, with the truth about which of them are mounted."""
    there = {each.replica for each in everything(cell)}
    return tuple(replace(each, presented=each.id in there) for each in replicas)


def _targets(cell: Cell, chosen: Replica, path: str) -> list[str]:
    """Where each copy is mounted: one at the path itself, several below it by the names of their volumes."""
    if path and not path.startswith("/"):
        raise UsageError(f"{path} is not an absolute path.", data="Nothing was changed.", hint="Begin it with a slash.")
    settings = cell.settings.mount
    parts = [cell.host.name] if settings.host else []
    parts += [chosen.id] if settings.session else []
    base = os.path.normpath(path) if path else os.path.join(settings.root, *parts)
    copies = chosen.document.copies
    if not copies:
        raise SlackwaterError(f"The replica {chosen.id} holds no volume.", data="Nothing was changed.")
    return [base] if len(copies) == 1 else [os.path.join(base, copy.volume.name) for copy in copies]
