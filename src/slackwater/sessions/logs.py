# SPDX-License-Identifier: Apache-2.0
"""The logs that specifications keep: let go of as far as the newest replica has them, and where nobody wants them."""

import os
from collections.abc import Sequence
from dataclasses import replace

from slackwater.model.component import Component
from slackwater.model.plan import Plan
from slackwater.model.replica import BackupComponents, ReplicaKind
from slackwater.sessions.cell import Cell
from slackwater.system.story import Story


async def keep_logs(cell: Cell, plan: Plan, document: BackupComponents, story: Story) -> None:
    """After a replica is recorded: its own log has what was written before it."""
    if plan.log is not None:
        for failed in await cell.host.advance_logs(document, plan.log):
            story.say("warning", failed)
    for told in await drop_unwanted(cell, plan.components):
        story.say("note", told)


async def keep_from(cell: Cell, document: BackupComponents, story: Story) -> None:
    """After a recovery: what keeps the log was copied with the replica, and begins where it did then.

    Left there, it would keep the log of every replica that is recovered to, until the bound lets go of all of it.
    """
    for each in cell.specifications[0]:
        log = each.plan_options.log
        if document.kind is ReplicaKind.BACKUP and each.name == document.specification and log is not None:
            for failed in await cell.host.advance_logs(document, replace(log, owner=document.owner)):
                story.say("warning", failed)


async def drop_unwanted(cell: Cell, components: Sequence[Component] | None = None) -> Sequence[str]:
    """Let go of logs that no specification asks for, and of those that nothing bounds any more.

    Of a specification that cannot be read it is not known, so its log stays.

    So do all where their folder is not there: it may be about to be put back, and what is let go of is gone.
    """
    if not os.path.isdir(cell.places.specs_dir):  # noqa: ASYNC240  # one look, as at the specifications
        return []
    good, broken = cell.specifications
    wanted = {each.name for each in good if each.recovery.logs == "slot"} | {each.name for each in broken}
    return await cell.host.drop_logs(wanted, components)
