# SPDX-License-Identifier: Apache-2.0
"""What the values of every noun are written with as JSON, and the list of who writes what."""

from collections.abc import Iterable
from datetime import datetime
from functools import singledispatch
from typing import Any

from slackwater.cli import values
from slackwater.cli.words import rfc3339
from slackwater.errors import SlackwaterError
from slackwater.model.facts import Finding
from slackwater.model.plan import Holding, Plan, Window
from slackwater.model.replica import Verification
from slackwater.model.session import Message, PhaseRecord
from slackwater.model.storage import Volume
from slackwater.policy.retention import Decision

Document = dict[str, Any]


@singledispatch
def answer(value: object) -> Document:
    """The document that a command with --json prints, without its `schema_version`."""
    raise TypeError(f"nothing says how {type(value).__name__} is written as JSON")


def plan_as_json(plan: Plan) -> Document:
    """A plan."""
    return {
        "hold": plan.hold,
        "reason": plan.reason,
        "consistency": plan.consistency,
        "holdings": [_holding(each) for each in plan.holdings],
        "components": [str(each.ref) for each in plan.components],
        "volumes": volumes_as_json(plan.volumes),
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
        "hooks": [
            {"name": name, "command": list(hook.command), "timeout_ms": hook.timeout_s * 1000}
            for name, hook in plan.hooks.given.items()
        ],
        "findings": findings_as_json(plan.findings),
    }


def _holding(holding: Holding) -> Document:
    return {
        "component": str(holding.component),
        "hold": holding.hold,
        "consistency": holding.consistency,
        "reason": holding.reason,
    }


def window_as_json(window: Window) -> Document:
    """A window."""
    return {"frozen_ms": window.frozen_ms, "held_ms": window.held_ms}


def phases_as_json(phases: Iterable[PhaseRecord]) -> list[Document]:
    """Phases."""
    return [{"name": p.name, "started": rfc3339(p.started), "duration_ms": p.duration_ms} for p in phases]


def messages_as_json(messages: Iterable[Message]) -> list[Document]:
    """Messages."""
    return [{"at": rfc3339(each.at), "severity": each.severity, "text": each.text} for each in messages]


def verification_as_json(verification: Verification | None) -> Document | None:
    """How a verification ended."""
    if verification is None:
        return None
    return {
        "session": verification.session,
        "at": rfc3339(verification.at),
        "passed": verification.passed,
        "recovery_ms": verification.recovery_ms,
        "total_ms": verification.total_ms,
        "found": verification.checks,
        "error": verification.error,
    }


def session_as_json(shown: values.SessionShown) -> Document:
    """A session, in short."""
    session = shown.session
    took_ms = (session.ended - session.started).total_seconds() * 1000 if session.ended else None
    return {
        "id": session.id,
        "kind": session.kind,
        "specification": session.specification,
        "outcome": session.outcome,
        "interrupted": shown.interrupted,
        "started": rfc3339(session.started),
        "ended": moment_as_json(session.ended),
        "duration_ms": took_ms,
        "replica": session.document.get("replica", ""),
        "error": session.document.get("error"),
    }


def findings_as_json(findings: Iterable[Finding]) -> list[Document]:
    """What was found."""
    return [{"code": f.code, "severity": f.severity, "sentence": f.sentence, "hint": f.hint} for f in findings]


def volumes_as_json(volumes: Iterable[Volume]) -> list[Document]:
    """Volumes."""
    return [{"provider": v.provider, "id": v.id, "name": v.name, "path": v.path} for v in volumes]


def decision_as_json(decision: Decision) -> Document:
    """What rotation decides of a replica."""
    return {"keep": decision.keep, "reason": decision.reason}


def error_as_json(error: SlackwaterError | None) -> Document | None:
    """An error; null for none."""
    if error is None:
        return None
    return {"code": error.reason, "sentence": error.sentence, "data": error.data, "hint": error.hint}


def moment_as_json(moment: datetime | None) -> str | None:
    """A time; null for none."""
    return rfc3339(moment) if moment else None
