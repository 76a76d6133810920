# SPDX-License-Identifier: Apache-2.0
"""Deleting replicas: by rotation and by hand. Decided in the catalog first, done on the storage, then forgotten."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from slackwater.config.specification import Specification
from slackwater.errors import RefusedError, SlackwaterError
from slackwater.model.plan import Plan, Window
from slackwater.model.replica import BackupComponents, Replica, ReplicaKind, ReplicaState
from slackwater.model.session import Outcome, SessionKind
from slackwater.policy.retention import Decision
from slackwater.policy.retention import rotate as decide
from slackwater.sessions.adopt import agree_on_pins
from slackwater.sessions.cell import Cell
from slackwater.sessions.expiry import forget, undo_expires
from slackwater.sessions.running import Run, running
from slackwater.sessions.target import resolve
from slackwater.sessions.windows import cut_if_known, in_words
from slackwater.system.story import Listener, Story

TO_BE_MADE = "(the new one)"
"""Stands for the id of a replica that is not made yet."""


async def rotate(cell: Cell, specification: Specification, *, made: str, run: Run) -> tuple[Decision, ...]:
    """Delete what a specification's rotation does not keep; each decision with its reason.

    The replica that was just `made` stays, whatever the clock says of it: it is the one that is known to be good. The
    others that are to stay are looked for on the storage before anything goes: one that is not there, or not as it was
    made, is no reason for another to go.
    """
    await agree_on_pins(cell)
    while True:
        replicas = {each.id: each for each in cell.catalog.replicas.list(specification=specification.name)}
        decided = _decided(cell, replicas.values(), specification, made)
        decisions = tuple(_unless_mounted(cell, replicas, each) for each in decided)
        going = [replicas[each.replica] for each in decisions if not each.keep]
        staying = [replicas[each.replica] for each in decisions if each.keep and each.replica != made]
        if not going or not await _gone(cell, staying, run.story):
            break
    for span in await cut_if_known(cell, specification, [each.id for each in going]):
        run.story.say("note", in_words(span))
    for each in going:
        cell.host.check(run.id)  # one that slept while others decided anew deletes nothing by what it knew before
        try:
            await forget(cell, each)
        except SlackwaterError as e:  # the others go all the same
            run.outcome = Outcome.COMPLETED_WITH_FAILURES
            run.story.say("error", f"The replica {each.id} could not be deleted: {e.sentence} {e.hint}".rstrip())
    return decisions


async def _gone(cell: Cell, staying: Sequence[Replica], story: Story) -> bool:
    """Mark those of the good backups that the storage does not hold as they were made; whether there are any."""
    good = [e for e in staying if e.document.kind is ReplicaKind.BACKUP and e.state is ReplicaState.GOOD]
    gone = {each.id: why for each in good if (why := await cell.host.missing(each))}
    for replica, why in gone.items():
        cell.catalog.replicas.set_state(replica, ReplicaState.MISSING)
        story.say("warning", f"The replica {replica} does not count any more: {why}.")
    return bool(gone)


def foresee(cell: Cell, specification: Specification, plan: Plan, *, verified: bool) -> tuple[Decision, ...]:
    """What rotation will decide after a backup by this plan, as far as can be said before. Reads only.

    `verified` says whether the new replica will be verified before.
    """
    made = BackupComponents(
        schema_version=1,
        owner="",
        session=TO_BE_MADE,
        kind=ReplicaKind.BACKUP,
        specification=specification.name,
        created=cell.clock.now(),
        hold=plan.hold,
        reason=plan.reason,
        consistency=plan.consistency,
        window=Window(),
        components=(),
        copies=(),
    )
    replicas = cell.catalog.replicas.list(specification=specification.name)
    new = Replica(made, verified=made.created if verified else None)
    return _decided(cell, [*replicas, new], specification, TO_BE_MADE)


def outlook(cell: Cell, replicas: Iterable[Replica]) -> dict[str, Decision]:
    """What rotation would decide about each of these today, by id. Reads only."""
    decisions: dict[str, Decision] = {}
    for name in sorted({each.document.specification for each in replicas}):
        all_of_it = cell.catalog.replicas.list(specification=name)
        try:
            decided = _decided(cell, all_of_it, resolve(cell, name))
        except SlackwaterError as e:
            decided = tuple(Decision(each.id, True, f"nothing rotates it: {e.sentence}") for each in all_of_it)
        decisions |= {each.replica: each for each in decided}
    return decisions


def _decided(
    cell: Cell, replicas: Iterable[Replica], specification: Specification, made: str = ""
) -> tuple[Decision, ...]:
    """Every decision, by the host's local calendar."""
    options = specification.replica
    verifies = options.verify != "never"
    now = cell.clock.now()
    undo_s = specification.recovery.undo_keep
    replicas = list(replicas)
    undo = [each for each in replicas if each.document.kind is ReplicaKind.UNDO]
    decided = decide(
        replicas, options.keep, min_redundancy=options.min_redundancy, verifies=verifies, now=now,
        ran=cell.catalog.sessions.ran(),
        undo_keep_s=undo_s, young=[each.id for each in undo if not undo_expires(cell, each, undo_s)],
    )  # fmt: skip
    return tuple(Decision(made, True, "just made") if each.replica == made else each for each in decided)


def _unless_mounted(cell: Cell, replicas: Mapping[str, Replica], decision: Decision) -> Decision:
    """What somebody looks at stays; the next rotation asks again."""
    where = () if decision.keep else cell.host.presented(replicas[decision.replica].document.copies)
    return Decision(decision.replica, True, f"mounted at {where[0]}") if where else decision


async def delete(cell: Cell, replica: Replica, *, wait_s: float = 0.0, listener: Listener | None = None) -> str:
    """Delete a replica on request; returns the session's id.

    Raises:
        RefusedError: it is pinned, or mounted, or its id names another replica by now.
    """
    if replica.pinned:
        raise RefusedError(
            f"The replica {replica.id} is pinned.",
            data="Nothing was deleted.",
            hint=f"slackwater replica unpin {replica.id}",
            code="pinned",
        )
    if where := cell.host.presented(replica.document.copies):
        raise RefusedError(
            f"The replica {replica.id} is mounted at {', '.join(where)}.",
            data="Nothing was deleted.",
            hint=f"slackwater replica unmount {replica.id}",
            code="mounted",
        )
    specification = replica.document.specification
    async with running(cell, SessionKind.DELETION, specification, wait_s=wait_s, listener=listener) as run:
        run.document["replica"] = replica.id
        if cell.catalog.replicas.get(replica.id).document != replica.document:
            raise RefusedError(
                f"The replica {replica.id} is another one now than when it was chosen.",
                data="Nothing was deleted.",
                hint=f"slackwater replica show {replica.id}",
                code="another-replica",
            )
        with suppress(SlackwaterError):  # a replica without a specification goes, too
            for span in await cut_if_known(cell, resolve(cell, specification), [replica.id]):
                run.story.say("note", in_words(span))
        run.keep(f"The deletion of {replica.id} is finished by the next `slackwater reconcile`.")
        await forget(cell, replica)
    return run.id
