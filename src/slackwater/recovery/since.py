# SPDX-License-Identifier: Apache-2.0
"""What applications have written since a replica: a recovery sets it aside, or goes forward through it."""

from collections.abc import Mapping
from contextlib import suppress

from slackwater.model.component import ComponentRef
from slackwater.model.facts import Facts
from slackwater.recovery.order import Hands, RecoveryOrder
from slackwater.writers.contract import TellsSince


def since(order: RecoveryOrder, hands: Hands) -> Mapping[ComponentRef, Facts]:
    """For each component whose writer can tell: what it has written since the replica. Reads only."""
    found: dict[ComponentRef, Facts] = {}
    for record, now in zip(order.source.components, order.now, strict=True):
        writer = hands.writers[now.ref.writer]
        if isinstance(writer, TellsSince):
            with suppress(Exception):  # also a plug-in's defect: it is told as a courtesy, and refuses no recovery
                if told := writer.since(now, record.expected):
                    found[now.ref] = told
    return found
