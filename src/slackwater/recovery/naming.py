# SPDX-License-Identifier: Apache-2.0
"""Transactions by which rows were lost: found in the log behind each replica, and named by its own catalog."""

from collections.abc import Collection, Sequence
from contextlib import ExitStack

from slackwater.errors import SlackwaterError
from slackwater.model.replica import BackupComponents
from slackwater.model.target import LogSource, Loss, Losses
from slackwater.recovery.clones import Started, opened
from slackwater.recovery.logs import archived, live_source, rolling, sources_of
from slackwater.recovery.order import Hands
from slackwater.writers.contract import Rolls


def losses(
    documents: Sequence[BackupComponents],
    behind: Collection[str],
    most: int | None,
    archive: str | None,
    asking: str,
    hands: Hands,
) -> dict[str, Losses]:
    """What the log tells behind some of the replicas of one component, up to the next of them, by id. Reads only.

    Args:
        documents: all that may hold log of it, the oldest first.
        behind: the ids of those that a recovery could begin with.
        most: no log older than `asking` is read when so many tables and databases were found lost; None for all of it.
        archive: how an archive of it is asked, see `LogSource`; None for none.
        asking: the one of `behind` behind which the archive is asked: for all of them it might take its time.
        hands: of the host.
    """
    found: dict[str, Losses] = {}
    with ExitStack() as reached:
        sources = sources_of(documents, hands, reached)
        until = ""
        for place, (document, own) in reversed(list(enumerate(sources))):
            if document.session not in behind:
                continue
            graver = [loss for each in found.values() for loss in each.found if not loss.of_rows]
            if most is not None and asking in found and len(graver) >= most:
                break
            if isinstance(own, str):
                found[document.session] = Losses("", against=f"it cannot be looked at now: {own}")
                continue
            try:
                record, writer = rolling(document, hands)
                later = [source for _, source in sources[place:] if isinstance(source, LogSource)]
                asked = [] if archive is None or document.session != asking else [archived(archive, reached)]
                found[document.session] = writer.losses(record, [*later, *asked, live_source(record)], until)
            except SlackwaterError as e:
                found[document.session] = Losses("", against=e.sentence)
            until = found[document.session].since or until
    return found


def named(started: Started, found: Losses, hands: Hands) -> Sequence[Loss]:
    """Have the engine on a private clone of the replica say what the numbers mean.

    Raises:
        SlackwaterError: it cannot be asked.
    """
    with opened(started.document, hands, private=True) as clones:
        (clone,) = clones.values()
        writer = hands.writers[clone.component.ref.writer]
        assert isinstance(writer, Rolls)  # noqa: S101  # it has found them
        return writer.name_losses(clone, found)


def slow_to_clone(document: BackupComponents, hands: Hands) -> bool:
    """Whether a clone of it would be a copy of all its data, which a few names are not worth."""
    return any(hands.providers[copy.provider].capabilities.copies for copy in document.copies)
