# SPDX-License-Identifier: Apache-2.0
"""Sessions for people: backups, recoveries, and what became of those that were cut off."""

from rich.table import Table
from rich.text import Text

from slackwater.cli import values, words
from slackwater.cli.listing import Listing, receipt_grid
from slackwater.cli.render.kit import (
    Shown,
    add_messages,
    findings_of,
    held,
    outcome_of,
    render,
    rotation_of,
    window_of,
    word_of,
)
from slackwater.model.facts import Severity
from slackwater.model.target import TO_REPLICA, TargetKind
from slackwater.sessions.backup import BackupPreview, BackupResult
from slackwater.sessions.cut_off import CutOff
from slackwater.sessions.reconcile import ReconcileResult
from slackwater.sessions.recover import RecoveryPreview, RecoveryResult

#: Of what a writer learnt: the facts that mean something to people. JSON has all of them.
_REACHED = ("timeline", "lsn", "position", "last_commit", "last_xid")


@render.register
def _backup(value: BackupResult) -> Shown:
    yield Text.assemble("Backup of ", (value.specification, "bold"), ": ", word_of(words.OUTCOMES[value.outcome]))
    receipt = receipt_grid()
    receipt.add_row("replica", Text(value.replica, "bold"))
    receipt.add_row("consistency", f"{words.CONSISTENCIES[value.consistency]}. {value.plan.reason}")
    receipt.add_row("window", window_of(value.plan, value.window))
    receipt.add_row("phases", words.phases(value.phases))
    if value.verification is not None:
        receipt.add_row("verified", words.verdict(value.verification))
    gone = [f"{each.replica} ({each.reason})" for each in value.rotated if not each.keep]
    if gone:
        receipt.add_row("rotated", f"deleted {', '.join(gone)}")
    add_messages(receipt, value.messages)
    yield receipt


@render.register
def _backup_preview(value: BackupPreview) -> Shown:
    refused = any(each.severity is Severity.REFUSAL for each in value.findings)
    yield f"A backup of {value.specification} would {'be refused' if refused else 'start'}."
    plan = value.plan
    if plan.volumes and not refused:
        receipt = receipt_grid()
        receipt.add_row("consistency", words.CONSISTENCIES[plan.consistency])
        receipt.add_row("hold", f"{words.HOLDS[plan.hold]}. {plan.reason}")
        limits = f"thawed after at most {plan.limits.freeze_s:g} s, writes held for at most {plan.limits.hold_s:g} s"
        receipt.add_row("limits", limits)
        for name, hook in plan.hooks.given.items():
            receipt.add_row("hook", f"{name}: {' '.join(hook.command)} (at most {hook.timeout_s:g} s)")
        yield receipt
    if plan.placements:
        table = Listing("COMPONENT", "FILES", "PATH", "VOLUME", "PROVIDER")
        for each in plan.placements:
            volume = "same" if each.volume.path == each.files.path else each.volume.path
            table.add_row(str(each.component), each.files.role, each.files.path, volume, each.volume.provider)
        yield table
    if value.retention and not refused:
        yield ""
        yield rotation_of(value.retention)
    yield from findings_of(value.findings)


@render.register
def _recovery(value: RecoveryResult) -> Shown:
    yield Text.assemble("Recovery of ", (value.specification, "bold"), ": ", word_of(words.OUTCOMES[value.outcome]))
    receipt = receipt_grid()
    receipt.add_row("replica", value.replica)
    receipt.add_row("undo replica", f"{value.undo_replica} holds what was there before")
    receipt.add_row("down for", words.took(value.downtime_ms))
    for component, facts in value.reached.items():
        told = ", ".join(f"{key.replace('_', ' ')} {fact}" for key, fact in facts.items() if key in _REACHED)
        receipt.add_row("reached", f"{component}: {told or 'back in its place'}")
    aside = words.since(value.since) if value.target == TO_REPLICA else [f"what came after {value.target}"]
    for line in aside if value.target.kind is not TargetKind.LATEST else ():
        receipt.add_row("not in it", f"{line}; {value.undo_replica} has it")
    receipt.add_row("phases", words.phases(value.phases))
    receipt.add_row("to go back", f"slackwater recover {value.specification} --undo")
    add_messages(receipt, value.messages)
    yield receipt


@render.register
def _recovery_preview(value: RecoveryPreview) -> Shown:
    refused = any(each.severity is Severity.REFUSAL for each in value.findings)
    yield f"A recovery of {value.specification} would {'be refused' if refused else 'start'}."
    receipt = receipt_grid()
    receipt.add_row("replica", f"{value.replica} of {words.local(value.created, seconds=True)}")
    receipt.add_row("goes back", words.back(value.back_s))
    for line in words.forward(value.reach, value.target):
        receipt.add_row("goes forward", line)
    for line in words.since(value.since):
        receipt.add_row("since then", line)
    receipt.add_row("sets aside", ", ".join(value.sets_aside))
    receipt.add_row("down for", words.down(value.down, value.reach))
    yield receipt
    steps = Table.grid(padding=(0, 1))
    steps.add_column(justify="right", no_wrap=True)
    steps.add_column(overflow="fold")
    for number, step in enumerate(value.steps, start=1):
        steps.add_row(f"{number:>3}.", step)
    yield steps
    yield from findings_of(value.findings)


@render.register
def _sessions(value: values.Sessions) -> Shown:
    if not value.sessions:
        yield "No session."
        return
    table = Listing("ID", "KIND", "SPEC", "STARTED", "TOOK", "OUTCOME", spare="TOOK")
    for each in value.sessions:
        session = each.session
        took = words.took((session.ended - session.started).total_seconds() * 1000) if session.ended else "-"
        started = words.local(session.started)
        table.add_row(session.id, session.kind, session.specification, started, took, outcome_of(each))
    yield table
    if any(each.interrupted for each in value.sessions):
        yield "Interrupted sessions are put right by: slackwater reconcile"


@render.register
def _session(value: values.SessionShown) -> Shown:
    session = value.session
    yield Text.assemble(
        "Session ", (session.id, "bold"), f" ({session.kind} of {session.specification}): ", outcome_of(value)
    )
    receipt = receipt_grid()
    receipt.add_row("started", words.local(session.started, seconds=True))
    receipt.add_row("ended", words.local(session.ended, seconds=True))
    if replica := session.document.get("replica"):
        receipt.add_row("replica", str(replica))
    if consistency := session.document.get("consistency"):
        receipt.add_row("consistency", f"{words.CONSISTENCIES[consistency]}. {session.document.get('reason', '')}")
    if (window := session.document.get("window") or {}).get("frozen_ms"):
        receipt.add_row("window", held(window["frozen_ms"], window["held_ms"]))
    receipt.add_row("phases", words.phases(session.phases) or "-")
    add_messages(receipt, session.messages)
    error = session.document.get("error") or {}
    for key, label in (("sentence", "error"), ("data", "data"), ("hint", "next")):
        if error.get(key):
            receipt.add_row(label, str(error[key]))
    yield receipt
    if value.interrupted:
        yield "Its process is dead; what it left is put right by: slackwater reconcile"


@render.register
def _reconciled(value: ReconcileResult) -> Shown:
    for session in value.sessions:
        yield Text(session.name, "bold")
        yield _cut_off(session)
        yield ""
    rows = [("released", each) for each in value.released]
    for each in value.adopted:
        pin = " and pinned, as it was before" if each in value.pinned else ""
        rows.append(("adopted", f"replica {each} was whole on the storage and is in the catalog now{pin}"))
    rows += [("ended", f"session {each}: its process was dead") for each in value.aborted]
    rows += [("deleted", f"replica {each}: its deletion had been decided") for each in value.deleted]
    rows += [("kept", f"replica {each}: it was to be deleted, and is the last good one by now") for each in value.kept]
    rows += [("deleted", f"clone {each}: it had expired, or nothing was left of it") for each in value.clones]
    rows += [("deleted", f"replica {each}: set aside longer ago than undo_keep") for each in value.expired]
    rows += [("lost", each) for each in value.lost]
    rows += [("let go", each) for each in value.logs]
    rows += [("not deleted", each) for each in value.undeleted]
    rows += [("missing", f"replica {each}: {why}") for each, why in value.missing.items()]
    rows += [("left alone", f"session {each}") for each in value.left]
    if rows:
        table = Listing("WHAT", "DONE")
        for what, done in rows:
            table.add_row(word_of(what), done)
        yield table
    elif not value.sessions:
        yield "Nothing was cut off: journal, catalog and storage agree."
    if value.unmended:
        yield "Not everything could be put right; run it again when what stands against it is gone."


def _cut_off(session: CutOff) -> Table:
    receipt = receipt_grid()
    receipt.add_row("begun", words.local(session.began, seconds=True))
    receipt.add_row("found", session.how)
    for did, what in session.done:
        receipt.add_row(word_of(did), what)
    if document := session.mended.document:
        receipt.add_row("replica", f"{document.session} is whole, and in the catalog")
    elif not session.done:
        receipt.add_row("undone", "it had made nothing")
    if session.compared:
        receipt.add_row("compared", session.compared.text)
    return receipt
