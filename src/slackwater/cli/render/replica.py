# SPDX-License-Identifier: Apache-2.0
"""Replicas and the catalog that lists them, for people."""

from rich.text import Text

from slackwater.cli import values, words
from slackwater.cli.listing import Listing, receipt_grid
from slackwater.cli.render.kit import Shown, findings_of, render, rotation_of, word_of
from slackwater.model.replica import ReplicaType
from slackwater.sessions.rebuild import Rebuilt
from slackwater.sessions.transfer import Exported, Imported
from slackwater.system.clock import SYSTEM_CLOCK


@render.register
def _replicas(value: values.Replicas) -> Shown:
    if not value.replicas:
        yield "No replica."
        return
    if value.retention is not None:
        yield rotation_of(value.retention[each.id] for each in value.replicas)
        return
    full = any(each.document.type is ReplicaType.FULL for each in value.replicas)
    table = Listing("ID", "SPEC", *(["TYPE"] if full else []), "CREATED", "AGE", "CONSISTENCY", "STATE", spare="AGE")
    for each in value.replicas:
        document = each.document
        age = words.ago((SYSTEM_CLOCK.now() - document.created).total_seconds())
        kind = [document.type.value] if full else []
        created, state = words.local(document.created), word_of(words.state(each))
        table.add_row(each.id, document.specification, *kind, created, age, document.consistency, state)
    yield table


@render.register
def _replica(value: values.ReplicaShown) -> Shown:
    replica, document = value.replica, value.replica.document
    yield Text.assemble(
        "Replica ", (replica.id, "bold"), f" of {document.specification}: ", word_of(words.state(replica))
    )
    receipt = receipt_grid()
    age = words.ago((SYSTEM_CLOCK.now() - document.created).total_seconds())
    receipt.add_row("created", f"{words.local(document.created, seconds=True)} ({age})")
    receipt.add_row("type", words.TYPES[document.type])
    receipt.add_row("consistency", f"{words.CONSISTENCIES[document.consistency]}. {document.reason}")
    receipt.add_row(
        "window", f"frozen for {words.took(document.window.frozen_ms)}" if document.window.frozen_ms else "-"
    )
    receipt.add_row("verified", words.verified(replica))
    if replica.used:
        receipt.add_row("used", f"mounted read-write at {words.local(replica.used)}; what was written is no part of it")
    for record in document.components:
        receipt.add_row("component", f"{record.component.ref}: {record.component.caption}")
    for copy in document.copies:
        receipt.add_row("copy", f"{copy.volume.path} ({copy.provider}) in {copy.place}")
    if document.replica:
        receipt.add_row("set aside for", document.replica)
    yield receipt
    yield from findings_of(finding for record in document.components for finding in record.component.findings)
    if value.said:
        yield value.said
    if value.not_noted:
        yield f"That could not be noted beside it, where it would outlive the catalog: {value.not_noted}"
        yield "When its storage can be reached and written: slackwater reconcile"


@render.register
def _deletion(value: values.Deletion) -> Shown:
    document = value.replica.document
    verb = "is deleted" if value.session else "would be deleted"
    yield f"Replica {value.replica.id} of {document.specification}, {words.local(document.created)}, {verb}."
    if not value.session and value.replica.pinned:
        yield f"It is pinned, so this would be refused -> slackwater replica unpin {value.replica.id}"


@render.register
def _catalog(value: values.CatalogCheck) -> Shown:
    for each in value.damage:
        yield f"The catalog is damaged: {each}"
    for difference in value.differences:
        yield f"{difference.kind}: {difference.sentence}"
    if not (value.damage or value.differences):
        yield "Catalog and storage agree."


@render.register
def _rebuilt(value: Rebuilt) -> Shown:
    yield f"Restored {_replicas_of(value.restored)}; the catalog knew {len(value.known)}."
    for each in value.restored:
        yield f"restored: {each}{' (pinned)' if each in value.pinned else ''}"
    for each in value.left:
        yield f"left: {each}"


@render.register
def _exported(value: Exported) -> Shown:
    yield f"{value.path} holds {value.replicas} replicas and {value.sessions} sessions."
    yield "Only root may read it: copies of configuration files are in it."


@render.register
def _imported(value: Imported) -> Shown:
    yield f"{_replicas_of(value.replicas)} and {len(value.sessions)} sessions were taken in from {value.path}."
    for each in value.missing:
        yield f"missing: {each} is not on the storage as it was made"


def _replicas_of(ids: tuple[str, ...]) -> str:
    return f"{len(ids)} replica" + ("" if len(ids) == 1 else "s")
