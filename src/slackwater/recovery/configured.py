# SPDX-License-Identifier: Apache-2.0
"""What a recovery does with the configuration that lies outside of the volumes."""

from slackwater.model.component import Component
from slackwater.model.replica import ComponentRecord
from slackwater.recovery.order import RecoveryOrder
from slackwater.system.configuration import Change, owner_of, plan
from slackwater.system.owned import digest


def changes(order: RecoveryOrder, session: str) -> tuple[Change, ...]:
    """What becomes of it, file by file; nothing unless it was asked for."""
    now = order.configuration
    if now is None:
        return ()
    parts = [
        plan(each.configuration, each.absent, now.get(each.component.ref, {}), owner_of(each.component), session)
        for each in order.source.components
    ]
    return tuple(change for part in parts for change in part)


def aside(component: Component, record: ComponentRecord, order: RecoveryOrder) -> ComponentRecord:
    """For the undo replica: a component with the configuration that it has, and lacks, before that of `record`."""
    if order.configuration is None:
        return ComponentRecord(component, {})
    now = dict(order.configuration.get(component.ref, {}))
    absent = {path: digest(text.encode()) for path, text in record.configuration.items() if path not in now}
    return ComponentRecord(component, {}, now, absent)
