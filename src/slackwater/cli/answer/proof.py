# SPDX-License-Identifier: Apache-2.0
"""Verifications, trials, clones and mounts as JSON."""

from slackwater.cli import values
from slackwater.cli.answer.kit import (
    Document,
    answer,
    messages_as_json,
    phases_as_json,
    plan_as_json,
    verification_as_json,
    window_as_json,
)  # fmt: skip
from slackwater.cli.words import rfc3339
from slackwater.sessions.clone import CloneResult, CloneShown
from slackwater.sessions.mount import Mounted, Unmounted
from slackwater.sessions.trial import TrialResult
from slackwater.sessions.verify import VerificationResult


@answer.register
def _verification(value: VerificationResult) -> Document:
    return {
        "session": value.session,
        "specification": value.specification,
        "replica": value.replica,
        "verification": verification_as_json(value.verification),
        "phases": phases_as_json(value.phases),
        "messages": messages_as_json(value.messages),
    }


@answer.register
def _trial(value: TrialResult) -> Document:
    return {
        "session": value.session,
        "specification": value.specification,
        "plan": plan_as_json(value.plan),
        "consistency": value.consistency,
        "size_bytes": value.size_bytes,
        "window": window_as_json(value.window),
        "longest_gap_ms": value.gap_ms,
        "why_no_gap": value.why_no_gap,
        "back_ms": value.verification.recovery_ms,
        "verification": verification_as_json(value.verification),
        "phases": phases_as_json(value.phases),
        "messages": messages_as_json(value.messages),
    }


@answer.register
def _clone_made(value: CloneResult) -> Document:
    return {"session": value.session, "clone": _clone(value.shown), "phases": phases_as_json(value.phases)}


@answer.register
def _clones(value: values.Clones) -> Document:
    return {"clones": [_clone(each) for each in value.clones]}


@answer.register
def _clone_deleted(value: values.CloneDeleted) -> Document:
    return {"clone": _clone(CloneShown(value.clone, running=False))}


@answer.register
def _mounted(value: Mounted) -> Document:
    mounts = [{"volume": volume, "path": target} for volume, target in value.mounts]
    return {"session": value.session, "replica": value.replica, "read_write": value.read_write, "mounts": mounts}


@answer.register
def _unmounted(value: Unmounted) -> Document:
    return {"session": value.session, "paths": list(value.targets), "clones": list(value.deleted)}


def _clone(shown: CloneShown) -> Document:
    clone = shown.clone
    return {
        "id": clone.id,
        "name": clone.name,
        "kind": clone.kind,
        "replica": clone.replica,
        "specification": clone.specification,
        "created": rfc3339(clone.created),
        "expires": rfc3339(clone.expires) if clone.expires else None,
        "state": clone.state,
        "running": shown.running,
        "mounted": list(shown.mounted),
        "reached": {component: dict(facts) for component, facts in clone.document.reached.items()},
    }
