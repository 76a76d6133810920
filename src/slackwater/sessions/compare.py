# SPDX-License-Identifier: Apache-2.0
"""Comparing what a recovery reached that was cut off after its switch, and was finished by whoever came next.

The recovery itself would have waited, compared, and put everything back where it fell short. Nobody may do that for it
later: the application is in use. So what is found is told, and kept with the session, with what to do.
"""

from collections.abc import Sequence
from dataclasses import replace

from slackwater.errors import NotFoundError, RightsError, SlackwaterError
from slackwater.model.facts import Facts
from slackwater.model.replica import BackupComponents, ReplicaKind
from slackwater.model.session import Message, Session
from slackwater.sessions.cell import Cell
from slackwater.sessions.cut_off import CutOff
from slackwater.system.processes import alive

#: What keeps it from being compared, and does not tell that it falls short.
_UNASKED = frozenset({"gone", "not-known", "recovering", "restarted"})


async def compare(cell: Cell, sessions: Sequence[CutOff]) -> tuple[tuple[CutOff, ...], dict[str, Message]]:
    """Compare every recovery that was finished now, or whose finisher was killed before it had compared.

    Returns: the sessions, each with what was found; and by session id all that was found.
    """
    finished = [each.mended.document for each in sessions if each.mended.whole and each.mended.document]
    dead = {each.id for each in cell.catalog.sessions.running() if not alive(each.process)}
    finished += [each.document for each in cell.catalog.replicas.list() if each.id in dead]
    # What is kept of a recovery that was taken back names no replica that it had put in place.
    documents = {each.session: each for each in finished if each.kind is ReplicaKind.UNDO and each.replica}
    found = {session: await _compare(cell, document) for session, document in documents.items()}
    told = {session: message for session, message in found.items() if message}
    return tuple(replace(each, compared=told.get(each.mended.session)) for each in sessions), told


async def _compare(cell: Cell, undo: BackupComponents) -> Message | None:
    """Compare one, and add what was found to its session; None where no catalog knows what it should reach."""
    try:
        session = cell.catalog.sessions.get(undo.session)
    except NotFoundError:
        session = None
    known = session.document.get("recovered", {}) if session else {}
    try:
        reached = await _reached(cell, undo, known)
        text = "It was finished when it had been cut off. What it reached was compared with what it had to reach."
        message = Message(cell.clock.now(), "note", text)
    except SlackwaterError as e:
        reached = {}
        unasked = isinstance(e, RightsError) or e.reason in _UNASKED
        what = "what it reached was not compared with" if unasked else "it has not reached"
        text = (
            f"It was finished when it had been cut off, and {what} what it had to reach: {e.sentence} What the"
            f" application had before is whole in the undo replica {undo.session}; to put it back: slackwater recover"
            f" {undo.specification} --replica {undo.session}"
        )
        message = Message(cell.clock.now(), "warning" if unasked else "error", text)
    if session:
        _remember(cell, session, reached, message)
    return message


async def _reached(cell: Cell, undo: BackupComponents, known: dict[str, Facts]) -> dict[str, Facts]:
    missing = [str(each.component.ref) for each in undo.components if str(each.component.ref) not in known]
    if missing:
        raise SlackwaterError(f"The catalog does not know what {missing[0]} had to reach.", code="not-known")
    expected = {each.component.ref: known[str(each.component.ref)] for each in undo.components}
    found = await cell.host.confirm(undo, expected)
    return {str(ref): {**expected[ref], **facts} for ref, facts in found.items()}


def _remember(cell: Cell, session: Session, reached: dict[str, Facts], message: Message) -> None:
    document = {**session.document, **({"recovered": reached} if reached else {})}
    cell.catalog.sessions.update(replace(session, document=document, messages=(*session.messages, message)))
