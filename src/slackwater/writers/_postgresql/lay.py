# SPDX-License-Identifier: Apache-2.0
"""Laying a log beside a clone, where its engine's restore command finds it, with the lines that say where to end."""

import contextlib
import os
from collections.abc import Sequence

from slackwater.errors import SlackwaterError
from slackwater.model.component import Component
from slackwater.system import reflink
from slackwater.writers._postgresql import history, segments
from slackwater.writers._postgresql.autoconf import HISTORIES, LOG, TARGET, with_recovery, without_recovery
from slackwater.writers._postgresql.chain import CLONE, Chain, Link, Log, Source, branch_at, histories
from slackwater.writers._postgresql.directory import fill, opened, read, replace
from slackwater.writers._postgresql.fetching import must_have_room
from slackwater.writers._postgresql.history import Branch
from slackwater.writers._postgresql.rewrite import AUTO_CONF, target_of


def lay(data: int, chain: Chain, log: Log, sources: Sequence[Source]) -> None:
    """Copy what the clone's own log lacks; what was laid before is among the sources, and is not copied again."""
    owner = os.fstat(data)
    with contextlib.suppress(FileExistsError):
        os.mkdir(LOG, 0o700, dir_fd=data)
        os.chown(LOG, owner.st_uid, owner.st_gid, dir_fd=data)
    must_have_room(data, sum(each.source.archived for each in chain.links), log.segment_bytes)
    with opened(LOG, data) as folder:
        for link in chain.links:
            if link.source.caption != CLONE:
                for name in chain.names_of(link, log):
                    _copy(link, chain, log, folder, name, owner)
        os.fsync(folder)
    known = histories(sources)
    with opened(HISTORIES, data) as folder:
        for branch in chain.branches[1:]:
            replace(folder, history.name_of(branch.timeline), history.text_of(known[branch.timeline]))
        os.fsync(folder)


def _copy(link: Link, chain: Chain, log: Log, folder: int, as_name: str, owner: os.stat_result) -> None:
    """Copy a segment, and see that the copy holds what the original did: the engine writes old segments anew."""
    new = f"{as_name}.slackwater"
    with link.source.opened(link.name) as fd:
        if fd is None:
            raise _gone_meanwhile(link)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        to = os.open(new, flags, 0o600, dir_fd=folder)
        try:
            os.fchown(to, owner.st_uid, owner.st_gid)
            size = os.fstat(fd).st_size
            try:
                reflink.clone(to, fd)
            except OSError:  # not between these two: it takes room of its own
                must_have_room(folder, 1, size)
                fill(fd, to, size)
            os.fsync(to)
            if _extent(to, link, chain, log) < link.stop:
                raise _gone_meanwhile(link)
        finally:
            os.close(to)
    os.replace(new, as_name, src_dir_fd=folder, dst_dir_fd=folder)


def _extent(fd: int, link: Link, chain: Chain, log: Log) -> int:
    """Up to which position a file holds a link's log."""
    branch = branch_at(chain.branches, segments.start_of(link.name, log.segment_bytes), log)
    return segments.extent(
        fd, link.name, branch.timeline, branch.begin, log.segment_bytes, log.system_identifier
    ).stop  # fmt: skip


def _gone_meanwhile(link: Link) -> SlackwaterError:
    return SlackwaterError(
        f"{link.name} of {link.source.caption} went away while it was copied.",
        data="Nothing was switched.",
        hint="Run it again; whether the target can still be reached is seen then.",
        code="log-gone",
    )


def aim(data: int, component: Component, branches: Sequence[Branch], on: int | None, wanted: Sequence[str]) -> None:
    """Tell the engine where to end: with these lines, on the timeline that has a position; None for the last one."""
    # Aimed at a later timeline than it comes to, the engine would write a history that says it came from there.
    last = [each for each in branches if on is None or each.begin <= on][-1]
    lines = (f"recovery_target_timeline = '{last.timeline}'", "recovery_target_action = 'promote'", *wanted)
    bare = without_recovery(read(data, AUTO_CONF), target_of(data))
    with opened(HISTORIES, data) as folder:
        replace(folder, TARGET, "".join(f"{line}\n" for line in lines))
        os.fsync(folder)
    theirs = str(component.facts.get("restore_command") or "")
    replace(data, AUTO_CONF, with_recovery(bare, theirs, lines))
