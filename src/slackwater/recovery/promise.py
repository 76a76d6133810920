# SPDX-License-Identifier: Apache-2.0
"""What volumes promise that a recovery takes out of use: no more than their writers could promise of any replica."""

from collections.abc import Collection, Iterable

from slackwater.model.component import Component, ComponentRef
from slackwater.model.hold import Consistency, lowest


def promise(components: Iterable[Component], stopped: Collection[ComponentRef]) -> Consistency:
    """The lowest of what each component's files promise.

    Args:
        components: as they were found before.
        stopped: those that ran and were stopped for it. How any other came to its end nobody knows, so its files
            promise only what its engine makes of a power cut.
    """
    return lowest([_of(each, each.ref in stopped) for each in components])


def _of(component: Component, stopped: bool) -> Consistency:
    return component.best if stopped or component.survives_power_cut else Consistency.CRASH
