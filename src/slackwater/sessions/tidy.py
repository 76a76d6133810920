# SPDX-License-Identifier: Apache-2.0
"""Forgetting old sessions: what is told of them, when they are older than the settings keep."""

from datetime import timedelta

from slackwater.sessions.cell import Cell


def tidy(cell: Cell) -> tuple[str, ...]:
    """Forget sessions that ended longer ago than `[catalog] keep_sessions`, and to which no replica or clone refers.

    Their ids stay taken, and what recoveries learnt stays known. Returns the ids of those that are gone.
    """
    before = cell.clock.now() - timedelta(seconds=cell.settings.catalog.keep_sessions)
    replicas = cell.catalog.replicas.list()
    referred = {each.id for each in replicas} | {each.document.replica for each in replicas}
    referred |= {each.id for each in cell.catalog.clones.list()}
    return cell.catalog.sessions.forget(before, referred)
