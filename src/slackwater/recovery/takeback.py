# SPDX-License-Identifier: Apache-2.0
"""Taking a recovery back after its application was started: it goes back, and what it ran on is kept as a replica.

Between the end of its recovery and our proof an application acknowledges, to clients that do not wait for us. What it
acknowledged is on the clones; so they are not deleted with the recovery, but sealed and described like an undo replica.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from slackwater.journal.effects import Effect
from slackwater.journal.journal import Decision, Entry, OpenSession
from slackwater.model.facts import Facts
from slackwater.model.replica import BackupComponents
from slackwater.providers.contract import Clone
from slackwater.recovery.promise import promise


def ran(session: OpenSession) -> bool:
    """Whether the application of a session that is taken back may have acknowledged something on the clones.

    It may from the decision to finish on, when nobody is kept from starting it any more. That our start has not come to
    its end, by the journal, proves nothing: it may have failed when the application ran already, its end may not have
    been recorded, and whoever found the new volumes in place may have started it.
    """
    return session.decision in (Decision.FINISH, Decision.STAY, Decision.KEEP)


def clones(effects: Sequence[tuple[Entry, Effect]]) -> list[tuple[Entry, Clone]]:
    """The clones of a session, in the order of the document's copies."""
    return [(entry, effect) for entry, effect in effects if isinstance(effect, Clone)]


def describe(document: BackupComponents, facts: Sequence[Facts], now: datetime) -> BackupComponents:
    """Describe kept clones; `document` is the one that the recovery had put beside them for what it would set aside.

    It names no replica that took its place: so `recover --undo`, which takes the last recovery back, leaves it alone.
    """
    copies = tuple(replace(copy, facts=each) for copy, each in zip(document.copies, facts, strict=True))
    if not document.replica:
        return replace(document, copies=copies)  # cut off after it was described
    return replace(
        document,
        created=now,
        reason=f"The application ran on it until the recovery of {document.replica} was taken back.",
        # Something failed on it, perhaps the application or the machine: nobody can tell that it was stopped in order.
        consistency=promise([record.component for record in document.components], ()),
        copies=copies,
        replica="",
    )
