# SPDX-License-Identifier: Apache-2.0
"""The state of a host for people: how everything stands, schedules, and what is wrong with the machine."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from slackwater.cli import values, words
from slackwater.cli.listing import Listing, receipt_grid
from slackwater.cli.render.kit import Shown, render, word_of
from slackwater.model.quantities import format_bytes
from slackwater.policy.windows import Gap, covered
from slackwater.sessions.losses import MOST
from slackwater.sessions.status import SpecificationStatus, Status
from slackwater.sessions.windows import Windows
from slackwater.system.clock import SYSTEM_CLOCK


@render.register
def _status(value: Status) -> Shown:
    if not value.specifications:
        yield "Nothing is to be backed up here yet. Begin with: slackwater discover"
    for place, each in enumerate(value.specifications):
        yield from ("",) if place else ()
        yield Text(each.specification, "bold")
        yield _standing(each)
    for session in value.pending:
        yield f"warning: session {session} was cut off -> slackwater reconcile"
    for name in value.broken:
        yield f"warning: specification {name} cannot be read -> slackwater spec check {name}"


def _standing(each: SpecificationStatus) -> Table:
    receipt = receipt_grid()
    if each.last_good:
        receipt.add_row("last good", f"{each.last_good}, {words.ago(each.age_s)}")
        since, until = words.local(each.recoverable_from), words.local(each.recoverable_to)
        receipt.add_row("recoverable", f"from {since} to {until}")
    else:
        receipt.add_row("last good", Text("none", "bold red"))
    for span in _windows_of(each):
        receipt.add_row("window", span)
    for gap in each.gaps:
        receipt.add_row("lost", _lost(gap))
    receipt.add_row("verified", words.local(each.verified) if each.verified else "never")
    if each.failed:
        receipt.add_row(word_of("failed"), ", ".join(each.failed))
    receipt.add_row("kept", str(each.replicas) + (f" + {each.undo_replicas} undo" if each.undo_replicas else ""))
    for kept in each.undo[:1]:
        until = f"until {words.local(kept.expires)}" if kept.expires else "until somebody deletes it"
        receipt.add_row("undo", f"{kept.replica}, {words.ago(kept.age_s)}, kept {until}")
    if each.free_bytes is not None and each.total_bytes:
        receipt.add_row("free", f"{format_bytes(each.free_bytes)} ({each.free_bytes / each.total_bytes:.0%})")
    if each.low_room:
        receipt.add_row(Text("low", "bold red"), each.low_room)
    return receipt


def _windows_of(each: SpecificationStatus) -> Iterator[str]:
    """The moments that a recovery can go to, without those of no length."""
    now = SYSTEM_CLOCK.now()
    for since, until in covered(each.windows, now):
        if until > since:
            to = "the last commit" if until == now else words.local(until, seconds=True)
            yield f"from {words.local(since, seconds=True)} to {to}"


def _lost(gap: Gap) -> str:
    since = words.local(gap.since, seconds=True)
    if gap.until is None:
        return f"what came after {since}, until the next backup; the window is closed: {gap.why}"
    return f"what came after {since} and before {words.local(gap.until, seconds=True)}: {gap.why}"


@render.register
def _windows(value: Windows) -> Shown:
    if not value.windows:
        yield "No good replica."
        return
    table = Listing("REPLICA", "FROM", "TO", "LOG", spare="LOG")
    for each in value.windows:
        to = words.local(each.until, seconds=True) if each.until else "the last commit"
        since = words.local(each.since, seconds=True)
        table.add_row(each.replica, since, to, format_bytes(each.bytes))
    yield table
    for each in value.windows:
        if each.why:
            yield f"{each.replica} goes no further: {each.why}"
    for gap in value.gaps:
        yield f"Lost is {_lost(gap)}"
    yield from _losses(value)


def _losses(value: Windows) -> Shown:
    """Those by which a table or a database was lost before others, when they are too many."""
    for why in value.unread:
        yield f"Not all of the log was read for lost rows: {why}"
    if not value.losses:
        return
    weighty = sorted(value.losses, key=lambda each: each.of_rows)
    table = Listing("WHEN", "TARGET", "WHAT WAS LOST")
    for each in value.losses:
        if each in weighty[:MOST]:
            table.add_row(words.local(each.at, seconds=True), str(each.target), "\n".join(each.what))
    yield ""
    yield table
    if value.unnamed:
        yield f"Not all names could be found: {value.unnamed}"
    if (more := len(value.losses) - MOST) > 0:
        yield f"{more} more: slackwater recover {value.specification} --list --json"


@render.register
def _nagios(value: values.Nagios) -> Shown:
    yield Text(value.line, no_wrap=True, overflow="ignore")


@render.register
def _schedule(value: values.ScheduleChanged) -> Shown:
    timer = value.timer
    if value.enabled:
        yield f"{timer.name} is backed up at {timer.calendar}; next: {words.local(timer.next)}."
        yield f"Its unit is {timer.unit}."
    else:
        yield f"{timer.name} is not backed up by schedule any more. Its replicas stay."


@render.register
def _schedules(value: values.Schedules) -> Shown:
    if not value.timers:
        yield "Nothing is backed up by schedule. Begin with: slackwater schedule enable SPEC --daily 02:00"
        return
    table = Listing("SPECIFICATION", "CALENDAR", "NEXT", "LAST", "ENDED")
    for each in value.timers:
        ended = "-" if each.last is None else each.result + (f" ({each.status})" if each.status else "")
        ahead = words.local(each.next) if each.active else "stopped"
        table.add_row(each.name, each.calendar, ahead, words.local(each.last), word_of(ended))
    yield table
    for each in value.timers:
        if not (each.active and each.enabled):
            yield f"warning: {each.unit} is not {'enabled' if each.active else 'active'} -> slackwater schedule enable"


@render.register
def _bundle(value: values.Bundle) -> Shown:
    yield f"{value.path} ({format_bytes(value.bytes)}) holds {', '.join(value.parts)}."
    for each in value.failed:
        yield f"could not be read: {each}"
    yield "Secrets that are known were removed; look through it before you give it away."


@render.register
def _diagnosis(value: values.Diagnosis) -> Shown:
    table = Listing("CHECK", "", "FOUND")
    for each in value.checks:
        found = each.sentence + (f"\n-> {each.hint}" if each.hint else "")
        table.add_row(each.name, word_of("FAILED" if each.health is values.Health.FAILED else each.health), found)
    yield table


@render.register
def _demo(value: values.DemoEnded) -> Shown:
    return iter(())
