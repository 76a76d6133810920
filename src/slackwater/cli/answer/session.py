# SPDX-License-Identifier: Apache-2.0
"""Sessions as JSON: backups, recoveries, and what became of those that were cut off."""

from collections.abc import Mapping
from dataclasses import asdict

from slackwater.cli import values
from slackwater.cli.answer.kit import (
    Document,
    answer,
    decision_as_json,
    findings_as_json,
    messages_as_json,
    phases_as_json,
    plan_as_json,
    session_as_json,
    verification_as_json,
    window_as_json,
)
from slackwater.cli.words import rfc3339
from slackwater.model.component import ComponentRef
from slackwater.model.facts import Facts
from slackwater.model.target import Reach
from slackwater.sessions.backup import BackupPreview, BackupResult
from slackwater.sessions.cut_off import CutOff
from slackwater.sessions.reconcile import ReconcileResult
from slackwater.sessions.recover import RecoveryPreview, RecoveryResult


@answer.register
def _backup(value: BackupResult) -> Document:
    return {
        "session": value.session,
        "specification": value.specification,
        "outcome": value.outcome,
        "consistency": value.consistency,
        "replica": value.replica,
        "plan": plan_as_json(value.plan),
        "window": window_as_json(value.window),
        "phases": phases_as_json(value.phases),
        "messages": messages_as_json(value.messages),
        "rotated": [{"replica": each.replica, "reason": each.reason} for each in value.rotated if not each.keep],
        "verification": verification_as_json(value.verification),
    }


@answer.register
def _backup_preview(value: BackupPreview) -> Document:
    return {
        "preview": True,
        "specification": value.specification,
        "plan": plan_as_json(value.plan),
        "findings": findings_as_json(value.findings),
        "retention": [{"replica": each.replica, **decision_as_json(each)} for each in value.retention],
    }


@answer.register
def _recovery(value: RecoveryResult) -> Document:
    return {
        "session": value.session,
        "specification": value.specification,
        "outcome": value.outcome,
        "replica": value.replica,
        "target": str(value.target),
        "undo_replica": value.undo_replica,
        "downtime_ms": value.downtime_ms,
        "phases": phases_as_json(value.phases),
        "messages": messages_as_json(value.messages),
        "reached": {str(component): dict(facts) for component, facts in value.reached.items()},
        "since": _since(value.since),
    }


@answer.register
def _recovery_preview(value: RecoveryPreview) -> Document:
    return {
        "preview": True,
        "specification": value.specification,
        "replica": value.replica,
        "created": rfc3339(value.created),
        "back_s": value.back_s,
        "target": str(value.target),
        "forward": _reach(value.reach),
        "components": [str(each) for each in value.components],
        "since": _since(value.since),
        "down": asdict(value.down) if value.down else None,
        "sets_aside": list(value.sets_aside),
        "steps": list(value.steps),
        "findings": findings_as_json(value.findings),
    }


def _since(since: Mapping[ComponentRef, Facts]) -> Document:
    return {str(component): dict(facts) for component, facts in since.items()}


def _reach(reach: Reach | None) -> Document | None:
    if reach is None:
        return None
    at = rfc3339(reach.at) if reach.at else None
    return {"to": reach.to, "last_commit": at, "bytes": reach.bytes, "against": reach.against, **reach.facts}


@answer.register
def _sessions(value: values.Sessions) -> Document:
    return {"sessions": [session_as_json(each) for each in value.sessions]}


@answer.register
def _session_shown(value: values.SessionShown) -> Document:
    session = value.session
    return {
        "session": {
            **session_as_json(value),
            "phases": phases_as_json(session.phases),
            "messages": messages_as_json(session.messages),
            "document": session.document,
        }
    }


@answer.register
def _reconciled(value: ReconcileResult) -> Document:
    return {
        "sessions": [_cut_off(each) for each in value.sessions],
        "released": list(value.released),
        "adopted": list(value.adopted),
        "pinned": list(value.pinned),
        "aborted": list(value.aborted),
        "missing": list(value.missing),
        "why_missing": [{"replica": replica, "why": why} for replica, why in value.missing.items()],
        "deleted": list(value.deleted),
        "kept": list(value.kept),
        "clones": list(value.clones),
        "expired": list(value.expired),
        "lost": list(value.lost),
        "left": list(value.left),
        "logs": list(value.logs),
        "unmended": list(value.unmended),
    }


#: By the severity of what was found: whether a recovery has reached what it had to.
_COMPARED = {"note": True, "error": False}


def _cut_off(value: CutOff) -> Document:
    mended = value.mended
    return {
        "session": mended.session,
        "kind": mended.kind,
        "specification": value.specification,
        "began": rfc3339(value.began) if value.began else None,
        "found": mended.found,
        "pid": value.pid,
        "restarted": value.restarted,
        "whole": mended.whole,
        "replica": mended.document.session if mended.document else "",
        "compared": _COMPARED.get(value.compared.severity) if value.compared else None,
        "comparison": value.compared.text if value.compared else "",
        "effects": [
            {"effect": m.effect, "kind": m.kind, "action": m.action, "done": m.done, "error": m.error}
            for m in mended.mended
        ],
    }
