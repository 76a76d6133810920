# SPDX-License-Identifier: Apache-2.0
"""The order of events of a backup, from prepare to thaw. Begin with `take`, which reads like the design page's list.

Identify, select and plan come before, in the host; record comes after it. Nothing slow and nothing that writes to a
disk stands between freeze and thaw: no log, no catalog, no import, no look-up of a name. Intents of the window are
committed before it, results after it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import anyio

from slackwater.errors import DeadlineError, SlackwaterError
from slackwater.guard.client import Guard
from slackwater.journal.effects import Effect
from slackwater.journal.journal import Journal
from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Facts
from slackwater.model.plan import Consistency, Hold, Limits, Plan, Window
from slackwater.model.session import Phase
from slackwater.model.storage import ShadowCopy, Volume
from slackwater.providers.contract import Commit, Provider
from slackwater.system.clock import Clock
from slackwater.system.crew import in_thread, side_by_side, warm
from slackwater.system.story import Story
from slackwater.writers.contract import Writer


@dataclass(frozen=True, slots=True)
class Parts:
    """What a backup is made with on a host."""

    writers: Mapping[str, Writer]
    providers: Mapping[str, Provider]
    journal: Journal
    clock: Clock
    gather: Callable[[str, frozenset[int]], tuple[str, tuple[Effect, ...]]]
    """(session, processes) → the cgroup to freeze, and the effects that bring them into it."""
    arm: Callable[[str, Sequence[str], Limits], Guard]
    """(session, cgroups, limits) → a guard that is ready."""

    def writer(self, component: Component) -> Writer:
        """The writer that speaks for a component."""
        return self.writers[component.ref.writer]

    def provider(self, volume: Volume) -> Provider:
        """The provider that snapshots a volume."""
        return self.providers[volume.provider]


@dataclass(frozen=True, slots=True)
class Taken:
    """A set that is whole, and was taken within its window."""

    created: datetime
    consistency: Consistency
    expected: Mapping[ComponentRef, Facts]
    copies: tuple[ShadowCopy, ...]
    window: Window


async def take(plan: Plan, session: str, parts: Parts, story: Story, *, accept_crash: bool = False) -> Taken:
    """Bring writers and providers to one moment.

    Whatever happens, everything that was asked to freeze is asked to thaw before this returns or raises. When it
    raises, the caller undoes the session by its journal; nothing of the set is kept.

    Raises:
        DeadlineError: the hold was late or broken.
        SlackwaterError: a writer or provider failed.
    """
    with ExitStack() as opened:
        with story.phase(Phase.PREPARE):
            consistency, expected = await _prepare_writers(plan, parts, story, accept_crash=accept_crash)
            snapshots = [parts.provider(v).snapshot_effect(v, session) for v in plan.volumes]
            commits = await in_thread(_prepare_storage, plan, session, parts, opened)
            guard, gathered = await in_thread(_prepare_hold, plan, session, parts, opened)
            entries = parts.journal.intend(session, snapshots)
            await warm(max(len(plan.volumes), len(plan.components)))
        created, window = await _window(plan, parts, story, commits, guard)
        await in_thread(_still_stopped, plan, parts)
    for effect in reversed(gathered):
        await in_thread(parts.journal.revert, session, effect)
    facts = [await in_thread(snapshot.make) for snapshot in snapshots]
    for entry, each in zip(entries, facts, strict=True):
        parts.journal.done(entry, each)
    copies = tuple(parts.provider(v).copy(v, session, each) for v, each in zip(plan.volumes, facts, strict=True))
    return Taken(created, consistency, expected, copies, window)


async def _prepare_writers(
    plan: Plan, parts: Parts, story: Story, *, accept_crash: bool
) -> tuple[Consistency, dict[ComponentRef, Facts]]:
    """All slow work of the engines, and where they stand; side by side."""
    calls = [partial(parts.writer(each).prepare, each) for each in plan.components]
    try:
        facts = await side_by_side(calls)
    except SlackwaterError as e:
        if not accept_crash:
            raise
        story.say("warning", f"A writer failed, and the specification accepts a crash-consistent replica: {e.sentence}")
        return Consistency.CRASH, {each.ref: {} for each in plan.components}
    return plan.consistency, {each.ref: found for each, found in zip(plan.components, facts, strict=True)}


def _prepare_storage(plan: Plan, session: str, parts: Parts, opened: ExitStack) -> list[Commit]:
    """The directories of the set, dirty pages written back, descriptors open."""
    for place in dict.fromkeys(parts.provider(v).place_effect(v, session) for v in plan.volumes):
        parts.journal.run(session, place)
    return [opened.enter_context(parts.provider(v).open(v, session)) for v in plan.volumes]


def _prepare_hold(plan: Plan, session: str, parts: Parts, opened: ExitStack) -> tuple[Guard | None, list[Effect]]:
    """Processes where they can be frozen without anybody else, and a guard that will let them go."""
    if plan.hold is not Hold.PROCESS_FREEZE:
        return None, []
    cgroups: list[str] = []
    gathered: list[Effect] = []
    for component in plan.components:
        if component.running:
            cgroup, effects = parts.gather(session, parts.writer(component).processes(component))
            for effect in effects:
                parts.journal.run(session, effect)
            cgroups.append(cgroup)
            gathered += effects
    return opened.enter_context(parts.arm(session, cgroups, plan.limits)), gathered


def _still_stopped(plan: Plan, parts: Parts) -> None:
    """What was stopped when the plan was made, and was not held, must not have been started meanwhile."""
    for component in plan.components:
        if not component.running and parts.writer(component).processes(component):
            raise SlackwaterError(
                f"{component.ref} was started while it was copied as a stopped one.",
                data="It goes on, and nothing was kept.",
                hint="Run it again.",
                code="started",
            )


async def _window(
    plan: Plan, parts: Parts, story: Story, commits: Sequence[Commit], guard: Guard | None
) -> tuple[datetime, Window]:
    """Freeze, snapshot, thaw. The thaw is unconditional, and a late one is a failure."""
    failure: BaseException | None = None
    window = Window()
    with story.window():
        try:
            with story.phase(Phase.FREEZE):
                await _freeze(plan, parts, guard)
            with story.phase(Phase.SNAPSHOT):
                await _commit(commits)
                created = parts.clock.now()
        except BaseException as e:
            failure = e
            raise
        finally:
            with anyio.CancelScope(shield=True), story.phase(Phase.THAW):
                try:
                    window = await in_thread(_thaw, plan, parts, guard)
                except SlackwaterError as e:
                    if failure is None:
                        raise
                    story.say("warning", e.sentence)
    return created, window


async def _freeze(plan: Plan, parts: Parts, guard: Guard | None) -> None:
    """Writers first, side by side, then the processes themselves."""
    try:
        with anyio.fail_after(plan.limits.freeze_s):
            await side_by_side([partial(parts.writer(c).freeze, c) for c in plan.components if c.running])
    except TimeoutError as e:
        raise DeadlineError(
            f"The application did not come to rest within {plan.limits.freeze_s:g} s.",
            data="Everything was thawed and nothing was kept.",
        ) from e
    if guard is not None:
        await in_thread(guard.freeze)


async def _commit(commits: Sequence[Commit]) -> None:
    """Every provider at once. Should the guard die meanwhile, its client releases everything, and the thaw tells."""
    try:
        await side_by_side(commits)
    except OSError as e:
        raise SlackwaterError(
            f"The snapshot could not be taken: {e.strerror or e}.",
            data="The application goes on, and nothing was kept.",
            hint="`slackwater status` shows the room that is left; `slackwater replica delete ID` makes more.",
            code="snapshot",
        ) from e


def _thaw(plan: Plan, parts: Parts, guard: Guard | None) -> Window:
    """Let everything go, in the reverse order, each whatever became of the others."""
    failures: list[SlackwaterError] = []
    window = Window()
    if guard is not None:
        try:
            released = guard.release()
            window = Window(released.frozen_ms, released.held_ms)
        except SlackwaterError as e:
            failures.append(e)
    for component in reversed(plan.components):
        if component.running:
            try:
                parts.writer(component).thaw(component)
            except SlackwaterError as e:
                failures.append(e)
    if failures:
        raise failures[0]
    return window
