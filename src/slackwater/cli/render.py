# SPDX-License-Identifier: Apache-2.0
"""Values for people: tables that fit 80 columns, and receipts. Nothing here decides anything."""

from collections.abc import Iterable, Iterator
from functools import singledispatch

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from slackwater.cli import values, words
from slackwater.model.facts import Finding, Severity
from slackwater.model.plan import Plan, Window
from slackwater.model.quantities import format_bytes
from slackwater.model.session import Message
from slackwater.sessions.backup import BackupPreview, BackupResult
from slackwater.sessions.discover import Discovered, Discovery
from slackwater.sessions.reconcile import ReconcileResult
from slackwater.sessions.recover import RecoveryPreview, RecoveryResult
from slackwater.sessions.status import SpecificationStatus, Status
from slackwater.system.clock import SYSTEM_CLOCK

Shown = Iterator[RenderableType]

_STYLES = {
    "good": "green", "ok": "green", "yes": "green", "completed": "green",
    "failed": "bold red", "no": "bold red", "refused": "bold red", "missing": "bold red", "broken": "bold red",
    "warning": "yellow", "crash-consistent only": "yellow", "interrupted": "yellow", "aborted": "yellow",
}  # fmt: skip
_FREE = (
    "COMPONENT",
    "COMPONENTS",
    "SPECIFICATION",
    "NAME",
    "PATH",
    "VOLUME",
    "FOUND",
    "DONE",
    "STATE",
    "FREE",
    "CHECK",
)
#: Of what a writer learnt: the facts that mean something to people. JSON has all of them.
_REACHED = ("timeline", "lsn", "position")
_SEVERITIES = {Severity.NOTE: "", Severity.WARNING: "yellow", Severity.REFUSAL: "bold red"}


def show(value: object, console: Console | None = None) -> None:
    """Print what a command returned. No colours but on a terminal, and none with NO_COLOR (rich sees to both)."""
    console = console or Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(*render(value), sep="\n")
        return
    with console.capture() as captured:  # for programs: sentences in one piece, no blanks at the ends of lines
        for each in render(value):
            console.print(each, soft_wrap=isinstance(each, str | Text))
    console.file.write("\n".join(line.rstrip() for line in captured.get().split("\n")))


@singledispatch
def render(value: object) -> Shown:
    """The lines and tables of a value."""
    raise TypeError(f"nothing says how {type(value).__name__} is shown")


# -- backup and recovery -----------------------------------------------------------------------------------------------


@render.register
def _backup(value: BackupResult) -> Shown:
    yield Text.assemble("Backup of ", (value.specification, "bold"), ": ", _word(words.OUTCOMES[value.outcome]))
    receipt = _receipt()
    receipt.add_row("replica", Text(value.replica, "bold"))
    receipt.add_row("consistency", f"{words.CONSISTENCIES[value.consistency]}. {value.plan.reason}")
    receipt.add_row("window", _window(value.plan, value.window))
    receipt.add_row("phases", words.phases(value.phases))
    gone = [f"{each.replica} ({each.reason})" for each in value.rotated if not each.keep]
    if gone:
        receipt.add_row("rotated", f"deleted {', '.join(gone)}")
    _add_messages(receipt, value.messages)
    yield receipt


@render.register
def _backup_preview(value: BackupPreview) -> Shown:
    refused = any(each.severity is Severity.REFUSAL for each in value.findings)
    yield f"A backup of {value.specification} would {'be refused' if refused else 'start'}."
    plan = value.plan
    if plan.volumes and not refused:
        receipt = _receipt()
        receipt.add_row("consistency", words.CONSISTENCIES[plan.consistency])
        receipt.add_row("hold", f"{words.HOLDS[plan.hold]}. {plan.reason}")
        limits = f"thawed after at most {plan.limits.freeze_s:g} s, writes held for at most {plan.limits.hold_s:g} s"
        receipt.add_row("limits", limits)
        yield receipt
    if plan.placements:
        table = _table("COMPONENT", "FILES", "PATH", "VOLUME", "PROVIDER")
        for each in plan.placements:
            volume = "same" if each.volume.path == each.files.path else each.volume.path
            table.add_row(str(each.component), each.files.role, each.files.path, volume, each.volume.provider)
        yield table
    yield from _findings(value.findings)


@render.register
def _recovery(value: RecoveryResult) -> Shown:
    yield Text.assemble("Recovery of ", (value.specification, "bold"), ": ", _word(words.OUTCOMES[value.outcome]))
    receipt = _receipt()
    receipt.add_row("replica", value.replica)
    receipt.add_row("undo replica", f"{value.undo_replica} holds what was there before")
    receipt.add_row("down for", words.took(value.downtime_ms))
    for component, facts in value.reached.items():
        told = ", ".join(f"{key} {fact}" for key, fact in facts.items() if key in _REACHED)
        receipt.add_row("reached", f"{component}: {told or 'running'}")
    receipt.add_row("phases", words.phases(value.phases))
    receipt.add_row("to go back", f"slackwater recover {value.specification} --undo")
    _add_messages(receipt, value.messages)
    yield receipt


@render.register
def _recovery_preview(value: RecoveryPreview) -> Shown:
    refused = any(each.severity is Severity.REFUSAL for each in value.findings)
    yield f"A recovery of {value.specification} would {'be refused' if refused else 'start'}."
    receipt = _receipt()
    receipt.add_row("replica", f"{value.replica} of {words.local(value.created, seconds=True)}")
    receipt.add_row("goes back", words.back(value.back_s))
    receipt.add_row("sets aside", ", ".join(value.sets_aside))
    yield receipt
    steps = Table.grid(padding=(0, 1))
    steps.add_column(justify="right", no_wrap=True)
    steps.add_column(overflow="fold")
    for number, step in enumerate(value.steps, start=1):
        steps.add_row(f"{number:>3}.", step)
    yield steps
    yield from _findings(value.findings)


# -- components and specifications -------------------------------------------------------------------------------------


@render.register
def _discovery(value: Discovery) -> Shown:
    if value.components:
        table = _table("COMPONENT", "RUNS", "PROVIDER", "HOLD", "RECOVERABLE")
        for each in value.components:
            _add_discovered(table, each)
        yield table
        for each in value.components:
            yield ""
            yield Text(str(each.component.ref), "bold")
            yield _details(each)
    else:
        yield "No application was found here that a writer of this installation knows."
    yield from _findings(value.failures)


def _add_discovered(table: Table, each: Discovered) -> None:
    providers = ", ".join(sorted({volume.provider for volume in each.volumes})) or "-"
    hold = words.HOLDS[each.hold] if each.hold else "-"
    runs, recoverable = ("yes" if said else "no" for said in (each.component.running, each.recoverable))
    table.add_row(str(each.component.ref), runs, providers, hold, _word(recoverable))


def _details(each: Discovered) -> Table:
    receipt = _receipt()
    receipt.add_row("what", each.component.caption)
    for volume in each.volumes:
        receipt.add_row("volume", volume.path)
    if each.hold:
        receipt.add_row("hold", f"{words.HOLDS[each.hold]}. {each.reason}")
    for finding in each.findings:
        _add_finding(receipt, finding)
    return receipt


@render.register
def _specifications(value: values.Specifications) -> Shown:
    if not value.specifications:
        yield "There is no specification yet. Make one: slackwater spec create NAME WRITER:COMPONENT"
        return
    table = _table("NAME", "COMPONENTS", "KEEP", "MIN FREE", "STATE")
    for each in value.specifications:
        replica = (each.options or {}).get("replica", {})
        state = _word("broken" if each.error else "good")
        components = "\n".join(map(str, each.components))
        table.add_row(each.name, components, str(replica.get("keep", "-")), replica.get("min_free", "-"), state)
    yield table
    for each in value.specifications:
        if each.error:
            yield f"{each.name}: {each.error.sentence} {each.error.hint}"


@render.register
def _specification(value: values.SpecificationSummary) -> Shown:
    yield Text(f"# {value.path}", "dim")
    yield value.text.rstrip("\n")


@render.register
def _created(value: values.SpecificationCreated) -> Shown:
    name = value.specification.name
    yield f"{value.specification.path} is written."
    yield from _findings(value.findings)
    yield f"Next: slackwater backup {name} --preview"


@render.register
def _checks(value: values.SpecificationChecks) -> Shown:
    if not value.checks:
        yield "There is no specification yet. Make one: slackwater spec create NAME WRITER:COMPONENT"
    for each in value.checks:
        verdict = "broken" if each.error else "refused" if each.refused else "good"
        yield Text.assemble(f"{each.name}: ", _word(verdict))
        if each.error:
            yield f"  {each.error.sentence}" + (f" -> {each.error.hint}" if each.error.hint else "")
        yield from _findings(each.findings)


# -- replicas and sessions ---------------------------------------------------------------------------------------------


@render.register
def _replicas(value: values.Replicas) -> Shown:
    if not value.replicas:
        yield "No replica."
        return
    table = _table("ID", "SPECIFICATION", "CREATED", "AGE", "CONSISTENCY", "STATE")
    for each in value.replicas:
        document = each.document
        age = words.ago((SYSTEM_CLOCK.now() - document.created).total_seconds())
        state = _word(words.state(each))
        table.add_row(each.id, document.specification, words.local(document.created), age, document.consistency, state)
    yield table


@render.register
def _replica(value: values.ReplicaShown) -> Shown:
    replica, document = value.replica, value.replica.document
    yield Text.assemble(
        "Replica ", (replica.id, "bold"), f" of {document.specification}: ", _word(words.state(replica))
    )
    receipt = _receipt()
    age = words.ago((SYSTEM_CLOCK.now() - document.created).total_seconds())
    receipt.add_row("created", f"{words.local(document.created, seconds=True)} ({age})")
    receipt.add_row("consistency", f"{words.CONSISTENCIES[document.consistency]}. {document.reason}")
    receipt.add_row(
        "window", f"frozen for {words.took(document.window.frozen_ms)}" if document.window.frozen_ms else "-"
    )
    receipt.add_row("verified", words.local(replica.verified) if replica.verified else "never")
    for record in document.components:
        receipt.add_row("component", f"{record.component.ref}: {record.component.caption}")
    for copy in document.copies:
        receipt.add_row("copy", f"{copy.volume.path} ({copy.volume.provider}) in {copy.place}")
    if document.replica:
        receipt.add_row("set aside for", document.replica)
    yield receipt
    yield from _findings(finding for record in document.components for finding in record.component.findings)
    if value.said:
        yield value.said


@render.register
def _deletion(value: values.Deletion) -> Shown:
    document = value.replica.document
    verb = "is deleted" if value.session else "would be deleted"
    yield f"Replica {value.replica.id} of {document.specification}, {words.local(document.created)}, {verb}."
    if not value.session and value.replica.pinned:
        yield f"It is pinned, so this would be refused -> slackwater replica unpin {value.replica.id}"


@render.register
def _sessions(value: values.Sessions) -> Shown:
    if not value.sessions:
        yield "No session."
        return
    table = _table("ID", "KIND", "SPECIFICATION", "STARTED", "TOOK", "OUTCOME")
    for each in value.sessions:
        session = each.session
        took = words.took((session.ended - session.started).total_seconds() * 1000) if session.ended else "-"
        started = words.local(session.started)
        table.add_row(session.id, session.kind, session.specification, started, took, _outcome(each))
    yield table
    if any(each.interrupted for each in value.sessions):
        yield "Interrupted sessions are put right by: slackwater reconcile"


@render.register
def _session(value: values.SessionShown) -> Shown:
    session = value.session
    yield Text.assemble(
        "Session ", (session.id, "bold"), f" ({session.kind} of {session.specification}): ", _outcome(value)
    )
    receipt = _receipt()
    receipt.add_row("started", words.local(session.started, seconds=True))
    receipt.add_row("ended", words.local(session.ended, seconds=True))
    if replica := session.document.get("replica"):
        receipt.add_row("replica", str(replica))
    if consistency := session.document.get("consistency"):
        receipt.add_row("consistency", f"{words.CONSISTENCIES[consistency]}. {session.document.get('reason', '')}")
    if (window := session.document.get("window") or {}).get("frozen_ms"):
        receipt.add_row("window", _held(window["frozen_ms"], window["held_ms"]))
    receipt.add_row("phases", words.phases(session.phases) or "-")
    _add_messages(receipt, session.messages)
    error = session.document.get("error") or {}
    for key, label in (("sentence", "error"), ("data", "data"), ("hint", "next")):
        if error.get(key):
            receipt.add_row(label, str(error[key]))
    yield receipt
    if value.interrupted:
        yield "Its process is dead; what it left is put right by: slackwater reconcile"


# -- the state of things -----------------------------------------------------------------------------------------------


@render.register
def _status(value: Status) -> Shown:
    if value.specifications:
        table = _table("SPECIFICATION", "LAST GOOD", "AGE", "VERIFIED", "FROM", "KEPT", "FREE")
        for each in value.specifications:
            _add_standing(table, each)
        yield table
    else:
        yield "Nothing is to be backed up here yet. Begin with: slackwater discover"
    for session in value.pending:
        yield f"warning: session {session} was cut off -> slackwater reconcile"
    for name in value.broken:
        yield f"warning: specification {name} cannot be read -> slackwater spec check {name}"


def _add_standing(table: Table, each: SpecificationStatus) -> None:
    kept = str(each.replicas) + (f" + {each.undo_replicas} undo" if each.undo_replicas else "")
    free = "-"
    if each.free_bytes is not None and each.total_bytes:
        free = f"{format_bytes(each.free_bytes)} ({each.free_bytes / each.total_bytes:.0%})"
    last = Text(each.last_good) if each.last_good else Text("none", "bold red")
    verified = words.local(each.verified) if each.verified else "never"
    since = words.local(each.recoverable_from)
    table.add_row(each.specification, last, words.ago(each.age_s), verified, since, kept, free)


@render.register
def _nagios(value: values.Nagios) -> Shown:
    yield Text(value.line, no_wrap=True, overflow="ignore")


@render.register
def _reconciled(value: ReconcileResult) -> Shown:
    rows = [("released", each) for each in value.released]
    for session in value.sessions:
        rows += [(f"session {session.session}", _mended(m.effect, m.action, m.error)) for m in session.mended]
        if session.document is not None:
            rows.append((f"session {session.session}", f"its replica {session.document.session} is whole"))
    rows += [
        ("adopted", f"replica {each} was whole on the storage and is in the catalog now") for each in value.adopted
    ]
    rows += [("ended", f"session {each}: its process was dead") for each in value.aborted]
    rows += [("deleted", f"replica {each}: its deletion had been decided") for each in value.deleted]
    rows += [("missing", f"replica {each} is not on the storage as it was made") for each in value.missing]
    if not rows:
        yield "Nothing was to be put right."
        return
    table = _table("WHAT", "DONE")
    for what, done in rows:
        table.add_row(what, done)
    yield table
    if value.unmended:
        yield "Not everything could be put right; run it again when what stands against it is gone."


def _mended(effect: str, action: str, error: str) -> str:
    return f"not done yet: {effect}: {error}" if error else f"{'undone' if action == 'undo' else 'finished'}: {effect}"


@render.register
def _catalog(value: values.CatalogCheck) -> Shown:
    for each in value.damage:
        yield f"The catalog is damaged: {each}"
    for difference in value.differences:
        yield f"{difference.kind}: {difference.sentence}"
    if not (value.damage or value.differences):
        yield "Catalog and storage agree."


@render.register
def _diagnosis(value: values.Diagnosis) -> Shown:
    table = _table("CHECK", "", "FOUND")
    for each in value.checks:
        found = each.sentence + (f"\n-> {each.hint}" if each.hint else "")
        table.add_row(each.name, _word("FAILED" if each.health is values.Health.FAILED else each.health), found)
    yield table


@render.register
def _demo(value: values.DemoEnded) -> Shown:
    return iter(())


# -- small things ------------------------------------------------------------------------------------------------------


def _table(*headings: str) -> Table:
    """A table whose free text is folded and whose short words stay whole, so that it fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading not in _FREE)
    return table


def _receipt() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _word(word: str) -> Text:
    return Text(word, _STYLES.get(word.lower(), ""))


def _outcome(shown: values.SessionShown) -> Text:
    return _word("interrupted" if shown.interrupted else words.OUTCOMES[shown.session.outcome])


def _window(plan: Plan, window: Window) -> str:
    if not window.frozen_ms:
        return f"no hold was needed: {words.HOLDS[plan.hold].removeprefix('none ').strip('()')}"
    return _held(window.frozen_ms, window.held_ms)


def _held(frozen_ms: float, held_ms: float) -> str:
    return f"frozen for {words.took(frozen_ms)}, writes held for {words.took(held_ms)}"


def _add_messages(receipt: Table, messages: Iterable[Message]) -> None:
    for each in messages:
        receipt.add_row(each.severity, each.text)


def _add_finding(receipt: Table, each: Finding) -> None:
    said = each.sentence + (f"\n-> {each.hint}" if each.hint else "")
    receipt.add_row(Text(words.SEVERITIES[each.severity], _SEVERITIES[each.severity]), said)


def _findings(findings: Iterable[Finding]) -> Shown:
    receipt = _receipt()
    for each in findings:
        _add_finding(receipt, each)
    if receipt.row_count:
        yield receipt
