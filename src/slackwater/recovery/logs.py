# SPDX-License-Identifier: Apache-2.0
"""The logs that a recovery goes forward by: of the replica itself, of others, of an archive, and of the live volumes.

Others are later replicas, and what recoveries have set aside. A set of several components has one moment, and the log
of one of them does not know the others': so only a replica of one component can be rolled forward.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from slackwater.errors import NotFoundError, RefusedError, SlackwaterError
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Facts, Finding, Severity, refusal
from slackwater.model.replica import BackupComponents, ComponentRecord, ReplicaKind
from slackwater.model.storage import ShadowCopy
from slackwater.model.target import LogSource, Reach, TargetKind
from slackwater.recovery.order import Hands, RecoveryOrder, trees_in, trees_of
from slackwater.system.scratch import scratch
from slackwater.writers.contract import Rolls

#: So many of those that cannot be looked at are told by name.
_NAMED = 3


def reach(order: RecoveryOrder, hands: Hands) -> tuple[Reach | None, list[Finding]]:
    """How far the order's replica goes towards its target, and what stands against that. Reads only."""
    if order.target.kind is TargetKind.REPLICA:
        return None, []
    try:
        record, writer = rolling(order.source, hands)
        with _sources(order, record, hands) as (found, unseen):
            reached = writer.reach(record, found, order.target, hands.clock.now())
    except SlackwaterError as e:
        return None, [refusal(e.reason, e.sentence, e.hint)]
    if not reached.against:
        return reached, []
    # As --to takes it, and to the microsecond: a second cut off would leave out what was committed in it.
    last = f" The last moment that can be reached from it is {reached.at:%Y-%m-%dT%H:%M:%S.%fZ}." if reached.at else ""
    sentence = f"{record.component.ref} cannot go from {order.source.session} to {order.target}: {reached.against}."
    sentence += last + _perhaps(unseen)
    return reached, [refusal("unreachable", sentence, "Take another target, or another replica.")]


def roll(
    order: RecoveryOrder,
    trees: Mapping[ComponentRef, Mapping[str, str]],
    before: Mapping[ComponentRef, Facts],
    hands: Hands,
) -> dict[ComponentRef, Facts]:
    """Lay the log beside the clones that can be reached at `trees`; returns what is expected then. Idempotent.

    `before` is what was expected so far: where this was done before, it goes on from there.

    Raises:
        SlackwaterError: the target cannot be reached any more.
    """
    record, writer = rolling(order.source, hands)
    ref = record.component.ref
    with _sources(order, record, hands) as (found, unseen):
        try:
            return {ref: writer.roll(record, trees[ref], found, order.target, hands.clock.now(), before[ref])}
        except RefusedError as e:
            e.sentence += _perhaps(unseen)
            raise


def forgive(order: RecoveryOrder, clones: Sequence[ShadowCopy], hands: Hands) -> None:
    """Keep clones that are not rolled forward from archiving what the order's archive has already. Idempotent.

    Args:
        order: to a replica itself; others, and those without an archive: nothing.
        clones: in the order of its copies.
        hands: of the host.
    """
    if order.archive is None or order.target.kind is not TargetKind.REPLICA:
        return
    with ExitStack() as reached:
        trees = trees_in(order, clones, hands, reached)
        for record in order.source.components:
            ref = record.component.ref
            writer = hands.writers[ref.writer]
            if isinstance(writer, Rolls):
                with _sources(order, record, hands) as (sources, _), suppress(RefusedError):
                    writer.forgive(record, trees[ref], sources)  # how it is asked nobody may have said; that was told


def numbered(order: RecoveryOrder, hands: Hands) -> tuple[RecoveryOrder, list[Finding]]:
    """The order with what its archive knows of histories, so that none of their numbers is used. Reads only.

    An archive that does not answer keeps nobody from going to a replica itself, and is told.
    """
    if order.archive is None or order.source.kind is not ReplicaKind.BACKUP:
        return order, []
    known = dict(order.known)
    found: list[Finding] = []
    for record in order.source.components:
        ref = record.component.ref
        writer = hands.writers[ref.writer]
        if isinstance(writer, Rolls):
            try:
                with _sources(order, record, hands) as (sources, _):
                    known[ref] = [*known.get(ref, ()), writer.taken(record, sources)]
            except SlackwaterError as e:
                found.append(Finding(e.reason, Severity.WARNING, e.sentence, e.hint))
    return replace(order, known=known), found


def horizons(documents: Sequence[BackupComponents], archive: str | None, hands: Hands) -> dict[str, Reach]:
    """How far each backup among some replicas of one component goes forward, by id; quickly. Reads only.

    Args:
        documents: all that may hold log of it, the oldest first.
        archive: how an archive of it is asked, see `LogSource`; None for none.
        hands: of the host.
    """
    found: dict[str, Reach] = {}
    with ExitStack() as opened:
        sources = sources_of(documents, hands, opened)
        asked = [] if archive is None else [archived(archive, opened)]
        for place, (document, own) in enumerate(sources):
            if document.kind is ReplicaKind.BACKUP and isinstance(own, LogSource):
                try:
                    record, writer = rolling(document, hands)
                    later = [source for _, source in sources[place:] if isinstance(source, LogSource)]
                    reached = writer.horizon(record, [*later, *asked, live_source(record)])
                    if reached.against:
                        left_out = [why for _, why in sources[place:] if isinstance(why, str)]
                        reached = replace(reached, against=reached.against + _perhaps(left_out, end=""))
                    found[document.session] = reached
                except SlackwaterError as e:
                    found[document.session] = Reach(to="", against=e.sentence)
    return found


def rolling(source: BackupComponents, hands: Hands) -> tuple[ComponentRecord, Rolls]:
    """The one component that goes forward, and who can roll it."""
    (record, *others) = source.components
    if source.kind is not ReplicaKind.BACKUP:
        raise _refused(f"{source.session} was set aside by a recovery; it is put back as it was.")
    if others:
        raise RefusedError(
            f"{source.session} holds {len(others) + 1} components of one moment, and no log has all.",
            data="Nothing was changed.",
            hint="Leave --to out, or let one of them go forward alone: --component.",
            code="no-log",
        )
    writer = hands.writers[record.component.ref.writer]
    if not isinstance(writer, Rolls):
        raise _refused(f"{record.component.ref} keeps no log that a replica could be rolled forward by.")
    return record, writer


def _refused(sentence: str) -> RefusedError:
    return RefusedError(
        sentence, data="Nothing was changed.", hint="Recover to the replica itself: leave --to out.", code="no-log"
    )


@contextmanager
def _sources(
    order: RecoveryOrder, record: ComponentRecord, hands: Hands
) -> Iterator[tuple[list[LogSource], list[str]]]:
    """Everything that may hold a part of the log, in order of age; and what cannot be looked at now, with why."""
    ref = record.component.ref
    with ExitStack() as reached:
        own = _source_of(order.source, ref, hands, reached)
        others = [each for _, each in sources_of(order.logs, hands, reached, ref)]
        found = [own, *(each for each in others if isinstance(each, LogSource))]
        if order.archive is not None:
            found.append(archived(order.archive, reached))
        yield [*found, live_source(record)], [why for why in others if isinstance(why, str)]


def _why(document: BackupComponents, error: SlackwaterError) -> str:
    return f"{_name(document)} ({' '.join(each for each in (error.sentence, error.hint) if each).rstrip('.')})"


def _perhaps(unseen: Sequence[str], end: str = ".") -> str:
    """Name those that could not be looked at: what is missing may lie there."""
    if not unseen:
        return ""
    more = f", and in {len(unseen) - _NAMED} more" if len(unseen) > _NAMED else ""
    start = " What is missing" if end else "; what is missing"
    return f"{start} may lie in what cannot be looked at now: {', '.join(unseen[:_NAMED])}{more}{end}"


def archived(asked: str, reached: ExitStack) -> LogSource:
    """An archive, with a folder for what it gives, of which nothing is there any more when `reached` is closed."""
    return LogSource("the archive", {}, archive=asked, folder=reached.enter_context(scratch()))


def live_source(record: ComponentRecord) -> LogSource:
    """The live data of a component."""
    return LogSource("the live data", {files.path: files.path for files in record.component.files}, live=True)


def sources_of(
    documents: Sequence[BackupComponents], hands: Hands, reached: ExitStack, ref: ComponentRef | None = None
) -> list[tuple[BackupComponents, LogSource | str]]:
    """What each replica holds of a component, while `reached` is open; in words, why it cannot be looked at now.

    Args:
        documents: of the replicas.
        hands: of the host.
        reached: holds them open.
        ref: the component; None for the first of each replica.
    """
    found: list[tuple[BackupComponents, LogSource | str]] = []
    for document in documents:
        try:
            source = _source_of(document, ref or document.components[0].component.ref, hands, reached)
            found.append((document, source))
        except SlackwaterError as e:
            found.append((document, _why(document, e)))
    return found


def _source_of(document: BackupComponents, ref: ComponentRef, hands: Hands, reached: ExitStack) -> LogSource:
    component = next(each.component for each in document.components if each.component.ref == ref)
    pairs = [(copy.volume.path, copy) for copy in document.copies]
    for copy in document.copies:
        if copy.provider not in hands.providers:
            raise NotFoundError(
                f"The provider {copy.provider} is not installed here.", data="Nothing was changed.", hint="Install it."
            )
    return LogSource(_name(document), trees_of([component], pairs, hands, reached)[ref])


def _name(document: BackupComponents) -> str:
    what = "the replica" if document.kind is ReplicaKind.BACKUP else "the undo replica"
    return f"{what} {document.session}"
