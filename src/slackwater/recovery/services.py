# SPDX-License-Identifier: Apache-2.0
"""Stopping the services around an application before it, and starting them after it, in the reverse order."""

from collections.abc import Sequence
from functools import partial

import anyio

from slackwater.errors import FencedError, SlackwaterError
from slackwater.journal.journal import Journal
from slackwater.recovery.order import RecoveryOrder
from slackwater.system import companions
from slackwater.system.companions import StopService
from slackwater.system.crew import in_thread
from slackwater.system.story import Story


async def stop(order: RecoveryOrder, session: str, journal: Journal) -> Sequence[StopService]:
    """Stop those that run, in their order; all are asked before, for one may take others along.

    Raises:
        SlackwaterError: one did not stop; whoever undoes the session starts those that were stopped.
    """
    planned = await in_thread(companions.plan, order.services, session, order.source.specification)
    running = [each for each in planned if each.running]
    for effect in running:
        await in_thread(journal.run, session, effect)
    return running


async def start(stopped: Sequence[StopService], session: str, journal: Journal, story: Story) -> None:
    """Start them again, the last first. The application is proven: one that does not start is told, and no more.

    Raises:
        FencedError: another process has taken the session over, and starts them.
    """
    with anyio.CancelScope(shield=True):
        for effect in reversed(stopped):
            try:
                await in_thread(journal.check, session)
                if why := await in_thread(_start, effect):
                    story.say("error", why)
                # Told once, with what to do: whoever starts it by hand now must not find it started again later.
                await in_thread(partial(journal.revert, session, effect, undo=False))
            except FencedError:
                raise
            except SlackwaterError as e:
                story.say("error", f"{e.sentence} {e.hint}".strip())


def _start(effect: StopService) -> str:
    """Start one; say why it did not, empty when it did."""
    try:
        effect.start_again()
    except SlackwaterError as e:
        return f"{e.sentence} {e.hint}".strip()
    except Exception as e:  # noqa: BLE001  # a defect in one of them keeps no other from being started
        return f"{effect.describe_start()}: {e!r}"
    return ""
