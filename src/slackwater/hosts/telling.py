# SPDX-License-Identifier: Apache-2.0
"""Telling the writers how a backup ended."""

from collections.abc import Mapping, Sequence
from functools import partial

import anyio

from slackwater.coordinator.calls import plainly
from slackwater.errors import SlackwaterError
from slackwater.model.component import Component
from slackwater.system.crew import side_by_side
from slackwater.system.story import Story
from slackwater.writers.contract import Writer

_TOLD_S = 10.0


async def tell(components: Sequence[Component], writers: Mapping[str, Writer], story: Story, *, good: bool) -> None:
    """Tell each; one that cannot take it costs nothing but a warning, also where the session is stopped."""
    with anyio.CancelScope(shield=True):
        for component in components:
            complete = partial(writers[component.ref.writer].complete, component, good=good)
            try:
                await side_by_side([plainly(f"Telling {component.ref} how it ended", complete)], within_s=_TOLD_S)
            except (SlackwaterError, TimeoutError) as e:
                story.say("warning", str(e) or f"{component.ref} did not take in how it ended within {_TOLD_S:g} s.")
