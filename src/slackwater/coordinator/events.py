# SPDX-License-Identifier: Apache-2.0
"""The order of events of a backup, from prepare to thaw. Begin with `take`, which reads like the design page's list.

Identify, select and plan come before, in the host; record comes after it. What is slow stands here, before and after
the window (`coordinator/window.py`). Intents of the window are committed before it, results after it. A plan has one
stage of commits or two; between them bridged logs are closed.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from slackwater.coordinator import window
from slackwater.coordinator.calls import plainly
from slackwater.coordinator.flush import open_flushes
from slackwater.coordinator.inside import Crowd
from slackwater.coordinator.parts import Parts
from slackwater.errors import SlackwaterError
from slackwater.guard.client import Guard
from slackwater.journal.effects import Effect
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Facts
from slackwater.model.hold import Consistency, Hold, lowest
from slackwater.model.plan import Holding, LogKeeping, Plan, Window
from slackwater.model.session import Phase
from slackwater.model.storage import ShadowCopy, moved
from slackwater.providers import _copying
from slackwater.providers.contract import Commit
from slackwater.system.crew import in_thread, side_by_side, stop_in_thread, warm
from slackwater.system.story import Story
from slackwater.writers.contract import Bridge, KeepsLog


@dataclass(frozen=True, slots=True)
class Taken:
    """A set that is whole, and was taken within its window."""

    created: datetime
    consistency: Consistency
    """The lowest of the holdings'."""
    holdings: tuple[Holding, ...]
    """One for each component: how it was kept still and what is promised for it."""
    expected: Mapping[ComponentRef, Facts]
    copies: tuple[ShadowCopy, ...]
    window: Window


async def take(plan: Plan, session: str, parts: Parts, story: Story, *, accept_crash: bool = False) -> Taken:
    """Bring writers and providers to one moment.

    Whatever happens, everything that was asked to freeze is asked to thaw before this returns or raises. When it
    raises, the caller undoes the session by its journal; nothing of the set is kept.

    Raises:
        HungError: a provider has not come back; what it may still make is to be undone when our process is gone.
        DeadlineError: the hold was late or broken, or did not hold the whole application.
        SlackwaterError: a writer or provider failed.
    """
    crowd = Crowd()
    with ExitStack() as opened:
        async with AsyncExitStack() as hooked:
            with story.phase(Phase.PREPARE):
                if plan.log is not None:
                    await in_thread(_keep_logs, plan, plan.log, session, parts)
                holdings, expected = await _prepare_writers(plan, parts, story, accept_crash=accept_crash)
                if not await _hook(parts, story, hooked, accept_crash=accept_crash):
                    holdings = _crash_only(holdings)
                snapshots = [parts.provider(v).snapshot_effect(v, session) for v in plan.volumes]
                await in_thread(_make_places, plan, session, parts)
                # Before anything is opened: a provider that copies file by file does most of it ahead of the window.
                entries = parts.journal.intend(session, snapshots)
                for volume in (each for each in plan.volumes if parts.provider(each).capabilities.copies):
                    story.say("note", f"Copying {volume.path} whole; nothing is held for that.")
                stages = await stop_in_thread(_open_commits, plan, session, parts, opened, stop=_copying.stop)
                flushes = await in_thread(open_flushes, plan, parts.providers, opened)
                bridges = await in_thread(_prepare_bridges, plan, session, parts, opened)
                guard, gathered = await in_thread(_prepare_hold, plan, session, parts, opened, crowd)
                await warm(max(len(plan.volumes), len(plan.components)))
            created, held, marks, rested = await window.hold(
                plan, parts, story, flushes, stages, bridges, guard, accept_crash=accept_crash
            )
        holdings = holdings if rested else _crash_only(holdings)
        await in_thread(crowd.check, parts.writers)
        await in_thread(_still_stopped, plan, parts)
        for effect in reversed(gathered):
            await in_thread(parts.journal.revert, session, effect)
        facts = [await in_thread(snapshot.make) for snapshot in snapshots]
        for entry, each in zip(entries, facts, strict=True):
            parts.journal.done(entry, each)
        copies = tuple(parts.provider(v).copy(v, session, each) for v, each in zip(plan.volumes, facts, strict=True))
        await in_thread(_prove_unchanged, plan, parts, copies)
        for component, bridge in bridges.items():
            with ExitStack() as reached:
                await in_thread(bridge.prove, await in_thread(_log_copies, plan, component, copies, parts, reached))
    expected = {ref: {**each, **marks.get(ref, {})} for ref, each in expected.items()}
    return Taken(created, lowest([each.consistency for each in holdings]), holdings, expected, copies, held)


def _keep_logs(plan: Plan, keeping: LogKeeping, session: str, parts: Parts) -> None:
    """What is written from now on stays, for a recovery that goes on from this replica."""
    for component in plan.components:
        writer = parts.writer(component)
        effect = writer.keep_log_effect(component, keeping) if isinstance(writer, KeepsLog) else None
        if effect is not None:
            parts.journal.run(session, effect)


async def _prepare_writers(
    plan: Plan, parts: Parts, story: Story, *, accept_crash: bool
) -> tuple[tuple[Holding, ...], dict[ComponentRef, Facts]]:
    """All slow work of the engines, and where they stand; side by side."""
    calls = [plainly(f"Preparing {c.ref}", partial(parts.writer(c).prepare, c)) for c in plan.components]
    try:
        facts = await side_by_side(calls)
    except SlackwaterError as e:
        if not (accept_crash and plan.survives_alone):
            raise
        window.accept(story, "A writer", e)
        return _crash_only(plan.holdings), {each.ref: {} for each in plan.components}
    return plan.holdings, {each.ref: found for each, found in zip(plan.components, facts, strict=True)}


async def _hook(parts: Parts, story: Story, hooked: AsyncExitStack, *, accept_crash: bool) -> bool:
    """Run what is wanted right before the window; False where it failed and that is accepted."""
    try:
        await hooked.enter_async_context(parts.hooked())
    except SlackwaterError as e:
        if not accept_crash:
            raise
        window.accept(story, "A hook", e)
        return False
    return True


def _crash_only(holdings: Sequence[Holding]) -> tuple[Holding, ...]:
    return tuple(replace(each, consistency=Consistency.CRASH) for each in holdings)


def _make_places(plan: Plan, session: str, parts: Parts) -> None:
    """The directories of the set."""
    for place in dict.fromkeys(parts.provider(v).place_effect(v, session) for v in plan.volumes):
        parts.journal.run(session, place)


def _open_commits(plan: Plan, session: str, parts: Parts, opened: ExitStack) -> list[list[Commit]]:
    """Dirty pages written back, descriptors open; the commits of each stage."""
    return [
        [opened.enter_context(parts.provider(take.volume).open(take, session)) for take in stage]
        for stage in plan.stages
    ]


def _prepare_bridges(plan: Plan, session: str, parts: Parts, opened: ExitStack) -> dict[ComponentRef, Bridge]:
    """Logs that are kept from now on; the beginning of the copies is marked in them."""
    return {
        component.ref: opened.enter_context(parts.writer(component).bridge(component, session))
        for component in plan.held_by(Hold.LOG_BRIDGE)
    }


def _prepare_hold(
    plan: Plan, session: str, parts: Parts, opened: ExitStack, crowd: Crowd
) -> tuple[Guard | None, list[Effect]]:
    """Processes where they can be frozen without anybody else, keepers of locks, and a guard that lets all go."""
    frozen = [each for each in plan.held_by(Hold.PROCESS_FREEZE) if each.running]
    keepers = [parts.writer(each).keeper(each) for each in plan.held_by(Hold.APPLICATION_LOCK)]
    cgroups: list[str] = []
    gathered: list[Effect] = []
    for component in frozen:
        cgroup, effects = parts.gather(session, parts.writer(component).processes(component))
        for effect in effects:
            parts.journal.run(session, effect)
        cgroups.append(cgroup)
        crowd.add(component, cgroup)
        gathered += effects
    guard = None
    if frozen or keepers or plan.filesystems:
        guard = opened.enter_context(parts.arm(session, cgroups, keepers, plan.filesystems, plan.limits))
    return guard, gathered + _stop_applications(plan, session, parts)


def _stop_applications(plan: Plan, session: str, parts: Parts) -> list[Effect]:
    """What is copied stopped, and runs, comes to its end now, as late as can be; undone, it is started again."""
    planned = [parts.writer(each).stop_effect(each) for each in plan.held_by(Hold.COLD) if each.running]
    effects = [each for each in planned if each is not None]
    for effect in effects:
        parts.journal.run(session, effect)
    return effects


def _still_stopped(plan: Plan, parts: Parts) -> None:
    """What was stopped when the plan was made, or for the copies, must not have been started meanwhile."""
    stopped = {each.ref for each in plan.held_by(Hold.COLD)}
    for component in plan.components:
        if (not component.running or component.ref in stopped) and parts.writer(component).processes(component):
            raise SlackwaterError(
                f"{component.ref} was started while it was copied as a stopped one.",
                data="It goes on, and nothing was kept.",
                hint="Run it again.",
                code="started",
                retryable=True,
            )


def _prove_unchanged(plan: Plan, parts: Parts, copies: Sequence[ShadowCopy]) -> None:
    """Files that were taken one by one while nobody was held must not have changed from the first to the last.

    That a stopped application was not started meanwhile is not seen by all that can be known of its processes. But
    where others are held, what it wrote right before the window is not looked at twice, and would count as changed.
    """
    patient = all(take.patient for stage in plan.stages for take in stage)
    for component in (*plan.held_by(Hold.STILL), *plan.held_by(Hold.COLD)):
        still = component in plan.held_by(Hold.STILL)
        able = {each.volume.id: parts.provider(each.volume).capabilities for each in plan.placements}
        mine = {
            each.volume.id
            for each in plan.placements
            if each.component == component.ref
            and able[each.volume.id].by_file
            and (still or patient or able[each.volume.id].copies)
        }
        changed = [
            str(copy.facts["changed"]) for copy in copies if copy.volume.id in mine and copy.facts.get("changed")
        ]
        if changed:
            raise SlackwaterError(
                f"{component.ref} changed while it was copied: {', '.join(changed)}.",
                data="The copies do not show one moment; nothing was kept.",
                hint="Run it again when nobody writes, or have its writers locked, frozen or stopped.",
                code="changed",
                retryable=True,
            )


def _log_copies(
    plan: Plan, component: ComponentRef, copies: Sequence[ShadowCopy], parts: Parts, reached: ExitStack
) -> dict[str, str]:
    """Where the copies of a component's file sets can be reached, by path; good as long as `reached` is open."""
    roots = {copy.volume.id: reached.enter_context(parts.provider(copy.volume).reach(copy)) for copy in copies}
    return {
        each.files.path: moved(each.files.path, each.volume, roots[each.volume.id])
        for each in plan.placements
        if each.component == component
    }
