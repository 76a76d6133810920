# SPDX-License-Identifier: Apache-2.0
"""Clones of a replica with an engine on them, which can reach nothing of the original: for proof, and for tests.

Verification is a recovery, not a checksum: the same files made ready in the same way, the same engine, the same proof,
on a thin clone instead of in the volumes' place. Begin with `start`.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from slackwater.errors import NotFoundError, RefusedError, SlackwaterError, VerificationError
from slackwater.journal.effects import Effect
from slackwater.journal.journal import Journal
from slackwater.model.clone import CloneDocument
from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Facts
from slackwater.model.replica import BackupComponents
from slackwater.model.session import Phase
from slackwater.model.storage import MountOrder, ShadowCopy
from slackwater.providers import _copying
from slackwater.recovery.order import Hands, Trees, trees_at, trees_of
from slackwater.recovery.steps import make_ready
from slackwater.system import namespaces
from slackwater.system.crew import in_thread, stop_in_thread, wait_in_thread
from slackwater.system.story import Story
from slackwater.system.vacate import Vacate
from slackwater.writers.contract import Clone, Question


@dataclass(frozen=True, slots=True)
class CloneOrder:
    """Which replica an engine is started on, and how."""

    source: BackupComponents
    known: Mapping[ComponentRef, Sequence[Facts]]
    """What earlier recoveries returned, so that the clone takes a timeline of its own."""
    folder: str
    """For sockets and logs; not there yet."""
    private: bool
    """True: only root and the owners of the files may log in."""
    timeout_s: float = 3600.0
    """How long the engine may take to recover."""


@dataclass(frozen=True, slots=True)
class Started:
    """A clone on which the engine has recovered."""

    document: CloneDocument
    reached: Mapping[ComponentRef, Facts]
    recovery_ms: float
    """From the order to start the engine until it had recovered."""


_NOT_THE_REPLICAS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EPERM, errno.EMFILE})
Questions = Mapping[ComponentRef, Question]


async def start(order: CloneOrder, session: str, owner: str, hands: Hands, journal: Journal, story: Story) -> Started:
    """Clone every copy, start the engines apart from the original, and wait until they have recovered.

    Whatever it makes is in the journal; undoing the session ends the engines and deletes the clones.

    Raises:
        VerificationError: a copy is not what was made, an engine did not recover, or fell short of what is expected.
        RefusedError: no namespaces can be had here, and a link would lead an engine into the original.
    """
    why = await in_thread(namespaces.impossible)
    with story.phase(Phase.CLONE):
        await in_thread(refuse_altered, order.source, hands)
        copies = await make(order.source, session, hands, journal)
        shown = [(hands.providers[c.provider].mount_order(c), c.volume.path) for c in copies]
        document = CloneDocument(
            session=session,
            folder=order.folder,
            enclosure="" if why else namespaces.mark_of(owner, session),
            components=tuple(record.component for record in order.source.components),
            copies=copies,
            places=_directories(shown, why) if why else (),
        )
        expected = await in_thread(_prepare, order, document, hands)
        await in_thread(journal.run, session, _home(document, owner, shown))
    began_s = hands.clock.boot_s()
    with story.phase(Phase.START):
        reached = await wait_in_thread(_start, order, document, expected, hands)
    recovery_ms = (hands.clock.boot_s() - began_s) * 1000
    told = {str(ref): dict(facts) for ref, facts in reached.items()}
    return Started(replace(document, reached=told), reached, round(recovery_ms, 3))


def _directories(shown: Sequence[tuple[MountOrder, str]], why: str) -> tuple[str, ...]:
    """Where clones that are plain directories lie; an engine can work there, when its links were made to lead there.

    Raises:
        RefusedError: one would have to be mounted.
    """
    if any(order.fstype != "none" for order, _ in shown):
        raise RefusedError(
            f"An engine on a clone could reach the original here: no namespaces can be had ({why}).",
            data="Nothing was started.",
            hint="Run it as root on the host itself, not in a container.",
            code="no-namespaces",
        )
    return tuple(order.source for order, _ in shown)


def _home(document: CloneDocument, owner: str, shown: Sequence[tuple[MountOrder, str]]) -> Effect:
    """Where the engines live; undoing it ends them."""
    if document.enclosure:
        return namespaces.enclose(owner, document.session, document.folder, shown)
    return Vacate(document.folder, document.places)


async def make(source: BackupComponents, session: str, hands: Hands, journal: Journal) -> tuple[ShadowCopy, ...]:
    """Clone every copy of a replica, in the place of the session. The copies may be of the same session."""
    places = dict.fromkeys(hands.providers[c.provider].place_effect(c.volume, session) for c in source.copies)
    for place in places:
        if all(place != effect for _, effect in journal.effects(session)):
            await in_thread(journal.run, session, place)
    clones = []
    for copy in source.copies:
        provider = hands.providers[copy.provider]
        named = replace(copy, volume=replace(copy.volume, name=f"clone-{copy.volume.name}"))
        clone = provider.clone_effect(named, session)
        facts = await stop_in_thread(journal.run, session, clone, stop=_copying.stop)
        clones.append(provider.copy(named.volume, session, facts))
    return tuple(clones)


def check(document: CloneDocument, questions: Questions, hands: Hands) -> dict[ComponentRef, Facts]:
    """Have each engine of a private clone read it through.

    Raises:
        VerificationError: what it found.
    """
    with opened(document, hands, private=True) as clones:
        return {ref: hands.writers[ref.writer].check_clone(each, questions.get(ref)) for ref, each in clones.items()}


def end(document: CloneDocument, owner: str, hands: Hands) -> None:
    """End the engines of a clone that is kept, and delete it. Idempotent."""
    if document.folder:
        _home(document, owner, ()).undo()
    for name in sorted({copy.provider for copy in document.copies}):
        copies = [copy for copy in document.copies if copy.provider == name]
        hands.providers[name].delete_effect(copies, document.session).make()


def gone(document: CloneDocument, hands: Hands) -> bool:
    """Whether nothing of a clone is left on the storage."""
    for copy in document.copies:
        try:
            with hands.providers[copy.provider].reach(copy):
                return False
        except NotFoundError:
            continue
    return True


def runs(document: CloneDocument) -> bool:
    """Whether engines can be on a clone; none is after a restart of the system."""
    if document.enclosure:
        return namespaces.keeper_of(document.enclosure) is not None
    return any(Vacate(document.folder, document.places).tenants())


def refuse_altered(source: BackupComponents, hands: Hands) -> None:
    """See to it that every copy is the one that was made.

    Raises:
        VerificationError: one is not.
    """
    for copy in source.copies:
        if why := hands.providers[copy.provider].altered(copy):
            raise VerificationError(
                f"The copy {copy.place} is not what was backed up: {why}.",
                data="The application was not touched.",
                hint="Recover from another replica; `slackwater replica list` shows them.",
                code="replica-altered",
            )


def _prepare(order: CloneOrder, document: CloneDocument, hands: Hands) -> dict[ComponentRef, Facts]:
    """Make the files ready; that a writer cannot is the replica's fault, unless the disk is full or broken."""
    with ExitStack() as reached:
        trees = _trees(document, hands, reached)
        try:
            return make_ready(order.source, order.known, trees, document.session, hands)
        except SlackwaterError as e:
            if isinstance(e.__cause__, OSError) and e.__cause__.errno in _NOT_THE_REPLICAS:
                raise
            raise VerificationError(
                f"The files of the replica cannot be made ready: {e.sentence}",
                data="The application was not touched.",
                code=e.reason,
            ) from e


def _start(
    order: CloneOrder, document: CloneDocument, expected: Mapping[ComponentRef, Facts], hands: Hands
) -> dict[ComponentRef, Facts]:
    """In the reverse order, as a recovery does."""
    found: dict[ComponentRef, Facts] = {}
    with opened(document, hands, private=order.private) as clones:
        for ref in reversed(clones):
            clone = clones[ref]
            _make_folder(clone)
            writer = hands.writers[ref.writer]
            found[ref] = {**expected[ref], **writer.start_clone(clone, expected[ref], timeout_s=order.timeout_s)}
    return found


@contextmanager
def opened(document: CloneDocument, hands: Hands, *, private: bool) -> Iterator[dict[ComponentRef, Clone]]:
    """The clones as their writers see them."""
    with ExitStack() as reached:
        trees = _trees(document, hands, reached)
        yield {
            each.ref: _clone(document, number, each, trees[each.ref], private=private)
            for number, each in enumerate(document.components)
        }


def _trees(document: CloneDocument, hands: Hands, reached: ExitStack) -> Trees:
    paths = [copy.volume.path for copy in document.copies]
    if document.places:
        return trees_at(document.components, list(zip(paths, document.places, strict=True)))
    return trees_of(document.components, zip(paths, document.copies, strict=True), hands, reached)


def _clone(
    document: CloneDocument, number: int, component: Component, trees: Mapping[str, str], *, private: bool
) -> Clone:
    folder = document.folder if len(document.components) == 1 else f"{document.folder}/{number}"
    return Clone(component, document.session, trees, folder, document.enclosure, private)


def _make_folder(clone: Clone) -> None:
    """Give the folder to whoever owns the files: the engine makes its socket and its log there."""
    os.makedirs(clone.folder, mode=0o755, exist_ok=True)
    owner = os.stat(next(iter(clone.trees.values()), clone.folder))
    os.chown(clone.folder, owner.st_uid, owner.st_gid)
    os.chmod(clone.folder, 0o700 if clone.private else 0o755)
