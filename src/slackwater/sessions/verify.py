# SPDX-License-Identifier: Apache-2.0
"""Proving a replica: a recovery run on a clone of it, and the engine's own checks. Begin with `verify`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from slackwater.config.specification import Specification
from slackwater.errors import NotFoundError, RefusedError, SlackwaterError, UsageError, VerificationError
from slackwater.model.replica import BackupComponents, Replica, Verification
from slackwater.model.session import Message, Phase, PhaseRecord, SessionKind
from slackwater.recovery.clones import CloneOrder, Questions, Started
from slackwater.sessions.cell import Cell
from slackwater.sessions.running import Run, running
from slackwater.sessions.target import refuse_going, resolve
from slackwater.system.story import Listener
from slackwater.writers.contract import Question


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """How a verification that passed went."""

    session: str
    specification: str
    replica: str
    verification: Verification
    phases: tuple[PhaseRecord, ...]
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found on a clone."""

    verification: Verification
    error: VerificationError | None


async def verify(
    cell: Cell,
    chosen: Replica,
    *,
    wait_s: float = 0.0,
    listener: Listener | None = None,
    passed: Callable[[Run], Awaitable[None]] | None = None,
) -> VerificationResult:
    """Prove that a replica can be recovered, and record it with the replica; `passed` is called while the lock is held.

    Raises:
        VerificationError: it cannot; that is recorded, too.
        UsageError: the specification is wrong, or has a question that nobody can answer.
        SlackwaterError: it could not be found out; what was known of the replica stays.
    """
    specification = chosen.document.specification
    asked = _questions_now(cell, specification)
    strangers = set(asked) - {record.component.ref for record in chosen.document.components}
    async with running(cell, SessionKind.VERIFICATION, specification, wait_s=wait_s, listener=listener) as run:
        refuse_going(cell, chosen)
        run.document["replica"] = chosen.id
        for each in strangers:
            run.story.say("warning", f"The query in [verify] is not asked: {each} is not in this replica.")
        proof = await prove(cell, chosen.document, run, asked)
        with run.story.phase(Phase.RECORD):
            cell.catalog.replicas.set_verified(chosen.id, proof.verification)
            await take_away(cell, run)
            if proof.error is not None:
                raise proof.error
            if passed is not None:
                await passed(run)
    return VerificationResult(
        run.id, specification, chosen.id, proof.verification, run.story.phases, run.story.messages
    )  # fmt: skip


async def prove(cell: Cell, source: BackupComponents, run: Run, asked: Questions) -> Proof:
    """Recover a replica on a clone, and check and ask it; the clone is the session's, to be taken away.

    Raises:
        SlackwaterError: it could not be found out.
    """
    began_s = cell.clock.boot_s()
    found = Verification(run.id, cell.clock.now(), passed=False, recovery_ms=0.0, total_ms=0.0)
    error: VerificationError | None = None
    try:
        started = await cell.host.clone(run.id, order_of(cell, source, run.id, private=True), run.story)
        found = replace(found, recovery_ms=started.recovery_ms)
        with run.story.phase(Phase.VERIFY):
            found = replace(found, passed=True, checks=await _checks(cell, started, asked))
    except VerificationError as e:
        error = e
        found = replace(found, passed=False, error=e.sentence)
    found = replace(found, total_ms=round((cell.clock.boot_s() - began_s) * 1000, 3))
    run.document["verification"] = {"passed": found.passed, "recovery_ms": found.recovery_ms, "error": found.error}
    return Proof(found, error)


async def take_away(cell: Cell, run: Run) -> None:
    """Undo everything that a session made, though it succeeded.

    Raises:
        SlackwaterError: something could not be undone; the session tries again when it ends, and then a reconcile does.
    """
    for each in (await cell.host.undo(run.id)).mended:
        if each.error:
            raise SlackwaterError(
                f"A clone could not be taken away: {each.effect}: {each.error}",
                data="The application was not touched.",
                hint="Remove what stands against it, then: slackwater reconcile",
            )
    run.keep("What it had made was taken away.")


def order_of(cell: Cell, source: BackupComponents, session: str, *, private: bool) -> CloneOrder:
    """What is needed to start engines on a clone of a replica."""
    known = {
        record.component.ref: cell.catalog.sessions.recoveries(record.component.ref) for record in source.components
    }
    return CloneOrder(source, known, cell.places.clone_folder(session), private)


def due(cell: Cell, specification: Specification) -> bool:
    """Whether a replica that was just made is to be verified: by the specification, and each day (UTC) once."""
    if specification.replica.verify == "daily":
        today = cell.clock.now().date()
        known = cell.catalog.replicas.list(specification.name)
        return not any(each.verification and each.verification.at.date() == today for each in known)
    return specification.replica.verify == "always"


def questions(cell: Cell, specification: Specification) -> Questions:
    """Who is asked what when a replica of this specification is verified.

    Raises:
        UsageError: it has a question, and who is to be asked answers none.
    """
    verify = specification.verify
    if not verify.query:
        return {}
    asked = [ref for ref in specification.components if verify.component in ("", str(ref))]
    if able := [ref for ref in asked if cell.host.answers(ref)]:
        return {able[0]: Question(verify.query, verify.expect, verify.database)}
    raise UsageError(
        f"The query in [verify] of {specification.name} cannot be asked: no question is answered by "
        f"{', '.join(map(str, asked))}.",
        data="Nothing was changed.",
        hint="Take query and expect out of [verify], or name a database of the specification by component there.",
    )


async def _checks(cell: Cell, started: Started, asked: Questions) -> dict[str, dict[str, str]]:
    checked = await cell.host.check_clone(started, asked)
    return {str(ref): {name: str(found) for name, found in facts.items()} for ref, facts in checked.items()}


def _questions_now(cell: Cell, specification: str) -> Questions:
    """The question of the replica's specification as it is today; none when that is gone or may not be used."""
    try:
        return questions(cell, resolve(cell, specification))
    except (NotFoundError, RefusedError):
        return {}
