# SPDX-License-Identifier: Apache-2.0
"""The window: freeze, snapshot, thaw.

Nothing slow and nothing that writes to a disk stands in here: no log, no catalog, no import, no look-up of a name.
Whatever happens, everybody who was asked to freeze is asked to thaw, and a thaw that is late fails the session.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from threading import Event

import anyio

from slackwater.coordinator.calls import HungError, plainly
from slackwater.coordinator.parts import Parts
from slackwater.errors import PASSING, DeadlineError, SlackwaterError
from slackwater.guard.client import Guard
from slackwater.model.component import Component, ComponentRef
from slackwater.model.facts import Facts
from slackwater.model.plan import Limits, Plan, Window
from slackwater.model.session import Phase
from slackwater.providers import _copying
from slackwater.providers.contract import Commit
from slackwater.system.crew import in_thread, side_by_side
from slackwater.system.story import Story
from slackwater.writers.contract import Bridge, Writer

#: How long a writer may take to give its lock back, and a commit is waited for when the guard has released by itself.
THAW_S, GRACE_S = 10.0, 1.0


async def hold(
    plan: Plan,
    parts: Parts,
    story: Story,
    flushes: Sequence[Callable[[], None]],
    stages: Sequence[Sequence[Commit]],
    bridges: Mapping[ComponentRef, Bridge],
    guard: Guard | None,
    *,
    accept_crash: bool,
) -> tuple[datetime, Window, dict[ComponentRef, Facts], bool]:
    """Freeze, snapshot, thaw. The thaw is unconditional, and a late one is a failure.

    The last of the results: whether every writer came to rest.
    """
    marks: dict[ComponentRef, Facts] = {}
    failure: BaseException | None = None
    window = Window()
    with story.window():
        try:
            with story.phase(Phase.FREEZE):
                rested = await _rest(plan, parts, story, accept_crash=accept_crash)  # then locks and processes
                if guard is not None:
                    await in_thread(guard.freeze)
            with story.phase(Phase.SNAPSHOT):
                await _commit(flushes, _patience_s(plan, parts, guard))
                for number, commits in enumerate(stages):
                    if number:
                        for ref, bridge in bridges.items():
                            marks[ref] = await _close(ref, bridge, plan.limits)
                    await _commit(commits, _patience_s(plan, parts, guard))
                created = parts.clock.now()
        except BaseException as e:
            failure = e
            raise
        finally:
            with anyio.CancelScope(shield=True), story.phase(Phase.THAW):
                try:
                    window = await _thaw(plan, parts, guard)
                except Exception as e:
                    if failure is None:
                        raise
                    story.say("warning", str(e))
    return created, window, marks, rested


async def _rest(plan: Plan, parts: Parts, story: Story, *, accept_crash: bool) -> bool:
    """Writers, in the order of the components; False where one failed and that is accepted."""
    rested, abandoned = True, Event()
    ends_s = parts.clock.boot_s() + plan.limits.freeze_s
    try:
        for component in (each for each in plan.components if each.running):
            bring = partial(_bring_to_rest, parts.writer(component), component, abandoned)
            freeze = plainly(f"The freeze of {component.ref}", bring)
            try:
                await side_by_side([freeze], within_s=ends_s - parts.clock.boot_s())
            except SlackwaterError as e:
                if not (accept_crash and plan.survives_alone):
                    raise
                accept(story, "A writer", e)
                rested = False
    except TimeoutError as e:
        abandoned.set()
        raise DeadlineError(
            f"The application did not come to rest within {plan.limits.freeze_s:g} s.",
            data="Everything was thawed and nothing was kept.",
            # The call has not come back: whenever it does, its thaw would end the rest of another attempt.
            retryable=False,
        ) from e
    return rested


def accept(story: Story, who: str, error: SlackwaterError) -> None:
    """Say that something failed that the specification does without."""
    story.say("warning", f"{who} failed, and the specification accepts a crash-consistent replica: {error.sentence}")


def _bring_to_rest(writer: Writer, component: Component, abandoned: Event) -> None:
    """Freeze; one that comes back when nobody waits for it any more is thawed at once, since nobody else will."""
    try:
        writer.freeze(component)
    finally:
        if abandoned.is_set():
            writer.thaw(component)


async def _close(ref: ComponentRef, bridge: Bridge, limits: Limits) -> Facts:
    """Mark the end of the copies in a log."""
    try:
        (mark,) = await side_by_side([plainly(f"Closing the log of {ref}", bridge.close)], within_s=limits.freeze_s)
    except TimeoutError as e:
        raise DeadlineError(
            f"{ref} did not close its log within {limits.freeze_s:g} s.",
            data="The application goes on, and nothing was kept.",
        ) from e
    return mark


def _patience_s(plan: Plan, parts: Parts, guard: Guard | None) -> float:
    """How long commits may take: as long as the guard holds; any time where files are copied and nobody waits."""
    if guard is not None:
        return plan.limits.hold_s + GRACE_S
    by_file = any(parts.provider(volume).capabilities.by_file for volume in plan.volumes)
    return math.inf if by_file else plan.limits.freeze_s


async def _commit(commits: Sequence[Callable[[], None]], within_s: float) -> None:
    """Every provider at once. Should the guard die meanwhile, its client releases everything, and the thaw tells."""
    try:
        ready = [plainly("The snapshot", each, OSError) for each in commits]
        # A request to stop that comes meanwhile must not hide that one of them has not come back: it waits for this.
        with anyio.CancelScope(shield=within_s != math.inf):
            await side_by_side(ready, within_s=within_s, stop=_copying.stop if within_s == math.inf else None)
    except TimeoutError as e:
        raise HungError(
            f"The snapshot was not taken within {within_s:g} s, and has not come back.",
            data="Everything was thawed and nothing is kept; what it may still make is removed later.",
            hint="See what the disk waits for (dmesg), then: slackwater reconcile",
        ) from e
    except OSError as e:
        raise SlackwaterError(
            f"The snapshot could not be taken: {e.strerror or e}.",
            data="The application goes on, and nothing was kept.",
            hint="`slackwater status` shows the room that is left; `slackwater replica delete ID` makes more.",
            code="snapshot",
            retryable=e.errno in PASSING,
        ) from e


async def _thaw(plan: Plan, parts: Parts, guard: Guard | None) -> Window:
    """Let everything go: what the guard holds, then all writers at once, each whatever became of the others."""
    failures: list[Exception] = []
    window = Window()
    if guard is not None:
        try:
            released = await in_thread(guard.release)
            window = Window(released.frozen_ms, released.held_ms)
        except Exception as e:  # noqa: BLE001  # raised below, when all others were asked
            failures.append(e)

    async def ask(component: Component) -> None:
        thaw = plainly(f"The thaw of {component.ref}", partial(parts.writer(component).thaw, component))
        try:
            await side_by_side([thaw], within_s=THAW_S)
        except TimeoutError:
            failures.append(_not_thawed(component))
        except Exception as e:  # noqa: BLE001  # raised below, when all others were asked
            failures.append(e)

    async with anyio.create_task_group() as group:
        for component in reversed(plan.components):
            if component.running:
                group.start_soon(ask, component)
    if failures:
        raise failures[0]
    return window


def _not_thawed(component: Component) -> DeadlineError:
    return DeadlineError(
        f"The writer of {component.ref} has not given its lock back within {THAW_S:g} s.",
        data="Nothing was kept. Its lock ends with this command.",
        hint="See whether the application goes on; `slackwater discover` asks it.",
        retryable=False,
    )
