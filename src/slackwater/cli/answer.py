# SPDX-License-Identifier: Apache-2.0
"""Values as JSON: one object, lists under their plural noun, RFC 3339 times in UTC, units in the names.

Fields are added, never renamed and never given a second meaning, as long as `schema_version` stays what it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from functools import singledispatch
from typing import Any

from slackwater.cli import values
from slackwater.cli.words import rfc3339
from slackwater.errors import SlackwaterError
from slackwater.model.facts import Finding
from slackwater.model.plan import Plan, Window
from slackwater.model.replica import ComponentRecord, Replica
from slackwater.model.session import Message, PhaseRecord
from slackwater.model.storage import Volume
from slackwater.sessions.backup import BackupPreview, BackupResult
from slackwater.sessions.discover import Discovered, Discovery
from slackwater.sessions.reconcile import ReconcileResult
from slackwater.sessions.recover import RecoveryPreview, RecoveryResult
from slackwater.sessions.status import SpecificationStatus, Status

Document = dict[str, Any]


@singledispatch
def answer(value: object) -> Document:
    """The document that a command with --json prints, without its `schema_version`."""
    raise TypeError(f"nothing says how {type(value).__name__} is written as JSON")


@answer.register
def _backup(value: BackupResult) -> Document:
    return {
        "session": value.session,
        "specification": value.specification,
        "outcome": value.outcome,
        "consistency": value.consistency,
        "replica": value.replica,
        "plan": _plan(value.plan),
        "window": _window(value.window),
        "phases": _phases(value.phases),
        "messages": _messages(value.messages),
        "rotated": [{"replica": each.replica, "reason": each.reason} for each in value.rotated if not each.keep],
    }


@answer.register
def _backup_preview(value: BackupPreview) -> Document:
    findings = _findings(value.findings)
    return {"preview": True, "specification": value.specification, "plan": _plan(value.plan), "findings": findings}


@answer.register
def _recovery(value: RecoveryResult) -> Document:
    return {
        "session": value.session,
        "specification": value.specification,
        "outcome": value.outcome,
        "replica": value.replica,
        "undo_replica": value.undo_replica,
        "downtime_ms": value.downtime_ms,
        "phases": _phases(value.phases),
        "messages": _messages(value.messages),
        "reached": {str(component): dict(facts) for component, facts in value.reached.items()},
    }


@answer.register
def _recovery_preview(value: RecoveryPreview) -> Document:
    return {
        "preview": True,
        "specification": value.specification,
        "replica": value.replica,
        "created": rfc3339(value.created),
        "back_s": value.back_s,
        "sets_aside": list(value.sets_aside),
        "steps": list(value.steps),
        "findings": _findings(value.findings),
    }


@answer.register
def _discovery(value: Discovery) -> Document:
    return {"components": [_discovered(each) for each in value.components], "failures": _findings(value.failures)}


@answer.register
def _replicas(value: values.Replicas) -> Document:
    return {"replicas": [_replica(each) for each in value.replicas]}


@answer.register
def _replica_shown(value: values.ReplicaShown) -> Document:
    return {"replica": _whole_replica(value.replica)}


@answer.register
def _deletion(value: values.Deletion) -> Document:
    preview = {} if value.session else {"preview": True}
    return {**preview, "session": value.session, "replica": _replica(value.replica)}


@answer.register
def _sessions(value: values.Sessions) -> Document:
    return {"sessions": [_session(each) for each in value.sessions]}


@answer.register
def _session_shown(value: values.SessionShown) -> Document:
    session = value.session
    return {
        "session": {
            **_session(value),
            "phases": _phases(session.phases),
            "messages": _messages(session.messages),
            "document": session.document,
        }
    }


@answer.register
def _status(value: Status) -> Document:
    return {
        "specifications": [_standing(each) for each in value.specifications],
        "pending": list(value.pending),
        "broken": list(value.broken),
    }


@answer.register
def _nagios(value: values.Nagios) -> Document:
    return {"line": value.line, "exit_status": value.status}


@answer.register
def _reconciled(value: ReconcileResult) -> Document:
    return {
        "sessions": [
            {
                "session": each.session,
                "kind": each.kind,
                "whole": each.whole,
                "replica": each.document.session if each.document else "",
                "effects": [{"effect": m.effect, "action": m.action, "error": m.error} for m in each.mended],
            }
            for each in value.sessions
        ],
        "released": list(value.released),
        "adopted": list(value.adopted),
        "aborted": list(value.aborted),
        "missing": list(value.missing),
        "deleted": list(value.deleted),
        "unmended": list(value.unmended),
    }


@answer.register
def _catalog(value: values.CatalogCheck) -> Document:
    differences = [{"replica": d.replica, "kind": d.kind, "sentence": d.sentence} for d in value.differences]
    return {"differences": differences, "damage": list(value.damage)}


@answer.register
def _specification(value: values.SpecificationSummary) -> Document:
    return {"specification": {**_summary(value), "text": value.text}}


@answer.register
def _specifications(value: values.Specifications) -> Document:
    return {"specifications": [_summary(each) for each in value.specifications]}


@answer.register
def _created(value: values.SpecificationCreated) -> Document:
    return {"specification": _summary(value.specification), "findings": _findings(value.findings)}


@answer.register
def _checks(value: values.SpecificationChecks) -> Document:
    return {
        "specifications": [
            {
                "name": each.name,
                "path": each.path,
                "good": each.error is None and not each.refused,
                "error": _error(each.error),
                "findings": _findings(each.findings),
            }
            for each in value.checks
        ]
    }


@answer.register
def _diagnosis(value: values.Diagnosis) -> Document:
    return {"checks": [asdict(each) for each in value.checks]}


@answer.register
def _demo(value: values.DemoEnded) -> Document:
    return {"exit_status": value.status}


def _plan(plan: Plan) -> Document:
    return {
        "hold": plan.hold,
        "reason": plan.reason,
        "consistency": plan.consistency,
        "components": [str(each.ref) for each in plan.components],
        "volumes": _volumes(plan.volumes),
        "placements": [
            {
                "component": str(each.component),
                "role": each.files.role,
                "path": each.files.path,
                "volume": each.volume.path,
                "provider": each.volume.provider,
                "stage": each.stage,
                "guarantee": each.guarantee,
            }
            for each in plan.placements
        ],
        "limits": {"freeze_ms": plan.limits.freeze_s * 1000, "hold_ms": plan.limits.hold_s * 1000},
        "findings": _findings(plan.findings),
    }


def _window(window: Window) -> Document:
    return {"frozen_ms": window.frozen_ms, "held_ms": window.held_ms}


def _phases(phases: Iterable[PhaseRecord]) -> list[Document]:
    return [{"name": p.name, "started": rfc3339(p.started), "duration_ms": p.duration_ms} for p in phases]


def _messages(messages: Iterable[Message]) -> list[Document]:
    return [{"at": rfc3339(each.at), "severity": each.severity, "text": each.text} for each in messages]


def _findings(findings: Iterable[Finding]) -> list[Document]:
    return [{"code": f.code, "severity": f.severity, "sentence": f.sentence, "hint": f.hint} for f in findings]


def _volumes(volumes: Iterable[Volume]) -> list[Document]:
    return [{"provider": v.provider, "id": v.id, "name": v.name, "path": v.path} for v in volumes]


def _replica(replica: Replica) -> Document:
    document = replica.document
    return {
        "id": replica.id,
        "kind": document.kind,
        "specification": document.specification,
        "components": [str(each) for each in replica.components],
        "created": rfc3339(document.created),
        "consistency": document.consistency,
        "state": replica.state,
        "read_only": replica.read_only,
        "presented": replica.presented,
        "verified": _moment(replica.verified),
        "pinned": replica.pinned,
        "volumes": _volumes(replica.volumes),
    }


def _whole_replica(replica: Replica) -> Document:
    document = replica.document
    return {
        **_replica(replica),
        "hold": document.hold,
        "reason": document.reason,
        "window": _window(document.window),
        "replaced_by": document.replica,
        "records": [_record(each) for each in document.components],
        "copies": [
            {
                "volume": copy.volume.path,
                "provider": copy.volume.provider,
                "place": copy.place,
                "facts": dict(copy.facts),
            }
            for copy in document.copies
        ],
    }


def _record(record: ComponentRecord) -> Document:
    component = record.component
    return {
        "component": str(component.ref),
        "caption": component.caption,
        "running": component.running,
        "files": [{"role": each.role, "path": each.path, "via": each.via} for each in component.files],
        "expected": dict(record.expected),
        "configuration": sorted(record.configuration),
        "findings": _findings(component.findings),
    }


def _session(shown: values.SessionShown) -> Document:
    session = shown.session
    took_ms = (session.ended - session.started).total_seconds() * 1000 if session.ended else None
    return {
        "id": session.id,
        "kind": session.kind,
        "specification": session.specification,
        "outcome": session.outcome,
        "interrupted": shown.interrupted,
        "started": rfc3339(session.started),
        "ended": _moment(session.ended),
        "duration_ms": took_ms,
        "replica": session.document.get("replica", ""),
        "error": session.document.get("error"),
    }


def _discovered(each: Discovered) -> Document:
    return {
        "component": str(each.component.ref),
        "caption": each.component.caption,
        "running": each.component.running,
        "volumes": _volumes(each.volumes),
        "provider": ", ".join(sorted({volume.provider for volume in each.volumes})),
        "hold": each.hold,
        "recoverable": each.recoverable,
        "reason": each.reason,
        "findings": _findings(each.findings),
    }


def _standing(each: SpecificationStatus) -> Document:
    last = each.last_session
    return {
        "specification": each.specification,
        "last_good": each.last_good,
        "last_good_at": _moment(each.last_good_at),
        "age_s": each.age_s,
        "verified": _moment(each.verified),
        "recoverable_from": _moment(each.recoverable_from),
        "recoverable_to": _moment(each.recoverable_to),
        "replicas": each.replicas,
        "undo_replicas": each.undo_replicas,
        "last_session": _session(values.SessionShown(last, interrupted=False)) if last else None,
        "free_bytes": each.free_bytes,
        "total_bytes": each.total_bytes,
    }


def _summary(each: values.SpecificationSummary) -> Document:
    tables: Mapping[str, Any] = each.options or {}
    components = [str(ref) for ref in each.components]
    return {
        "name": each.name, "path": each.path, "components": components, **tables, "error": _error(each.error),
    }  # fmt: skip


def _error(error: SlackwaterError | None) -> Document | None:
    if error is None:
        return None
    return {"code": error.reason, "sentence": error.sentence, "data": error.data, "hint": error.hint}


def _moment(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment else None
